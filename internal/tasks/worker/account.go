package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/faults"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// add puts the record of a request that ended into the unit. A record that the store refuses for itself becomes a
// record that says so.
func (v *visitRun) add(r *result) error {
	if r.record == nil {
		return nil
	}
	err := v.unit.Add(r.record)
	if !errors.Is(err, store.ErrRecord) {
		return err
	}
	h := happening{class: classStore, message: err.Error()}
	refused := r.record
	r.verdict.final = h
	r.record = &store.Record{
		ID: refused.ID, Job: refused.Job, Batch: refused.Batch, Generation: refused.Generation, URL: refused.URL,
		Method: refused.Method, Outcome: store.Failed, Error: &store.RecordError{Class: h.class, Message: h.message},
		Attempts: refused.Attempts, FetchedAt: refused.FetchedAt, ElapsedMS: refused.ElapsedMS, Worker: refused.Worker,
	}
	return v.unit.Add(r.record)
}

// newAccount begins the account of this delivery's unit.
func (d *delivery) newAccount() *store.Account {
	return &store.Account{
		V: store.AccountVersion, Job: string(d.batch.Job), Batch: string(d.batch.ID), Generation: d.generation,
		Worker: d.name, Delivery: d.token,
	}
}

// account says what became of every request: recorded here, leaving as a batch of one, or handed back.
func (v *visitRun) account(ctx context.Context) (*store.Account, error) {
	a := v.newAccount()
	var back []tasks.Request
	for i := range v.results {
		r, request := &v.results[i], &v.batch.Requests[i]
		if r.back() {
			back = append(back, *request)
			continue
		}
		entry, child, err := v.entry(ctx, r, request)
		if err != nil {
			return nil, err
		}
		a.Entries = append(a.Entries, entry)
		if child != nil {
			a.Children = append(a.Children, *child)
		}
	}
	return a, v.handBack(a, back)
}

// handBack puts the requests that were not done into one batch that follows.
func (v *visitRun) handBack(a *store.Account, back []tasks.Request) error {
	if len(back) == 0 {
		return nil
	}
	for i := range back {
		id, _, _ := back[i].Identity(v.batch.Job, &v.spec)
		a.Entries = append(a.Entries, store.Entry{ID: string(id), Fate: store.HandedBack})
	}
	rest := *v.batch
	rest.Requests = back
	child, err := v.child("back", &rest, 0)
	if err != nil {
		return err
	}
	a.Children = append(a.Children, *child)
	return nil
}

func (v *visitRun) entry(ctx context.Context, r *result, request *tasks.Request) (store.Entry, *store.Child, error) {
	if r.record != nil {
		entry, err := v.recorded(ctx, r.record, request)
		return entry, nil, err
	}
	id, _, _ := request.Identity(v.batch.Job, &v.spec)
	if r.hop != nil {
		next := tasks.Batch{Job: v.batch.Job, Host: r.hop.host, Requests: []tasks.Request{r.hop.request},
			Attempts: v.past.attempts, Generation: v.generation}
		child, err := v.child("hop", &next, 0)
		return store.Entry{ID: string(id), Fate: store.HandedBack}, child, err
	}
	p := r.verdict.past
	next := tasks.Batch{Job: v.batch.Job, Host: v.batch.Host, Requests: []tasks.Request{*request}, Carried: true,
		Attempts: p.attempts, Waits: p.waits, WaitSince: p.waitSince, LastError: r.err, Generation: v.generation}
	due := v.now().Add(r.verdict.delay)
	child, err := v.child("retry", &next, due.UnixMilli())
	return store.Entry{ID: string(id), Fate: store.ToRetry, Attempts: p.attempts, Error: r.err}, child, err
}

// recorded is the entry of a recorded request. One that is not ok keeps the request, to be taken again from here, with
// its body: the store outlives Redis.
func (d *delivery) recorded(ctx context.Context, r *store.Record, request *tasks.Request) (store.Entry, error) {
	entry := store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: r.Outcome, Bytes: r.NewBytes(), Attempts: r.Attempts,
		Unchanged: r.Unchanged}
	if r.Error == nil {
		return entry, nil
	}
	entry.Class, entry.Error = r.Error.Class, r.Error.Message
	kept := *request
	if kept.BodyKey != "" {
		body, err := d.ledger.Body(ctx, d.batch.Job, kept.BodyKey)
		if err == nil {
			kept.Body, kept.BodyKey = body, ""
		} else {
			d.log.Warn().Err(err).Msg("request kept without its body")
		}
	}
	data, err := json.Marshal(kept)
	entry.Request = data
	return entry, err
}

