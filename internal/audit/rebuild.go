package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// Generations returns the highest generation of each request of a job that was taken more than once.
func Generations(ctx context.Context, s store.Store, job tasks.JobID) (map[string]int, error) {
	g := map[string]int{}
	for a, err := range accounts(ctx, s, job) {
		if err != nil {
			return nil, err
		}
		if a.Generation == 0 {
			continue
		}
		for _, e := range a.Entries {
			if e.Fate == store.Recorded {
				g[e.ID] = max(g[e.ID], a.Generation)
			}
		}
	}
	return g, nil
}

// Each calls do with every record of a job that counts: of each request the one of the highest generation.
// Memory grows with the number of requests that were taken more than once, not with the job.
func Each(ctx context.Context, s store.Store, job tasks.JobID, do func(*store.Record) error) error {
	highest, err := Generations(ctx, s, job)
	if err != nil {
		return err
	}
	for unit, err := range s.Units(ctx, string(job)) {
		if err != nil {
			return err
		}
		for r, err := range s.Records(ctx, string(job), unit) {
			if err != nil {
				return err
			}
			if r.Generation < highest[r.ID] {
				continue
			}
			if err := do(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// Rebuild puts a job into a ledger that knows nothing of it but its spec, from the units in the store: recorded
// requests as recorded, and batches that follow from the units as open. What had not been begun is not in any unit: the
// list brings it again, and with it what follows but lacks a request body that was in Redis. It returns how many
// requests are recorded.
func Rebuild(ctx context.Context, l *ledger.Ledger, s store.Store, job tasks.JobID, spec tasks.Spec) (recorded int64, err error) {
	b := &rebuilding{spec: spec, units: map[string]bool{}}
	if b.highest, err = Generations(ctx, s, job); err != nil {
		return 0, err
	}
	requests := 0
	for a, err := range accounts(ctx, s, job) {
		if err != nil {
			return 0, err
		}
		b.units[a.Unit()] = true
		requests += len(a.Entries)
	}
	b.to = l.Restore(job, requests)
	for a, err := range accounts(ctx, s, job) {
		if err != nil {
			return b.recorded, err
		}
		if err := errors.Join(b.entries(ctx, a), b.children(ctx, a)); err != nil {
			return b.recorded, fmt.Errorf("unit %s: %w", a.Unit(), err)
		}
	}
	return b.recorded, b.to.Close(ctx)
}

// accounts yields the account of every unit of a job.
func accounts(ctx context.Context, s store.Store, job tasks.JobID) iter.Seq2[*store.Account, error] {
	return func(yield func(*store.Account, error) bool) {
		for unit, err := range s.Units(ctx, string(job)) {
			var a *store.Account
			if err == nil {
				a, err = s.Account(ctx, string(job), unit)
			}
			if !yield(a, err) || err != nil {
				return
			}
		}
	}
}

// rebuilding is one ledger being rebuilt.
type rebuilding struct {
	spec     tasks.Spec
	units    map[string]bool // that are visible
	highest  map[string]int
	to       *ledger.Restoration
	recorded int64
}

func (b *rebuilding) entries(ctx context.Context, a *store.Account) error {
	for _, e := range a.Entries {
		if e.Fate != store.Recorded || a.Generation < b.highest[e.ID] {
			continue
		}
		counters := []ledger.Counter{{Name: string(e.Outcome), Add: 1}, {Name: "bytes", Add: e.Bytes}}
		if e.Class != "" {
			counters = append(counters, ledger.Counter{Name: "class:" + e.Class, Add: 1})
		}
		if e.Unchanged {
			counters = append(counters, ledger.Counter{Name: "unchanged", Add: 1})
		}
		if err := b.to.Recorded(ctx, tasks.RequestID(e.ID), a.Generation, counters...); err != nil {
			return err
		}
		b.recorded++
	}
	return nil
}

// children opens the batches that follow from a unit and have no unit of their own. The batch of a replay that was cut
// short is left out: the request has its earlier record. So is a batch whose request has a large body, which was in
// Redis alone: the list brings the request with its body, and where it comes in the batch that it came in before, that
// batch's unit is there and says how to go on.
func (b *rebuilding) children(ctx context.Context, a *store.Account) error {
	for _, c := range a.Children {
		if a.Generation > 0 || b.units[c.ID] {
			continue
		}
		batch, err := tasks.ParseBatch(tasks.BatchID(c.ID), c.Payload)
		if err != nil {
			return err
		}
		if slices.ContainsFunc(batch.Requests, func(r tasks.Request) bool { return r.BodyKey != "" }) {
			continue
		}
		ids := make([]tasks.RequestID, len(batch.Requests))
		for i := range batch.Requests {
			ids[i], _, _ = batch.Requests[i].Identity(batch.Job, &b.spec)
		}
		child := ledger.Child{ID: batch.ID, Requests: c.Requests, Due: c.Due, Payload: c.Payload}
		if err := b.to.Open(ctx, child, ids); err != nil {
			return err
		}
	}
	return nil
}

// Failures calls do with every request of a job whose record that counts is a failure or a final HTTP error, as it can
// be taken again.
func Failures(ctx context.Context, s store.Store, job tasks.JobID, do func(ledger.Retake) error) error {
	highest, err := Generations(ctx, s, job)
	if err != nil {
		return err
	}
	for a, err := range accounts(ctx, s, job) {
		if err != nil {
			return err
		}
		for _, e := range a.Entries {
			again := e.Fate == store.Recorded && (e.Outcome == store.Failed || e.Outcome == store.HTTPError)
			if !again || a.Generation < highest[e.ID] {
				continue
			}
			r, err := retake(job, a, e)
			if err != nil {
				return fmt.Errorf("unit %s: %w", a.Unit(), err)
			}
			if err := do(r); err != nil {
				return err
			}
		}
	}
	return nil
}

// retake is a failed entry as it can be taken again.
func retake(job tasks.JobID, a *store.Account, e store.Entry) (ledger.Retake, error) {
	var request tasks.Request
	if err := json.Unmarshal(e.Request, &request); err != nil {
		return ledger.Retake{}, fmt.Errorf("request %s: %w", e.ID, err)
	}
	request.Redirects = nil // a request that ran out of redirects gets as many again, from where it stood
	u, err := canon.Parse(request.URL)
	if err != nil {
		return ledger.Retake{}, fmt.Errorf("request %s: %w", e.ID, err)
	}
	b := tasks.Batch{Job: job, Host: u.Host, Requests: []tasks.Request{request}, Generation: a.Generation + 1}
	payload, err := b.Payload()
	return ledger.Retake{
		Request: tasks.RequestID(e.ID), Generation: a.Generation + 1, Payload: payload,
		Outcome: string(e.Outcome), Class: e.Class, Bytes: e.Bytes, From: tasks.BatchID(a.Batch),
	}, err
}
