package worker

import (
	"context"
	"errors"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

const (
	redisInterval  = time.Second
	storeInterval  = time.Second
	outboxInterval = 5 * time.Second
	outboxAge      = 10 * time.Second // younger entries are still in the hands of whoever made them
	deadInterval   = time.Second
	// reconnectHold is how long a worker leaves others alone after Redis was away or it has just started: they need
	// that long to renew leases that look dead.
	reconnectHold = 10 * time.Second
	deadLimit     = 1000 // tasks put back by one sweep
	// What is older than a week in the store's temporaries belongs to nobody: a task lives no longer (dispatch).
	storeSweepInterval = time.Hour
	storeSweepAge      = 7 * 24 * time.Hour
)

// every calls do at once and then each interval until ctx is done.
func every(ctx context.Context, interval time.Duration, do func(context.Context)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		do(ctx)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// watchRedis keeps track of contact with Redis and of the clock.
func (w *Worker) watchRedis(ctx context.Context) {
	every(ctx, redisInterval, w.probeRedis)
}

// probeRedis asks Redis for its time.
func (w *Worker) probeRedis(ctx context.Context) {
	probe, cancel := context.WithTimeout(ctx, 2*redisInterval)
	defer cancel()
	offset, err := redisconn.Clock(probe, w.opts.Redis)
	w.opts.Metrics.RedisUp(err == nil)
	if err != nil {
		return
	}
	w.health.reachable(time.Now())
	w.health.skew.Store(int64(offset))
	w.health.compared.Store(true)
}

// watchStore looks after a store that refused something until it takes units again.
func (w *Worker) watchStore(ctx context.Context) {
	every(ctx, storeInterval, func(ctx context.Context) {
		if w.health.store.Load() == nil {
			w.opts.Metrics.StoreUp(true)
			return
		}
		w.opts.Metrics.StoreUp(false)
		if err := w.opts.Store.Check(ctx); err != nil {
			w.health.storeFailed(err)
			return
		}
		w.health.store.Store(nil)
		w.log.Info().Msg("store takes units again")
	})
}

// sweepOutbox hands over batches whose producer or worker died before it could.
func (w *Worker) sweepOutbox(ctx context.Context) {
	every(ctx, outboxInterval, func(ctx context.Context) {
		jobs, err := w.handler.ledger.LiveJobs(ctx)
		if err != nil {
			return // Redis is away; watchRedis says so
		}
		for _, job := range jobs {
			n, err := w.handler.dispatcher.Drain(ctx, job, outboxAge)
			if n > 0 {
				w.opts.Metrics.OutboxSwept(n)
				w.log.Warn().Str("job", string(job)).Int("batches", n).Msg("outbox swept")
			}
			if err != nil && !errors.Is(err, ledger.ErrUnknownJob) && ctx.Err() == nil {
				w.log.Debug().Str("job", string(job)).Err(err).Msg("outbox not swept")
			}
		}
	})
}

// sweepDead puts batches of dead workers back to work.
func (w *Worker) sweepDead(ctx context.Context) {
	every(ctx, deadInterval, func(ctx context.Context) {
		if w.health.steady() < reconnectHold {
			return
		}
		for queue := range w.opts.Queues {
			now, err := w.opts.Redis.Time(ctx).Result()
			if err != nil || w.health.steady() < reconnectHold { // the answer may have taken an outage to come
				return
			}
			ids, err := asynqkeys.Recover(ctx, w.opts.Redis, queue, now, asynqkeys.DeadLease, deadLimit)
			if err != nil {
				return
			}
			if len(ids) > 0 {
				w.opts.Metrics.DeadBatchesRecovered(len(ids))
				w.log.Warn().Str("queue", queue).Int("batches", len(ids)).Msg("batches of a dead worker put back")
				if err := w.opts.Gate.Vacate(ctx, ids); err != nil { // else the next look at their hosts does it
					w.log.Debug().Err(err).Msg("permits of a dead worker not freed")
				}
			}
		}
	})
}

// sweepStore removes what workers that died long ago left in the store. The rest goes when a job ends.
func (w *Worker) sweepStore(ctx context.Context) {
	every(ctx, storeSweepInterval, func(ctx context.Context) {
		jobs, err := w.handler.ledger.LiveJobs(ctx)
		if err != nil {
			return
		}
		for _, job := range jobs {
			if _, err := w.opts.Store.Sweep(ctx, string(job), storeSweepAge); err != nil && ctx.Err() == nil {
				w.log.Debug().Str("job", string(job)).Err(err).Msg("store not swept")
			}
		}
	})
}
