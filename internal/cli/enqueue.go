package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alecthomas/kong"
	"golang.org/x/term"

	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/progress"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
	"github.com/fetchfleet/fetchfleet/internal/tasks/faults"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

const enqueueHelp = `Put lists of URLs into a job that the fleet's workers fetch.

Each line is a URL, or a JSON object {"url", "method", "headers", "params", "body", "json", "form", "multipart",
"body_base64", "key", "meta", "retries", "timeout", "max_time", "connect_timeout", "tls_timeout", "idle_timeout"}. Blank
lines and lines that begin with # are ignored. Files may be gzip or zstd. A FILE that is a URL is a list of one. With
--template the FILEs are tables, CSV or JSON Lines, and each row makes a request; with --sql rows come from a database.

Running the same command again with the same --job continues it: nothing twice, nothing missing.
` + sinceHelp

// Enqueue runs the enqueue command and returns its exit code.
func Enqueue(w IO) int {
	var c enqueueCommand
	return run(w, "enqueue", enqueueHelp+exitHelp, &c, func(*kong.Context) runner { return &c })
}

type enqueueCommand struct {
	VersionFlag
	RedisFlags
	PolicyFlags
	RowFlags
	Job   string   `env:"FLEET_JOB" placeholder:"ID" help:"Job to create or continue (default: a new id, printed)."`
	Wait  bool     `env:"FLEET_WAIT" help:"Follow the job to its end."`
	JSON  bool     `name:"json" env:"FLEET_JSON" help:"Print the result as JSON on standard output."`
	Quiet bool     `short:"q" env:"FLEET_QUIET" help:"No progress."`
	Since string   `env:"FLEET_SINCE" placeholder:"JOB" help:"Ask only for what has changed since this earlier job; without a list, at all of its URLs. Needs --store."`
	Store string   `env:"FLEET_STORE" placeholder:"URL" help:"With --since: the store that has the earlier job, and takes this one."`
	Files []string `arg:"" optional:"" name:"FILE" help:"Lists; - is standard input, which is also read when no file is given."`
}

// Run enqueues.
func (c *enqueueCommand) Run(ctx context.Context, w IO) error {
	if err := c.sources(w); err != nil {
		return err
	}
	asked, err := readRequests(&c.PolicyFlags, c.RowFlags, c.Files, w.Stdin)
	if err != nil {
		return err
	}
	defer asked.close()
	spec, given, err := c.Spec()
	if err != nil {
		return err
	}
	if err := asked.apply(&c.PolicyFlags, &spec, &given); err != nil {
		return err
	}
	for _, warning := range c.warnings(&spec) {
		fmt.Fprintln(w.Stderr, "enqueue: warning:", warning)
	}
	rdb, err := c.open(ctx, redisconn.Options{}, func(s string) { fmt.Fprintln(w.Stderr, "enqueue: warning:", s) })
	if err != nil {
		return err
	}
	defer rdb.Close()
	p := &producer{w: w, name: "enqueue", ledger: ledger.New(rdb), quiet: c.Quiet, files: c.Files, asked: asked}
	if c.Since != "" {
		s, err := openStore(ctx, c.Store)
		if err != nil {
			return err
		}
		defer s.Close()
		if p.since, err = openEarlier(ctx, s, c.Since, c.whole(), &spec, &given); err != nil {
			return err
		}
		if err := p.since.ask(ctx, rdb, spec, func(s string) { fmt.Fprintln(w.Stderr, "enqueue: warning:", s) }); err != nil {
			return err
		}
	}
	p.given = given
	p.dispatcher = dispatch.New(rdb, p.ledger)
	if err := p.open(ctx, c.Job, spec); err != nil {
		return err
	}
	if c.Job == "" && !c.JSON {
		fmt.Fprintf(w.Stderr, "job %s\n", p.job)
	}
	err = c.work(ctx, w, p)
	return errors.Join(err, c.report(ctx, w, p, err))
}

// work fills the job and, with --wait, follows it to its end.
func (c *enqueueCommand) work(ctx context.Context, w IO, p *producer) error {
	if !c.Wait {
		reading, stop := context.WithCancel(context.Background())
		defer stop()
		if !c.Quiet {
			go every(reading, 5*time.Second, p.tell)
		}
		return p.fill(ctx)
	}
	defer p.display(w, p.sample)()
	if err := p.fill(ctx); err != nil {
		return err
	}
	_, err := awaitEnd(ctx, p.ledger, p.job)
	if errors.Is(err, ledger.ErrUnknownJob) {
		return err
	}
	if err != nil {
		return &exitError{code: ExitInterrupted, err: fmt.Errorf("%w: the job goes on; follow it with 'fleet status %s'", err, p.job)}
	}
	return nil
}

