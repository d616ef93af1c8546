package cli

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/store/open"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// storeNote is what an output folder remembers of a store outside of it.
type storeNote struct {
	Name     string `json:"name"`
	Identity string `json:"identity"`
}

// stores are those of a run: what --store names, and else the output folder. A store that keeps nothing comes beside the
// folder where no other is named.
func (l *local) stores() []string {
	urls := storeURLs(l.Store)
	if len(urls) == 0 || open.WritesStdout(urls[:1]) {
		urls = append([]string{"file:" + l.Out}, urls...)
	}
	return urls
}

// inFolder reports whether the output folder is the store that decides.
func (l *local) inFolder() bool { return l.stores()[0] == "file:"+l.Out }

func (l *local) openMember(ctx context.Context, queue string) error {
	level, _ := zerolog.ParseLevel(l.LogLevel) // one of the enum
	source, err := l.secretSource(l.own)
	if err != nil {
		return err
	}
	l.member = &member{secrets: source, FetchFlags: l.FetchFlags, redis: l.redis, stores: l.stores(), stdout: l.w.Stdout, end: l.end,
		queues: map[string]int{queue: 1}, log: quietLog(l.w, level, source), registry: prometheus.NewRegistry(),
		parts: l.noted && l.embedded != nil}
	if l.Quiet {
		l.member.log = zerolog.Nop()
	}
	if err := l.makeOut(); err != nil {
		return err
	}
	if err := l.member.build(ctx); err != nil {
		return err
	}
	if err := l.sameStore(ctx); err != nil {
		l.member.close()
		return err
	}
	return nil
}

func (l *local) validateStores() error {
	if err := checkStores(l.stores()); err != nil {
		return err
	}
	if l.JSON && open.WritesStdout(l.stores()) {
		return usage("--json and --store jsonl:- both write to standard output: leave one of them out")
	}
	return nil
}

// makeOut makes the output folder where no store does it.
func (l *local) makeOut() error {
	if l.inFolder() {
		return nil
	}
	if err := os.MkdirAll(l.Out, 0o755); err != nil {
		return fmt.Errorf("--out: %w", err)
	}
	return nil
}

// continues reports whether this run goes on with the job of the output folder.
func (l *local) continues() bool { return l.noted && l.note.Job == tasks.JobID(l.Job) }

// sameStore notes which store the run keeps its results in, and refuses to go on with the folder's job in another than
// before: what is done would be done again.
func (l *local) sameStore(ctx context.Context) error {
	id, err := l.member.kept().Identity(ctx)
	if err != nil {
		return fmt.Errorf("identify store %s: %w", l.member.kept(), err)
	}
	if !l.inFolder() {
		l.store = &storeNote{Name: l.member.kept().String(), Identity: id}
	}
	before := l.note.Store
	switch {
	case !l.continues(), before == nil && l.inFolder(), before != nil && before.Identity == id:
		return nil
	case before == nil:
		return usage("job %s in %s keeps its results in that folder: leave out --store %s, or give another --out", l.Job, l.Out, l.store.Name)
	}
	return usage("job %s in %s keeps its results in %s: give that with --store, or another --out", l.Job, l.Out, before.Name)
}

// summaryTo is where the summary goes: beside records on standard output it would be no record.
func (l *local) summaryTo() io.Writer {
	if open.WritesStdout(l.stores()) {
		return l.w.Stderr
	}
	return l.w.Stdout
}
