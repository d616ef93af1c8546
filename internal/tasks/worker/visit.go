package worker

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/faults"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// visit fetches the batch: its requests run concurrently, up to the host's permits, and what comes of them is
// committed as one unit.
func (d *delivery) visit(ctx context.Context) error {
	if d.stopping.Err() != nil {
		return d.giveBack(ctx, deferBatch(0, "returned: its worker was told to stop"))
	}
	visit, err := d.enter(ctx)
	var gone *hosts.UnavailableError
	if busy, ok := hosts.IsBusy(err); ok {
		d.metrics.Deferred("in_line")
		return d.giveBack(ctx, d.inLine(busy))
	}
	if err != nil && !errors.As(err, &gone) {
		return d.giveBack(ctx, deferBatch(time.Second, "host %s: %v", d.batch.Host, err))
	}
	unit, err := d.store.Begin(ctx, string(d.batch.Job), store.UnitName(string(d.batch.ID), d.generation))
	if err != nil {
		leave(visit)
		return d.storeTrouble(ctx, err)
	}
	v := &visitRun{delivery: d, jar: d.newJar(), visit: visit, unit: unit, archives: archives(unit), results: make([]result, len(d.batch.Requests))}
	if gone != nil {
		v.givenUp(gone)
	} else {
		v.begun = d.begunBodies(ctx)
		v.fetchAll(ctx)
		v.tellRefused()
		leave(visit)
		d.leftHost()
	}
	return v.conclude(ctx)
}

func leave(visit hosts.Visit) {
	if visit != nil {
		visit.Leave()
	}
}

// inLine defers a batch whose host has enough visitors. Its real last error stays visible behind it.
func (d *delivery) inLine(busy *hosts.BusyError) error {
	last := d.state.LastError
	if last == "" {
		last = d.batch.LastError
	}
	if last == "" {
		return deferBatch(busy.After, "%v", busy)
	}
	return deferBatch(busy.After, "%v (before that: %s)", busy, last)
}

// visitRun is one batch being fetched.
type visitRun struct {
	*delivery
	visit    hosts.Visit
	unit     store.Unit
	archives bool                     // the unit keeps whole exchanges
	begun    map[tasks.RequestID]bool // those of which the beginning of a body may be kept
	results  []result
	jar      *jar // nil: the job keeps no cookies

	storeErr atomic.Pointer[error] // the first error of the store itself
}

func archives(u store.Unit) bool {
	k, ok := u.(store.ExchangeKeeper)
	return ok && k.KeepsExchanges()
}

// result is what came of one request of the batch. Its zero value says that it was not begun.
type result struct {
	begun   bool
	verdict verdict
	record  *store.Record // when verdict says so
	hop     *hop          // it goes on at another host
	err     string        // what happened last, for the batch it leaves as
}

func (r *result) back() bool { return !r.begun || r.hop == nil && r.verdict.step == stepBack }

// fetchAll runs the requests of the batch until all are done or nothing new may begin.
func (v *visitRun) fetchAll(ctx context.Context) {
	v.metrics.Visits(+1)
	defer v.metrics.Visits(-1)
	work, cancel := context.WithCancel(ctx) // ends what is in flight
	defer cancel()
	defer context.AfterFunc(v.halted, cancel)()
	start, hold := context.WithCancel(work) // ends the wait for permits
	defer hold()
	defer context.AfterFunc(v.stopping, hold)()

	requests := newCrew(len(v.batch.Requests))
	defer requests.wait()
	for i := range v.batch.Requests {
		if why, refused := v.refusal(v.batch.Requests[i].URL); refused {
			v.results[i] = v.unsent(i, why)
			continue
		}
		if !requests.ready(start) || v.linkDown() || v.storeErr.Load() != nil {
			return
		}
		release, ok := v.admit(start)
		if !ok {
			return
		}
		requests.do(func() {
			defer release()
			faults.Request(v.batch.Requests[i].URL)
			v.results[i] = v.request(work, start, i)
			v.keepJar(ctx)
			if v.storeErr.Load() != nil {
				cancel()
			}
		})
	}
}

// rare is the pause between the requests to a host from which on they go before others for a place among all in flight: a
// turn that was lost there for want of a place takes as long to come again.
const rare = time.Second

// admit waits for the host's permit and for a place among all requests in flight.
func (v *visitRun) admit(ctx context.Context) (release func(), ok bool) {
	permit, err := v.visit.Permit(ctx)
	if err != nil {
		return nil, false
	}
	since := time.Now()
	rank := v.number
	if v.visit.Interval() >= rare {
		rank = 0
	}
	if !v.inFlight.acquire(ctx, rank) {
		permit()
		return nil, false
	}
	if v.visit.Renew(ctx, since) != nil { // else those that waited for a place would go together
		v.inFlight.release()
		permit()
		return nil, false
	}
	v.metrics.InFlight(+1)
	return func() {
		v.metrics.InFlight(-1)
		v.inFlight.release()
		permit()
	}, true
}

// conclude commits what was fetched and moves the ledger forward.
func (v *visitRun) conclude(ctx context.Context) error {
	ctx, cancel := v.keep(ctx)
	defer cancel()
	if err := v.storeErr.Load(); err != nil {
		v.drop()
		return v.storeTrouble(ctx, *err)
	}
	if v.untouched() {
		v.drop()
		return v.giveBack(ctx, deferBatch(0, "returned: its worker was stopped or interrupted"))
	}
	if r := &v.results[0]; v.batch.Carried && r.hop == nil && r.verdict.step != stepRecord {
		v.drop()
		return v.again(ctx, r)
	}
	for i := range v.results {
		if err := v.add(&v.results[i]); err != nil {
			v.drop()
			return v.storeTrouble(ctx, err)
		}
	}
	account, err := v.account(ctx)
	if err != nil {
		v.drop()
		return err
	}
	return v.commit(ctx, v.unit, account, v.records())
}

// drop discards the unit. What it leaves behind is a temporary that the store sweeps.
func (v *visitRun) drop() {
	if err := v.unit.Discard(); err != nil {
		v.log.Warn().Err(err).Msg("unit could not be discarded")
	}
}

func (v *visitRun) untouched() bool {
	for i := range v.results {
		if !v.results[i].back() {
			return false
		}
	}
	return true
}

// again returns a carried batch to asynq's retry.
func (v *visitRun) again(ctx context.Context, r *result) error {
	p := r.verdict.past
	trial := ledger.Trial{Waits: p.waits, Since: p.waitSince, Error: r.err}
	err := v.insist(ctx, func(ctx context.Context) error { return v.ledger.Tried(ctx, v.start, trial) })
	if err != nil {
		v.log.Warn().Err(err).Msg("attempt could not be noted")
	}
	faults.Point("after-tried")
	return &retryError{text: r.err, after: r.verdict.delay, counted: r.verdict.step == stepRetry}
}

func (v *visitRun) records() []*store.Record {
	var records []*store.Record
	for i := range v.results {
		if r := v.results[i].record; r != nil {
			records = append(records, r)
		}
	}
	return records
}