// sources checks the lists before anything is created.
func (c *enqueueCommand) sources(w IO) error {
	if c.Since != "" {
		if err := checkSince(c.Since, c.Job, c.whole(), &c.PolicyFlags); err != nil {
			return err
		}
		if c.Store == "" {
			return usage("--since %s: name the store that has its results with --store", c.Since)
		}
	} else if len(c.Files) == 0 && c.SQL == "" {
		if f, ok := w.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return usage("no list given: name files, or - for standard input")
		}
		c.Files = []string{lists.Stdin}
	}
	return lists.Check(c.Files)
}

// whole reports whether --since asks for all URLs of the earlier job again.
func (c *enqueueCommand) whole() bool { return c.Since != "" && len(c.Files) == 0 && c.SQL == "" }

// enqueueResult is the machine-readable result: a public contract.
type enqueueResult struct {
	Job tasks.JobID `json:"job"`
	enqueuer.Counts
	Sealed bool           `json:"sealed"`
	Since  tasks.JobID    `json:"since,omitempty"`
	Left   int64          `json:"left,omitempty"` // requests of the earlier job that its records do not tell
	Error  string         `json:"error,omitempty"`
	Status *ledger.Status `json:"status,omitempty"` // with --wait
}

// report prints the result. Its error is only the exit code.
func (c *enqueueCommand) report(ctx context.Context, w IO, p *producer, failed error) error {
	res := enqueueResult{Job: p.job, Counts: p.enqueuer.Counts(), Sealed: p.sealed}
	if p.since != nil {
		res.Since, res.Left = p.since.job, p.since.tally.Left
	}
	if failed != nil {
		res.Error = failed.Error()
	}
	if c.Wait && failed == nil {
		s, err := p.ledger.Status(context.WithoutCancel(ctx), p.job)
		if err != nil {
			return err
		}
		res.Status = &s
	}
	if c.JSON {
		if err := json.NewEncoder(w.Stdout).Encode(res); err != nil {
			return fmt.Errorf("write the result: %w", err)
		}
	} else {
		res.print(w.Stdout, p.since)
	}
	incomplete := res.BadLines > 0 || res.Status != nil && res.Status.OK < res.Status.Recorded()
	if failed == nil && incomplete {
		return &exitError{code: ExitIncomplete}
	}
	return nil
}

func (r *enqueueResult) print(w io.Writer, since *earlierJob) {
	fmt.Fprintf(w, "job %s: %d accepted, %d duplicates, %d bad lines\n", r.Job, r.Accepted, r.Duplicates, r.BadLines)
	if since != nil && r.Sealed {
		for _, line := range since.told(r.Counts) {
			fmt.Fprintln(w, line)
		}
	}
	if s := r.Status; s != nil {
		fmt.Fprintf(w, "ended: %d ok, %d http_error, %d failed, %d skipped\n", s.OK, s.HTTPErr, s.Failed, s.Skipped)
		if since != nil {
			fmt.Fprintf(w, "unchanged: %d\n", s.Unchanged)
		}
	}
}

// producer fills one job from lists; enqueue and fleet run share it.
type producer struct {
	w          IO
	name       string
	here       bool // the job is worked in this process, and its output folder remembers it
	job        tasks.JobID
	given      []string
	files      []string
	asked      *requests
	quiet      bool
	since      *earlierJob // nil: there is none
	find       func(method, url, key string) (*tasks.Since, error)
	ledger     *ledger.Ledger
	dispatcher *dispatch.Dispatcher

	list     *lists.Reader
	enqueuer *enqueuer.Enqueuer
	sealed   bool
	mu       sync.Mutex // guards badShown
	badShown int
	out      atomic.Pointer[outlet]
}

// open creates or continues the job.
func (p *producer) open(ctx context.Context, job string, spec tasks.Spec) error {
	p.job = tasks.JobID(job)
	if job == "" {
		p.job = tasks.NewJobID(time.Now())
	}
	if err := p.job.Validate(); err != nil {
		return usage("--job: %w", err)
	}
	list, err := p.asked.open(ctx, p.files, p.w.Stdin)
	if err != nil {
		return err
	}
	p.list = list
	if err := p.create(ctx, spec); err != nil {
		_ = list.Close() // the first error matters, and nothing was written
		return err
	}
	return nil
}

// create makes the job in the ledger, or takes up the one that is there.
func (p *producer) create(ctx context.Context, spec tasks.Spec) error {
	inForce, fresh, err := p.ledger.Create(ctx, p.job, spec, p.given)
	var conflict *ledger.ConflictError
	if errors.As(err, &conflict) {
		return usage("%w", err)
	}
	if err != nil {
		return redisconn.Explain(err)
	}
	if warning := insecureWarning(&inForce); warning != "" {
		fmt.Fprintf(p.w.Stderr, "%s: warning: %s\n", p.name, warning)
	}
	if !fresh { // what an earlier run accepted and could not hand over any more
		if _, err := p.dispatcher.Drain(ctx, p.job, 0); err != nil {
			return redisconn.Explain(err)
		}
	}
	if n := p.expected(); fresh && n > 0 {
		if err := p.ledger.Expect(ctx, p.job, n); err != nil {
			return redisconn.Explain(err)
		}
	}
	opts := enqueuer.Options{Job: p.job, Spec: inForce, OnBadLine: p.bad}
	if p.since != nil {
		if err := p.since.agrees(p.job, inForce); err != nil {
			return err
		}
		if !p.since.whole {
			opts.Earlier = func(method, url, key string) (*tasks.Since, error) { return p.find(method, url, key) }
		}
	}
	p.enqueuer = enqueuer.New(p.ledger, p.dispatcher, opts)
	return nil
}

