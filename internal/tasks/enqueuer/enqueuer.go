// Package enqueuer turns lists into jobs: it canonicalises, drops what the job has, groups by host into batches,
// accepts them into the ledger and hands them to asynq.
//
// It promises that memory does not grow with the list, that what was accepted is never lost, and that running it
// again over the same list and job accepts what is missing and nothing twice, wherever it was stopped.
package enqueuer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// Options say which job to fill and how.
type Options struct {
	Job  tasks.JobID
	Spec tasks.Spec
	// OnBadLine is called for every line that is no request; nil ignores them. They are counted either way.
	OnBadLine func(lists.Line)
	// MaxBatch is the number of requests at which a batch is closed; 0 = 32.
	MaxBatch int
	// MemoryLimit is about how many bytes of partial batches are held before the oldest are flushed; 0 = 32 MiB.
	MemoryLimit int
	// Earlier returns what the job that the spec's Since names has of a request, by what makes the request itself within
	// its job; nil if that is nothing to ask the origin by. An error ends the run. It is asked by one goroutine, for GET
	// and HEAD without a body. nil: there is no earlier job, or it brings the requests itself (see Refetch).
	Earlier func(method, url, key string) (*tasks.Since, error)
}

// Counts is what has become of the lines so far.
type Counts struct {
	Lines      int64 `json:"lines"`      // that held a request or tried to
	Accepted   int64 `json:"accepted"`   // requests new to the job
	Duplicates int64 `json:"duplicates"` // requests the job had already
	BadLines   int64 `json:"bad_lines"`
	Batches    int64 `json:"batches"`
	// Conditional are those accepted that ask only for what has changed since an earlier job.
	Conditional int64 `json:"conditional,omitempty"`
}

// Enqueuer fills one job. Counts may be called while Run runs.
type Enqueuer struct {
	opts   Options
	ledger *ledger.Ledger
	sender *sender
	mu     sync.Mutex // guards groups, and the sender's next call
	groups *groups

	lines, bad atomic.Int64
}

// New returns an enqueuer for a job that exists in the ledger.
func New(l *ledger.Ledger, d *dispatch.Dispatcher, opts Options) *Enqueuer {
	if opts.MaxBatch <= 0 {
		opts.MaxBatch = 32
	}
	if opts.MemoryLimit <= 0 {
		opts.MemoryLimit = 32 << 20
	}
	s := &sender{job: opts.Job, queue: opts.Spec.Queue, ledger: l, dispatcher: d}
	return &Enqueuer{opts: opts, ledger: l, sender: s, groups: newGroups(opts.MaxBatch, opts.MemoryLimit)}
}

// Counts returns the figures so far.
func (e *Enqueuer) Counts() Counts {
	return Counts{
		Lines: e.lines.Load(), BadLines: e.bad.Load(),
		Accepted: e.sender.accepted.Load(), Duplicates: e.sender.duplicates.Load(), Batches: e.sender.batches.Load(),
		Conditional: e.sender.conditional.Load(),
	}
}

// Run reads the list to its end. It does not seal the job. On an error, and when ctx is done, what was accepted stays
// accepted; the rest is taken by running again.
func (e *Enqueuer) Run(ctx context.Context, list *lists.Reader) error {
	return e.fill(ctx, func() error { return e.read(ctx, list) })
}

// fill runs read, which puts requests into batches, and sends all of them on.
func (e *Enqueuer) fill(ctx context.Context, read func() error) error {
	e.sender.start(ctx)
	idle, stop := context.WithCancel(ctx)
	var flusher sync.WaitGroup
	flusher.Go(func() { e.flushWhenIdle(idle) })
	err := read()
	stop()
	flusher.Wait()
	if err == nil {
		e.flush()
	}
	return errors.Join(err, e.sender.wait())
}

// Seal says that the job gets nothing more, after a Run that returned nil. Like Run it waits for a Redis that is away.
func (e *Enqueuer) Seal(ctx context.Context) error {
	ended := false
	return e.sender.retry(ctx, func() error {
		now, err := e.ledger.Seal(ctx, e.opts.Job)
		if ended = ended || now; ended && err == nil { // no worker will see it end
			err = e.ledger.ForgetJars(ctx, e.opts.Job)
		}
		return err
	})
}

// idleTime is how long a list may bring nothing before what it brought is sent on: the other end of a pipe may think.
const idleTime = time.Second

// flushWhenIdle sends partial batches on while the list brings nothing.
func (e *Enqueuer) flushWhenIdle(ctx context.Context) {
	tick := time.NewTicker(idleTime)
	defer tick.Stop()
	for last := int64(0); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
		now := e.lines.Load()
		if now == last {
			e.flush()
		}
		last = now
	}
}

// flush sends every partial batch on.
func (e *Enqueuer) flush() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for g := e.groups.oldest(); g != nil; g = e.groups.oldest() {
		e.sender.offer(e.groups.take(g))
	}
	e.sender.flush()
}

