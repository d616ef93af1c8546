package cli

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/earlier"
	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/progress"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

const sinceHelp = `
With --since, requests carry the ETag and Last-Modified of that job's answers, and a page that has not changed since then
is recorded as ok, with "unchanged": true, and refers to the earlier body. Without a list all URLs of that job are
fetched again; standard input is then read only as -. Give the headers that the earlier job had.
`

// earlierJob is the job that --since names, to a producer.
type earlierJob struct {
	job      tasks.JobID
	store    store.Store
	identity string
	whole    bool  // its requests are made again; else those of the list
	expected int64 // its requests, as far as Redis knows; 0 = unknown
	tally    earlier.Tally

	unchanged int64 // records of the new job whose body is an earlier one, where they were seen
}

// saw takes note of a record of the new job.
func (e *earlierJob) saw(r *store.Record) {
	if e != nil && r.Unchanged {
		e.unchanged++
	}
}

// checkSince refuses what --since cannot go with, before anything is opened. whole means that no list was named.
func checkSince(since, job string, whole bool, p *PolicyFlags) error {
	if err := tasks.JobID(since).Validate(); err != nil {
		return usage("--since: %w", err)
	}
	if since == job {
		return usage("--since %s: that is the job itself: give the id of an earlier one", since)
	}
	if !whole {
		return nil
	}
	for _, f := range []struct {
		name  string
		given bool
	}{{"--method", p.Method != nil}, {"--data", p.Data != nil}, {"--json-body", p.JSONBody != nil}, {"--form", len(p.Form) > 0}, {"--param", len(p.Param) > 0}, {"--no-dedupe", p.NoDedupe}} {
		if f.given {
			return usage("%s: without a list --since asks as job %s did, for each of its URLs once: leave it out, or give the list", f.name, since)
		}
	}
	return nil
}

// openEarlier finds the job in the store, and writes into the spec which it is.
func openEarlier(ctx context.Context, s store.Store, since string, whole bool, spec *tasks.Spec, given *[]string) (*earlierJob, error) {
	e := &earlierJob{job: tasks.JobID(since), store: s, whole: whole}
	if err := earlier.Check(ctx, s, e.job); err != nil {
		return nil, fmt.Errorf("--since: %w: check the id, and that this is the store of that job", err)
	}
	var err error
	if e.identity, err = s.Identity(ctx); err != nil {
		return nil, err
	}
	spec.Since, spec.SinceStore = e.job, e.identity
	*given = append(*given, "--since")
	return e, nil
}

// ask looks what Redis knows of the job, which is nothing where its Redis was another. spec is that of the new job.
func (e *earlierJob) ask(ctx context.Context, rdb redis.UniversalClient, spec tasks.Spec, warn func(string)) error {
	l := ledger.New(rdb)
	s, err := l.Status(ctx, e.job)
	switch {
	case errors.Is(err, ledger.ErrUnknownJob):
		return nil
	case err != nil:
		return redisconn.Explain(err)
	case s.Store != "" && s.Store != e.identity:
		return fmt.Errorf("--since: %w", &ledger.OtherStoreError{Job: e.job, Noted: s.Store, Identity: e.identity, Name: e.store.String()})
	case s.State != progress.Ended:
		warn(fmt.Sprintf("job %s has not ended: of %d requests it has %d so far", e.job, s.Accepted, s.Recorded()))
	}
	e.expected = s.Recorded()
	had, err := l.Spec(ctx, e.job)
	if err != nil {
		return redisconn.Explain(err)
	}
	for _, flag := range []string{"--header", "--user-agent"} { // by name alone: headers may be secrets
		if len(spec.Difference(had, []string{flag})) > 0 {
			warn(fmt.Sprintf("job %s had another %s: where answers depend on it, unchanged may mean what that job was sent", e.job, flag))
		}
	}
	return nil
}

// agrees reports an error where the job to be filled refers to another store.
func (e *earlierJob) agrees(job tasks.JobID, inForce tasks.Spec) error {
	if inForce.SinceStore != e.identity {
		return usage("job %s began with --since %s from the store with identity %s; %s is another (%s): give the store that it began with",
			job, e.job, inForce.SinceStore, e.store, e.identity)
	}
	return nil
}

// fill puts the requests into the new job: those of the list, or its own.
func (e *earlierJob) fill(ctx context.Context, p *producer) (err error) {
	if e.whole {
		return p.enqueuer.Refetch(ctx, func(ctx context.Context, do func(enqueuer.Again) error) (err error) {
			e.tally, err = earlier.Requests(ctx, e.store, e.job, do)
			return err
		})
	}
	index, err := earlier.NewIndex(ctx, e.store, e.job)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, index.Close()) }()
	e.tally, p.find = index.Tally(), index.Find
	return p.enqueuer.Run(ctx, p.list)
}

// progress is how many of its requests were read, of how many.
func (e *earlierJob) progress(lines int64, list *lists.Reader) (done, total int64) {
	if e.whole {
		return lines, e.expected
	}
	return list.Progress()
}

// told says what came of --since, for people.
func (e *earlierJob) told(c enqueuer.Counts) (lines []string) {
	switch {
	case c.Conditional > 0:
		lines = append(lines, fmt.Sprintf("%d of them ask only for what has changed since job %s", c.Conditional, e.job))
	case e.tally.Conditional == 0:
		lines = append(lines, fmt.Sprintf("job %s has no ETag and no Last-Modified: all are fetched anew", e.job))
	case c.Accepted > 0:
		lines = append(lines, fmt.Sprintf("none of them could be asked so by what job %s has: all are fetched anew", e.job))
	}
	if e.unchanged > 0 {
		lines = append(lines, fmt.Sprintf("%d are unchanged", e.unchanged))
	}
	if e.tally.Left > 0 {
		lines = append(lines, fmt.Sprintf("%d requests of job %s are left out: they are neither GET nor HEAD, and records do not have their bodies: give their list", e.tally.Left, e.job))
	}
	return lines
}

// existing reports an error if the output folder is not there: a run would make it.
func existing(since, out string) error {
	if _, err := os.Stat(out); err != nil {
		return fmt.Errorf("--since %s: it is to be in --out %s: %w", since, out, err)
	}
	return nil
}

// openSince finds the earlier job of a run in its own store.
func (l *local) openSince(ctx context.Context, spec *tasks.Spec) (err error) {
	if l.since == "" {
		return nil
	}
	p := l.producer
	if p.since, err = openEarlier(ctx, l.member.store, l.since, len(l.files) == 0 && l.rowFlags.SQL == "", spec, &p.given); err != nil {
		return err
	}
	return p.since.ask(ctx, l.redis, *spec, l.warn)
}

// source is what a run reads its requests from, for people.
func (l *local) source() string {
	if since := l.note.Spec.Since; since != "" {
		return fmt.Sprintf("--since %s, and the list if there was one,", since)
	}
	return "the list"
}