// expected is about how many requests will come, 0 = unknown.
func (p *producer) expected() int64 {
	if p.since != nil && p.since.whole {
		return p.since.expected
	}
	const lineLength = 80 // bytes, about
	_, size := p.list.Progress()
	return size / lineLength
}

// maxBadShown is how many bad lines are printed; all are counted.
const maxBadShown = 20

func (p *producer) bad(line lists.Line) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.badShown++
	switch {
	case p.badShown <= maxBadShown:
		p.say(fmt.Sprintf("%s: %s:%d: %v", p.name, line.Source, line.Number, line.Err))
	case p.badShown == maxBadShown+1:
		p.say(p.name + ": more bad lines are counted, not shown")
	}
}

func (p *producer) say(line string) {
	if o := p.out.Load(); o != nil {
		fmt.Fprintln(o, line)
		return
	}
	fmt.Fprintln(p.w.Stderr, line)
}

// fill reads the lists into the job and seals it.
func (p *producer) fill(ctx context.Context) error {
	defer p.list.Close()
	err := p.read(ctx)
	if err == nil {
		faults.Point("before-seal")
		if err = p.enqueuer.Seal(ctx); err == nil {
			p.sealed = true
			return nil
		}
	}
	if ctx.Err() != nil {
		return &exitError{code: ExitInterrupted, err: p.resumable(context.Cause(ctx))}
	}
	return p.resumable(redisconn.Explain(err))
}

// read puts the requests into the job.
func (p *producer) read(ctx context.Context) error {
	if p.since != nil {
		return p.since.fill(ctx, p)
	}
	return p.enqueuer.Run(ctx, p.list)
}

// progress is how much of the list was read, of how much; 0 = unknown.
func (p *producer) progress() (done, total int64) {
	if p.since != nil {
		return p.since.progress(p.enqueuer.Counts().Lines, p.list)
	}
	return p.list.Progress()
}

// resumable adds to what stopped a producer how to go on. fleet run says it in its summary.
func (p *producer) resumable(err error) error {
	if p.here {
		return err
	}
	return &enqueuer.ResumeError{Job: p.job, Err: err}
}

// untilDone reads until ctx is done: a read of standard input may wait for ever, and cannot be cancelled itself.
func untilDone(ctx context.Context, stdin io.Reader) io.Reader {
	r, w := io.Pipe()
	go func() {
		_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{stdin}, make([]byte, 256<<10))
		_ = w.CloseWithError(err) // never fails; nil is the end of the list
	}()
	context.AfterFunc(ctx, func() { _ = r.CloseWithError(context.Cause(ctx)) })
	return r
}

// tell says how far the list has been read.
func (p *producer) tell() {
	counts := p.enqueuer.Counts()
	line := fmt.Sprintf("%s: job %s: %d accepted, %d duplicates, %d bad lines", p.name, p.job, counts.Accepted, counts.Duplicates, counts.BadLines)
	if done, total := p.progress(); total > 0 {
		line += fmt.Sprintf(", %d%% of the list", 100*done/total)
	}
	p.say(line)
}

// display shows progress until the returned function is called. Lines that are said meanwhile stand beside it.
func (p *producer) display(w IO, sample func(context.Context) (progress.Snapshot, error)) (hide func()) {
	d := progress.New(progress.Options{Out: w.Stderr, Terminal: isTerminal(w.Stderr), Quiet: p.quiet}, sample)
	p.out.Store(&outlet{d.Writer()})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = d.Run(ctx) // what it could not show is in the summary
	}()
	return func() {
		cancel()
		<-done
		p.out.Store(nil)
	}
}

// outlet is where lines for people go while a display is up.
type outlet struct{ io.Writer }

func (p *producer) sample(ctx context.Context) (progress.Snapshot, error) {
	status, err := p.ledger.Status(ctx, p.job)
	if err != nil {
		return progress.Snapshot{}, err
	}
	s := snapshot(status)
	counts := p.enqueuer.Counts()
	s.Duplicates, s.BadLines = counts.Duplicates, counts.BadLines
	s.Listing = s.State == "accepting"
	s.ListDone, s.ListTotal = p.progress()
	return s, nil
}