func (e *Enqueuer) read(ctx context.Context, list *lists.Reader) error {
	for {
		if e.sender.failed() {
			return nil // wait returns why
		}
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		line, err := list.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		e.lines.Add(1)
		if line.Err == nil {
			if line.Err, err = e.add(ctx, &line); err != nil {
				return err
			}
		}
		if line.Err != nil {
			e.bad.Add(1)
			if e.opts.OnBadLine != nil {
				e.opts.OnBadLine(line)
			}
		}
	}
}

// add puts one line into its host's batch. bad is what is wrong with the line, err what stops the list.
func (e *Enqueuer) add(ctx context.Context, line *lists.Line) (bad, err error) {
	u, bad := canon.Parse(line.Item.URL)
	if bad != nil {
		return bad, nil
	}
	if most := e.opts.Spec.URLLimit(); len(u.Href) > most {
		return fmt.Errorf("the URL is longer than %d bytes", most), nil
	}
	if bad = checkReferences(&line.Item); bad != nil {
		return bad, nil
	}
	p := pending{url: u.Href}
	if e.opts.Spec.NoDedupe || !plain(&line.Item) {
		if p.request, err = e.request(ctx, u.Href, line); err != nil {
			return nil, err
		}
	}
	if err := e.since(&p); err != nil {
		return nil, err
	}
	e.put(u.Host, p)
	return nil, nil
}

// checkReferences refuses header values that look as if they referred to a secret and do not.
func checkReferences(it *lists.Item) error {
	for name, values := range it.Header {
		for _, v := range values {
			if _, err := secrets.Find(v); err != nil {
				return fmt.Errorf("header %s: %w", name, err)
			}
		}
	}
	return nil
}

// put adds a request to its host's batch.
func (e *Enqueuer) put(host string, p pending) {
	p.hash = e.hash(&p)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, full := range e.groups.add(host, p) {
		e.sender.offer(full)
	}
}

func plain(it *lists.Item) bool {
	return it.Method == "" && it.Header == nil && it.Body == nil && it.Key == "" && it.Meta == nil &&
		it.Retries == nil && it.Timeout+it.MaxTime+it.ConnectTimeout+it.TLSTimeout+it.IdleTimeout == 0 // none is below
}

// request builds a request that is more than its URL. One with a body that names no method is a POST where the job's
// method is GET.
func (e *Enqueuer) request(ctx context.Context, url string, line *lists.Line) (*tasks.Request, error) {
	it := &line.Item
	r := &tasks.Request{
		URL: url, Header: it.Header, Body: it.Body, Key: it.Key, Meta: it.Meta, Retries: it.Retries,
		Timeout: tasks.Duration(it.Timeout), RequestLimits: tasks.RequestLimits{
			MaxTime: tasks.Duration(it.MaxTime), ConnectTimeout: tasks.Duration(it.ConnectTimeout),
			TLSTimeout: tasks.Duration(it.TLSTimeout), IdleTimeout: tasks.Duration(it.IdleTimeout),
		},
	}
	if it.Method != e.opts.Spec.Method {
		r.Method = it.Method
	}
	if len(it.Body) > 0 && it.Method == "" && e.opts.Spec.Method == "GET" {
		r.Method = "POST"
	}
	if e.opts.Spec.NoDedupe && r.Key == "" {
		r.Key = "#" + strconv.FormatInt(line.Ordinal, 10)
	}
	if len(r.Body) > tasks.MaxInlineBody {
		return r, e.putBody(ctx, r)
	}
	return r, nil
}

// putBody moves the request's body under a key of its own, before the request can be accepted. Where the job has the
// request already, the body was there before it, and goes with it.
func (e *Enqueuer) putBody(ctx context.Context, r *tasks.Request) error {
	id, _, _ := r.Identity(e.opts.Job, &e.opts.Spec)
	hash, err := id.SeenHash()
	if err != nil {
		return err
	}
	err = e.sender.retry(ctx, func() error {
		unseen, err := e.ledger.Unseen(ctx, e.opts.Job, []int64{hash})
		if err != nil || len(unseen) == 0 {
			return err
		}
		return e.ledger.PutBody(ctx, e.opts.Job, string(id), r.Body)
	})
	r.ID, r.BodyKey, r.Body = id, string(id), nil
	return err
}

func (e *Enqueuer) hash(p *pending) int64 {
	if p.request == nil {
		return tasks.RequestHash(e.opts.Job, e.opts.Spec.Method, p.url, "", nil)
	}
	if p.request.ID != "" {
		h, _ := p.request.ID.SeenHash() // made by Identity, so it parses
		return h
	}
	r := p.request
	return tasks.RequestHash(e.opts.Job, r.EffectiveMethod(&e.opts.Spec), r.URL, r.Key, r.Body)
}

// ResumeError wraps what stopped an enqueuer and tells how to go on.
type ResumeError struct {
	Job tasks.JobID
	Err error
}

// Error is what stopped it, and the command that goes on.
func (e *ResumeError) Error() string {
	return fmt.Sprintf("%v; what was accepted is safe: run the same command with --job %s to continue", e.Err, e.Job)
}

// Unwrap returns what stopped it.
func (e *ResumeError) Unwrap() error { return e.Err }
