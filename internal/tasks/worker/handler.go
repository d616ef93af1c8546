package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/hosts/rules"
	"github.com/fetchfleet/fetchfleet/internal/metrics"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/faults"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// handler works batches. It is the one place where queue, fetch, hosts and store meet.
type handler struct {
	name          string // of this worker, in records
	nonce         string // of this worker, in tokens: two may have one name
	identity      string // of the store
	ledger        *ledger.Ledger
	dispatcher    *dispatch.Dispatcher
	inspector     *asynq.Inspector
	store         store.Store
	parts         store.Resumer // the same, nil where it keeps no parts of bodies
	allParts      bool          // any request may have one
	downloads     downloads
	fetcher       *fetch.Fetcher
	gate          Gate
	rules         func(host string) rules.Rule // nil: there are none
	pages         pages
	retryAfterCap time.Duration
	specs         *specs
	inFlight      *slots   // requests in flight, over all visits
	suspects      suspects // batches under way whose next crash decides on them
	secrets       *secrets.Source
	credentials   *credentials
	log           zerolog.Logger
	metrics       *metrics.Metrics
	trouble       func(error)         // told of a store in trouble
	onRecord      func(*store.Record) // told of every record that was committed here; may be nil
	linkDown      func() bool         // Redis has not answered for a while

	// These three are the worker's, not a call's: each ends once, in this order, as the worker stops.
	// stopping ends when nothing new is to be started.
	stopping context.Context
	// halted ends what is in flight when the drain time is over; nothing else is cancelled by it.
	halted context.Context
	// quit ends everything, also waiting for Redis with a committed unit in hand: the next delivery finishes it.
	quit context.Context

	deliveries atomic.Uint64
	running    sync.WaitGroup // asynq does not wait for handlers it has given up on; we do
}

// ProcessTask works one delivery of one batch.
func (h *handler) ProcessTask(ctx context.Context, task *asynq.Task) error {
	h.running.Add(1)
	defer h.running.Done()
	id, _ := asynq.GetTaskID(ctx)
	retried, _ := asynq.GetRetryCount(ctx)
	queue, _ := asynq.GetQueueName(ctx)
	batch, err := tasks.ParseBatch(tasks.BatchID(id), task.Payload())
	var newer *tasks.NewerBatchError
	if errors.As(err, &newer) { // a newer worker of a mixed fleet takes it
		h.log.Error().Err(err).Msg("payload refused")
		return h.putOff(ctx, queue, id, deferBatch(30*time.Second, "%v", err))
	}
	if err != nil {
		h.log.Error().Err(err).Msg("payload refused")
		return &archiveError{text: err.Error()}
	}
	d := &delivery{handler: h, number: h.deliveries.Add(1), batch: batch, queue: queue, retried: retried}
	d.token = fmt.Sprintf("%s-%d", h.nonce, d.number)
	err = d.work(ctx)
	h.note(d, err)
	return err
}

// note counts a delivery, and logs one that did not simply end.
func (h *handler) note(d *delivery, err error) {
	var retry *retryError
	var later *deferError
	var archive *archiveError
	log := h.log.Debug()
	result := "done"
	switch {
	case err == nil:
	case errors.As(err, &later):
		result = "deferred"
		log = log.Dur("after", later.after)
	case errors.As(err, &retry):
		result = "retry"
		log = log.Dur("after", retry.after)
	case errors.As(err, &archive):
		result = "archived"
	default:
		result = "interrupted"
		log = h.log.Warn()
	}
	h.metrics.Batch(result)
	log.Str("batch", string(d.batch.ID)).Str("job", string(d.batch.Job)).Str("result", result).Err(err).Msg("delivery ended")
}

// delivery is one delivery of one batch.
type delivery struct {
	*handler
	number  uint64 // of this worker's deliveries, from 1; 0 = it goes before all others
	token   string // unlike that of any other delivery by any worker
	batch   *tasks.Batch
	queue   string
	retried int

	spec       tasks.Spec
	rule       tasks.RetryRule
	site       string // what its host's limits are kept for
	manners    manners
	visited    hosts.Visit // the last that it was let in for, nil before
	start      ledger.Start
	state      ledger.Delivery
	counted    bool      // the ledger counts it, or may do so, among those begun and neither finished nor given back
	began      time.Time // local, at the moment of state.Now
	past       past
	large      atomic.Bool // a large body was on its way
	generation int
	single     tasks.RequestID // of the batch's one request, "" for batches of more
}