func (d *delivery) child(kind string, b *tasks.Batch, due int64) (*store.Child, error) {
	first, _, _ := b.Requests[0].Identity(b.Job, &d.spec)
	payload, err := b.Payload()
	if err != nil {
		return nil, err
	}
	id := tasks.ChildBatchID(b.Job, kind, store.UnitName(string(d.batch.ID), d.generation), first)
	return &store.Child{ID: string(id), Requests: len(b.Requests), Due: due, Payload: payload}, nil
}

// poisoned deals with a batch whose deliveries begin and vanish: it is split into batches of one, and a batch of one
// ends as failed.
func (d *delivery) poisoned(ctx context.Context) error {
	ctx, cancel := d.keep(ctx)
	defer cancel()
	d.log.Warn().Str("batch", string(d.batch.ID)).Int("deliveries", d.state.Begun-1).Int("requests", len(d.batch.Requests)).
		Msg("batch was begun and never finished")
	unit, err := d.store.Begin(ctx, string(d.batch.Job), store.UnitName(string(d.batch.ID), d.generation))
	if err != nil {
		return d.storeTrouble(ctx, err)
	}
	account := d.newAccount()
	var records []*store.Record
	if len(d.batch.Requests) == 1 {
		records = []*store.Record{d.crashed()}
		if err := unit.Add(records[0]); err != nil {
			return d.storeTrouble(ctx, errors.Join(err, unit.Discard()))
		}
		entry, err := d.recorded(ctx, records[0], &d.batch.Requests[0])
		if err != nil {
			return errors.Join(err, unit.Discard())
		}
		account.Entries = append(account.Entries, entry)
	} else if err := d.split(account); err != nil {
		return errors.Join(err, unit.Discard())
	}
	return d.commit(ctx, unit, account, records)
}

// crashed is the record of a request whose worker died each time.
func (d *delivery) crashed() *store.Record {
	r := &d.batch.Requests[0]
	id, url, method := r.Identity(d.batch.Job, &d.spec)
	return &store.Record{
		ID: string(id), Job: string(d.batch.Job), Batch: string(d.batch.ID), Generation: d.generation, URL: url,
		FinalURL: r.URL, Method: method, Outcome: store.Failed, Attempts: d.past.attempts, FetchedAt: time.Now().UTC(),
		Error: &store.RecordError{Class: classCrashed, Message: fmt.Sprintf(
			"%s: its worker vanished in each of %d deliveries", classCrashed, d.state.Begun-1)},
		Worker: d.name, Meta: r.Meta,
	}
}

func (d *delivery) split(a *store.Account) error {
	for i := range d.batch.Requests {
		one := *d.batch
		one.Requests = d.batch.Requests[i : i+1]
		one.Split = true
		child, err := d.child("split", &one, 0)
		if err != nil {
			return err
		}
		id, _, _ := one.Requests[0].Identity(one.Job, &d.spec)
		a.Entries = append(a.Entries, store.Entry{ID: string(id), Fate: store.HandedBack})
		a.Children = append(a.Children, *child)
	}
	return nil
}

// commit makes the unit visible, or finds that another of its name was first, and finishes from the winner's account.
func (d *delivery) commit(ctx context.Context, unit store.Unit, account *store.Account, records []*store.Record) error {
	began := time.Now()
	faults.Point("before-commit")
	winner, won, err := unit.Commit(ctx, account)
	if err != nil {
		return d.storeTrouble(ctx, errors.Join(err, unit.Discard()))
	}
	d.metrics.Committed(time.Since(began))
	faults.Point("after-commit")
	if won {
		d.observe(records)
	}
	return d.finish(ctx, winner)
}

// observe tells of records that were committed by this delivery.
func (d *delivery) observe(records []*store.Record) {
	for _, r := range records {
		d.metrics.Finished(string(r.Outcome))
		d.metrics.Bytes(r.NewBytes())
		d.metrics.Exchanged(time.Duration(r.ElapsedMS * float64(time.Millisecond)))
		if r.Error != nil {
			d.metrics.Failed(r.Error.Class)
		}
		if d.onRecord != nil {
			d.onRecord(r)
		}
	}
}

// finish moves the ledger forward from a committed account, and says what becomes of the task. If that fails, the next
// delivery finds the account, however many are counted.
func (d *delivery) finish(ctx context.Context, a *store.Account) error {
	d.counted = false
	ctx, cancel := d.keep(ctx)
	defer cancel()
	f, text := d.finishing(a)
	began := time.Now()
	var first, ended bool
	err := d.insist(ctx, func(ctx context.Context) (err error) {
		first, ended, err = d.ledger.Finish(ctx, f)
		return err
	})
	if err != nil {
		return err
	}
	d.metrics.FinishedBatch(time.Since(began))
	faults.Point("after-finish")
	if first {
		d.follow(ctx, f)
		d.dropBodies(ctx, a)
		d.forgetLarge(ctx, a)
	}
	if ended {
		d.ended(ctx)
	}
	if text != "" {
		faults.Point("before-archive")
		return &archiveError{text: text}
	}
	return nil
}