// work takes a delivery through its order: the ledger (closed: drain its outbox and return), the store (unit there:
// finish from its account), and only then the fetch. Whatever goes wrong in this process on the way gives the batch
// back: only a delivery that vanishes may count as one.
func (d *delivery) work(ctx context.Context) error {
	err := d.prepare(ctx)
	switch {
	case err != nil:
	case d.batch.Split:
		err = d.splitOff(ctx)
	default:
		err = d.begin(ctx)
	}
	if d.counted && !decided(err) {
		err = d.giveBack(ctx, err)
	}
	if d.undone(err) {
		return d.putOff(ctx, d.queue, string(d.batch.ID), err)
	}
	return err
}

// undone reports whether a delivery failed before it could do what it came for where someone pressed Run: what the
// ledger says of its batch is unknown, or still that it is archived.
func (d *delivery) undone(err error) bool {
	var archive *archiveError
	if err == nil || errors.As(err, &archive) {
		return false
	}
	return d.state.State == "" || d.state.State == ledger.BatchArchived
}

// proceed goes on from what the ledger says of the batch.
func (d *delivery) proceed(ctx context.Context) error {
	switch d.state.State {
	case ledger.BatchUnknown:
		return &archiveError{text: fmt.Sprintf("job %s is not known to this Redis", d.batch.Job)}
	case ledger.BatchClosed:
		_, err := d.dispatcher.Drain(ctx, d.batch.Job, 0)
		return err
	case ledger.BatchArchived:
		return d.archived(ctx)
	}
	return d.open(ctx)
}

// prepare finds out what the batch's job wants, and where its host is.
func (d *delivery) prepare(ctx context.Context) error {
	job := d.batch.Job
	entry, err := d.specs.get(ctx, job)
	var newer *tasks.NewerSpecError
	switch {
	case errors.As(err, &newer):
		d.log.Error().Str("job", string(job)).Err(err).Msg("job refused")
		return deferBatch(30*time.Second, "%v", err)
	case errors.Is(err, ledger.ErrUnknownJob):
		return &archiveError{text: err.Error()}
	case err != nil:
		return err
	}
	d.spec, d.rule = entry.spec, entry.rule
	if len(d.batch.Requests) == 1 {
		d.single, _, _ = d.batch.Requests[0].Identity(job, &d.spec)
	}
	d.site, err = d.gate.Site(ctx, d.batch.Host)
	return err
}

// count tells the ledger that this delivery begins. how says what is special about it.
func (d *delivery) count(ctx context.Context, how ledger.Start) (err error) {
	faults.Point("before-begin")
	defer faults.Point("after-begin")
	d.start = ledger.Start{
		Job: d.batch.Job, Batch: d.batch.ID, Request: d.single, Token: d.token, Suspect: how.Suspect, Company: how.Company,
		Host: hosts.StateKey(d.site)}
	d.state, err = d.ledger.Begin(ctx, d.start)
	d.began = time.Now()
	d.counted = err != nil || d.state.State == ledger.BatchOpen // a call without an answer may have been heard
	return err
}

// archived deals with the delivery of a batch whose last attempt failed. Either its worker died before asynq archived
// the task: then it is archived now. Or someone pressed Run: then the task carries the error it was archived with. Or
// this worker slept from before the delivery until another one had ended it: then the task is not active, and is left
// as it is. The last two cases defer rather than end the task where they find that another was quicker: the task may
// be active elsewhere.
func (d *delivery) archived(ctx context.Context) error {
	noted := d.state.Archived
	info, err := d.task(ctx, d.queue, string(d.batch.ID))
	if err != nil {
		return err
	}
	if info == nil || info.State != asynq.TaskStateActive {
		return deferBatch(time.Second, "dropped: another worker has ended it")
	}
	if !standsWith(info.LastErr, noted.Error) {
		return &archiveError{text: noted.Error}
	}
	reopened, err := d.ledger.Reopen(ctx, d.batch.Job, d.batch.ID, d.state, d.retried)
	if err != nil {
		return err
	}
	if !reopened {
		return deferBatch(time.Second, "dropped: another worker has reopened it")
	}
	faults.Point("after-reopen")
	if err := d.count(ctx, ledger.Start{}); err != nil {
		return err
	}
	if d.state.State != ledger.BatchOpen {
		return nil
	}
	return d.open(ctx)
}

// open works a batch that is open in the ledger.
func (d *delivery) open(ctx context.Context) error {
	d.generation = d.state.Generation
	d.past = d.history()
	if err := d.bindStore(ctx); err != nil {
		return err
	}
	unit := store.UnitName(string(d.batch.ID), d.generation)
	account, err := d.store.Account(ctx, string(d.batch.Job), unit)
	if err == nil {
		return d.finish(ctx, account)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return d.storeTrouble(ctx, err)
	}
	if d.condemned() {
		return d.poisoned(ctx)
	}
	return d.visit(ctx)
}

// history is what the batch's request has been through. A batch that was replayed by Run starts afresh.
func (d *delivery) history() past {
	if !d.batch.Carried {
		return past{attempts: d.batch.Attempts, waits: d.batch.Waits, waitSince: d.batch.WaitSince}
	}
	var p past
	if d.generation == d.batch.Generation {
		p = past{attempts: d.batch.Attempts, waits: d.batch.Waits, waitSince: d.batch.WaitSince}
	}
	p.attempts += d.retried - d.state.Base
	if d.state.Waits >= 0 {
		p.waits, p.waitSince = d.state.Waits, d.state.WaitSince
	}
	return p
}

// bindStore makes sure that this worker's store is the job's.
func (d *delivery) bindStore(ctx context.Context) error {
	if d.state.Store == d.identity {
		return nil
	}
	err := d.ledger.BindStore(ctx, d.batch.Job, d.identity, d.store.String())
	var other *ledger.OtherStoreError
	if errors.As(err, &other) {
		d.log.Error().Str("job", string(d.batch.Job)).Err(err).Msg("job refused")
		return d.giveBack(ctx, deferBatch(30*time.Second, "%v", err))
	}
	return err
}

// giveBack returns the batch as it is, for another delivery.
func (d *delivery) giveBack(ctx context.Context, why error) error {
	d.counted = false
	ctx, cancel := d.keep(ctx)
	defer cancel()
	err := d.insist(ctx, func(ctx context.Context) error { return d.ledger.Return(ctx, d.start) })
	if err != nil {
		d.log.Warn().Err(err).Msg("batch could not be given back; it counts as begun")
	}
	faults.Point("after-return")
	return why
}

// insistPatience is how long a step of the ledger waits for Redis in the hands of who has to take it. After that the
// next delivery finds out what is to be done.
const insistPatience = 2 * time.Minute

// insist takes a step of the ledger, again and again while Redis is away. ctx should come from keep.
func (h *handler) insist(ctx context.Context, step func(context.Context) error) error {
	began := time.Now()
	for wait := 200 * time.Millisecond; ; wait = min(2*wait, 5*time.Second) {
		err := step(ctx)
		if err == nil || ctx.Err() != nil || time.Since(began) > insistPatience {
			return err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// storeTrouble gives the batch back and tells the worker that its store is in trouble.
func (d *delivery) storeTrouble(ctx context.Context, err error) error {
	if !errors.Is(err, store.ErrRecord) { // a name that is refused says nothing of the store
		d.trouble(err)
	}
	return d.giveBack(ctx, deferBatch(5*time.Second, "store: %v", err))
}

// now is the time of Redis, carried on by the local clock since the batch began.
func (d *delivery) now() time.Time { return d.state.Now.Add(time.Since(d.began)) }

// context that outlives the lease of the task: what is fetched is committed all the same.
func (d *delivery) keep(ctx context.Context) (context.Context, context.CancelFunc) {
	kept, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(d.quit, cancel)
	return kept, func() { stop(); cancel() }
}