// ended tidies up after the job's last batch: nobody needs what dead workers left in the store. A worker that slept over
// the end and wakes finds its batch closed, so it may lose its unit; those younger than a minute are left to it.
func (d *delivery) ended(ctx context.Context) {
	d.log.Info().Str("job", string(d.batch.Job)).Msg("job ended")
	if _, err := d.store.Sweep(ctx, string(d.batch.Job), time.Minute); err != nil {
		d.log.Warn().Str("job", string(d.batch.Job)).Err(err).Msg("store not swept")
	}
	if d.state.Large || d.large.Load() {
		if err := d.ledger.ForgetLarge(ctx, d.batch.Job); err != nil {
			d.log.Debug().Err(err).Msg("notes on large bodies left in Redis")
		}
	}
	d.forgetJars(ctx)
	d.compact()
}

// compact packs what the job has left in the store, beside the work. A worker that is told to stop leaves it for later:
// fleet export does it, too.
func (d *delivery) compact() {
	c, ok := d.store.(store.Compactor)
	if !ok {
		return
	}
	d.running.Go(func() {
		began := time.Now()
		err := c.Compact(d.stopping, string(d.batch.Job))
		switch {
		case err == nil:
			d.log.Info().Str("job", string(d.batch.Job)).Dur("took", time.Since(began)).Msg("store packed")
		case !errors.Is(err, store.ErrBusy) && d.stopping.Err() == nil:
			d.log.Warn().Str("job", string(d.batch.Job)).Err(err).Msg("store not packed")
		}
	})
}

// follow hands the children to asynq. If that fails they stay in the outbox, which every worker sweeps.
func (d *delivery) follow(ctx context.Context, f ledger.Finishing) {
	var children []ledger.Envelope
	for _, c := range f.Children {
		e := ledger.Envelope{Batch: c.ID, Payload: c.Payload}
		if c.Due > 0 {
			e.Due = time.UnixMilli(c.Due)
		}
		children = append(children, e)
	}
	if err := d.dispatcher.Send(ctx, d.batch.Job, d.spec.Queue, children); err != nil {
		d.log.Warn().Err(err).Msg("children wait in the outbox")
	}
	faults.Point("after-children")
}

// dropBodies removes the bodies of requests that ended well. Those of others are kept for replays.
func (d *delivery) dropBodies(ctx context.Context, a *store.Account) {
	for i := range d.batch.Requests {
		key := d.batch.Requests[i].BodyKey
		if key == "" {
			continue
		}
		for _, e := range a.Entries {
			if e.ID == key && e.Outcome == store.OK {
				if err := d.ledger.DropBody(ctx, d.batch.Job, key); err != nil {
					d.log.Warn().Err(err).Msg("request body left in Redis")
				}
			}
		}
	}
}

// finishing is what an account means for the ledger. text is what the task is archived with, "" when it just ends.
func (d *delivery) finishing(a *store.Account) (f ledger.Finishing, text string) {
	f = ledger.Finishing{Job: d.batch.Job, Batch: d.batch.ID}
	counts := map[string]int64{}
	for _, e := range a.Entries {
		if e.Fate != store.Recorded {
			continue
		}
		f.Recorded++
		counts[string(e.Outcome)]++
		counts["bytes"] += e.Bytes
		if e.Class != "" {
			counts["class:"+e.Class]++
		}
		if e.Unchanged {
			counts["unchanged"]++
		}
	}
	for name, n := range counts {
		f.Counters = append(f.Counters, ledger.Counter{Name: name, Add: n})
	}
	for _, c := range a.Children {
		f.Children = append(f.Children, ledger.Child{ID: tasks.BatchID(c.ID), Requests: c.Requests, Due: c.Due, Payload: c.Payload})
	}
	if len(a.Entries) == 1 {
		f.Request, f.Generation = tasks.RequestID(a.Entries[0].ID), a.Generation
	}
	if len(a.Entries) != 1 || f.Recorded != 1 || a.Entries[0].Outcome == store.OK {
		return f, ""
	}
	if e := a.Entries[0]; d.batch.Carried || e.Class == classCrashed {
		text = fmt.Sprintf("%s (attempts: %d)", e.Error, e.Attempts)
		if a.Generation > 0 {
			text += fmt.Sprintf(" (replay %d)", a.Generation)
		}
		f.Archive = &ledger.Note{Request: tasks.RequestID(e.ID), Generation: a.Generation, Outcome: string(e.Outcome),
			Class: e.Class, Bytes: e.Bytes, Error: text}
	}
	return f, text
}
