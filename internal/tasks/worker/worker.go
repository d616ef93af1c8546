// Package worker is one member of the fleet: it takes batches from asynq, fetches them and commits what came of them.
//
// It promises that what it takes is finished, handed back, or taken over by another worker, however it ends; that it
// takes nothing while it could not do it justice (its store refuses, its clock is off); and that it repairs what
// others left: batches of the dead, and outboxes not delivered.
package worker

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts/rules"
	"github.com/fetchfleet/fetchfleet/internal/metrics"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// Options say what a worker works with. Redis, Store, Fetcher and Gate are needed; the rest may be zero.
type Options struct {
	Redis   redis.UniversalClient
	Store   store.Store
	Fetcher *fetch.Fetcher
	Gate    Gate
	// Rules are the fleet's own for a host; nil = there are none.
	Rules func(host string) rules.Rule
	// RetryAfterCap bounds what a server may ask for; 0 = one hour.
	RetryAfterCap time.Duration
	// Name stands in records and logs; "" = host name and process id.
	Name string
	// Visits is how many batches are worked at once; 0 = 512. A visit that waits costs a goroutine.
	Visits int
	// Concurrency bounds requests in flight over all visits; 0 = 128.
	Concurrency int
	// Queues maps each queue to its weight; nil = critical 6, default 3, low 1.
	Queues map[string]int
	// DrainTimeout is how long requests in flight may go on once the worker is told to stop; 0 = 30 s.
	DrainTimeout time.Duration
	// Parts has the worker look in the store for the beginning of every request's body. Else it does so only where Redis
	// says that there may be one, which it forgets with its data.
	Parts bool
	// Secrets resolves the references of jobs; nil = what secrets.Options allow without being told.
	Secrets *secrets.Source
	Logger  zerolog.Logger
	Metrics *metrics.Metrics // nil = counted nowhere
	// OnRecord is called for each record committed by this worker, from many goroutines; nil = nobody asks.
	OnRecord func(*store.Record)
}

// DefaultQueues are the weights of the queues.
var DefaultQueues = map[string]int{"critical": 6, "default": 3, "low": 1}

func (o *Options) defaults() {
	if o.Name == "" {
		host, _ := os.Hostname()
		o.Name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	if o.Visits <= 0 {
		o.Visits = 512
	}
	if o.Concurrency <= 0 {
		o.Concurrency = 128
	}
	if len(o.Queues) == 0 {
		o.Queues = DefaultQueues
	}
	if o.RetryAfterCap <= 0 {
		o.RetryAfterCap = maxRetryAfter
	}
	if o.DrainTimeout <= 0 {
		o.DrainTimeout = 30 * time.Second
	}
}

// Worker is one member of the fleet. Make it with New, run it once.
type Worker struct {
	opts    Options
	log     zerolog.Logger
	handler *handler
	health  health

	stop, halt, quit context.CancelFunc // nothing new; nothing in flight; nothing at all
	servers          sync.WaitGroup     // asynq servers being shut down
}

// nonceLength is how many characters, of 5 bits each, tell this worker from all others.
const nonceLength = 13

// New makes a worker. It asks the store for its identity.
func New(ctx context.Context, o Options) (*Worker, error) {
	o.defaults()
	identity, err := o.Store.Identity(ctx)
	if err != nil {
		return nil, fmt.Errorf("identify store %s: %w", o.Store, err)
	}
	if o.Secrets == nil {
		if o.Secrets, err = secrets.New(secrets.Options{}); err != nil {
			return nil, fmt.Errorf("secrets: %w", err)
		}
	}
	l := ledger.New(o.Redis)
	w := &Worker{opts: o, log: o.Logger}
	h := &handler{
		name: o.Name, nonce: rand.Text()[:nonceLength], identity: identity, ledger: l, dispatcher: dispatch.New(o.Redis, l),
		inspector: asynq.NewInspectorFromRedisClient(o.Redis), store: o.Store, fetcher: o.Fetcher, gate: o.Gate,
		rules: o.Rules, retryAfterCap: o.RetryAfterCap, secrets: o.Secrets, credentials: newCredentials(o.Fetcher, o.Secrets),
		specs: newSpecs(l, o.Logger), inFlight: newSlots(o.Concurrency),
		log: o.Logger, metrics: o.Metrics, trouble: w.health.storeFailed, onRecord: o.OnRecord, linkDown: w.health.linkDown,
	}
	h.parts, _ = o.Store.(store.Resumer)
	h.allParts = o.Parts
	h.stopping, w.stop = context.WithCancel(context.Background())
	h.halted, w.halt = context.WithCancel(context.Background())
	h.quit, w.quit = context.WithCancel(context.Background())
	w.handler = h
	w.health.reachable(time.Now())
	return w, nil
}

// Ready reports whether the worker takes batches, and if not, why.
func (w *Worker) Ready() (bool, string) {
	reason := w.health.reason()
	return reason == "", reason
}

// InFlight is how many requests are under way now.
func (w *Worker) InFlight() int { return w.handler.inFlight.inUse() }

// Run works until ctx is done, and then drains: it takes no more, lets requests in flight finish for DrainTimeout,
// hands the rest back and returns nil.
func (w *Worker) Run(ctx context.Context) error {
	background, cancel := context.WithCancel(context.Background())
	var loops sync.WaitGroup
	w.probeRedis(ctx) // before the first batch is taken
	for _, loop := range []func(context.Context){w.watchRedis, w.watchStore, w.sweepOutbox, w.sweepDead, w.sweepStore, w.tellDownloads, w.opts.Gate.Run} {
		loops.Go(func() { loop(background) })
	}
	err := w.serve(ctx)
	cancel()
	loops.Wait()
	w.servers.Wait()
	return err
}

// serve keeps an asynq server running while the worker is fit to take batches.
func (w *Worker) serve(ctx context.Context) error {
	var server *asynq.Server
	var last string
	tick := time.NewTicker(intakeInterval)
	defer tick.Stop()
	for {
		reason := w.health.unfit()
		switch {
		case reason == "" && server == nil:
			next := w.newServer()
			if err := next.Start(w.handler); err != nil {
				return w.drain(nil, fmt.Errorf("start asynq server: %w", err))
			}
			server = next
			w.log.Info().Int("visits", w.opts.Visits).Int("concurrency", w.opts.Concurrency).Msg("worker takes batches")
		case reason != "" && server != nil:
			w.log.Error().Str("reason", reason).Msg("worker takes no more batches")
			w.retire(server)
			server = nil
		case reason != "" && reason != last:
			w.log.Error().Str("reason", reason).Msg("worker takes no batches")
		}
		last = reason
		w.health.serving.Store(server != nil)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return w.drain(server, nil)
		}
	}
}

// intakeInterval is how often the worker looks whether it is fit to take batches.
const intakeInterval = 200 * time.Millisecond

// newServer builds an asynq server: Stop is final, so each time intake resumes there is a new one.
func (w *Worker) newServer() *asynq.Server {
	return asynq.NewServerFromRedisClient(w.opts.Redis, asynq.Config{
		Concurrency:              w.opts.Visits,
		Queues:                   w.opts.Queues,
		TaskCheckInterval:        50 * time.Millisecond, // idle sleep is half to one and a half of it
		DelayedTaskCheckInterval: time.Second,
		RetryDelayFunc:           retryDelay,
		IsFailure:                isFailure,
		Logger:                   asynqLog{w.log},
		LogLevel:                 asynq.WarnLevel,
		// On its own shutdown timeout asynq pushes tasks back while their handlers still run. Ours end by the
		// drain timeout, so asynq's never comes.
		ShutdownTimeout: 10 * 365 * 24 * time.Hour,
	})
}

// retire stops a server's intake and shuts it down once its visits have ended; their leases are renewed until then.
func (w *Worker) retire(server *asynq.Server) {
	w.servers.Go(func() {
		server.Stop()
		server.Shutdown()
	})
}

// drain is the order of stopping: intake, then requests not begun, then requests in flight, then asynq, whose
// heartbeat must outlive them all, and last whoever still waits for Redis with a unit in hand.
func (w *Worker) drain(server *asynq.Server, err error) error {
	w.health.draining.Store(true)
	w.log.Info().Dur("timeout", w.opts.DrainTimeout).Msg("worker stops: requests in flight finish")
	if server != nil {
		server.Stop()
	}
	w.stop()
	done := make(chan struct{})
	go func() {
		if server != nil {
			server.Shutdown() // returns once every visit asynq waits for has ended
		}
		w.servers.Wait()
		w.handler.running.Wait() // and these are the visits that asynq has given up on
		close(done)
	}()
	w.await(done)
	w.halt()
	w.quit()
	return err
}

// await gives requests in flight the drain timeout, and then Redis a little longer.
func (w *Worker) await(done <-chan struct{}) {
	select {
	case <-done:
		return
	case <-time.After(w.opts.DrainTimeout):
	}
	w.log.Warn().Msg("drain timeout: requests in flight are handed back")
	w.halt()
	select {
	case <-done:
		return
	case <-time.After(giveUpTimeout):
	}
	w.log.Warn().Msg("gave up waiting for Redis: the next delivery finishes what is committed")
	w.quit()
	<-done
}

// giveUpTimeout is how long a worker that was told to stop waits for Redis to take note of units already committed.
const giveUpTimeout = 5 * time.Second

// asynqLog passes asynq's own log lines on.
type asynqLog struct{ log zerolog.Logger }

// Debug logs at debug.
func (l asynqLog) Debug(args ...any) { l.log.Debug().Str("from", "asynq").Msg(fmt.Sprint(args...)) }

// Info logs at debug: what asynq tells of its own course is no news.
func (l asynqLog) Info(args ...any) { l.log.Debug().Str("from", "asynq").Msg(fmt.Sprint(args...)) }

// Warn logs at debug, too: what matters of it the worker says itself.
func (l asynqLog) Warn(args ...any) { l.log.Debug().Str("from", "asynq").Msg(fmt.Sprint(args...)) }

// Error logs at warn: asynq goes on by itself.
func (l asynqLog) Error(args ...any) { l.log.Warn().Str("from", "asynq").Msg(fmt.Sprint(args...)) }

// Fatal logs at error, and does not end the process.
func (l asynqLog) Fatal(args ...any) { l.log.Error().Str("from", "asynq").Msg(fmt.Sprint(args...)) }

// health is what the loops have found out.
type health struct {
	contact  atomic.Int64 // local Unix nanoseconds of Redis's last answer
	compared atomic.Bool  // skew is known
	skew     atomic.Int64 // local clock minus that of Redis, nanoseconds
	store    atomic.Pointer[string]
	draining atomic.Bool
	serving  atomic.Bool
	since    atomic.Int64 // local Unix nanoseconds since when Redis has answered without a gap
}

const (
	// linkTimeout is how long Redis may be silent before a visit starts nothing more.
	linkTimeout = 10 * time.Second
	// maxSkew is how far the clock may be off that of Redis: asynq judges leases and schedules by it.
	maxSkew = 2 * time.Second
)

var errSilent = errors.New("no answer")

func (h *health) reachable(now time.Time) {
	last := h.contact.Swap(now.UnixNano())
	if h.since.Load() == 0 || now.UnixNano()-last > int64(3*redisInterval+time.Second) {
		h.since.Store(now.UnixNano())
	}
}

// steady is how long Redis has answered without a gap. A silent Redis is not steady, whatever was before.
func (h *health) steady() time.Duration {
	now := time.Now()
	if now.Sub(time.Unix(0, h.contact.Load())) > 3*redisInterval+time.Second {
		return 0
	}
	return now.Sub(time.Unix(0, h.since.Load()))
}

func (h *health) linkDown() bool { return time.Since(time.Unix(0, h.contact.Load())) > linkTimeout }

func (h *health) storeFailed(err error) {
	text := err.Error()
	h.store.Store(&text)
}

// unfit says why no batches are taken, "" when they are. A silent Redis is no reason: asynq waits for it by itself.
func (h *health) unfit() string {
	if text := h.store.Load(); text != nil {
		return "store: " + *text
	}
	if !h.compared.Load() {
		return "clock: not compared with that of Redis yet"
	}
	if skew := time.Duration(h.skew.Load()); skew.Abs() > maxSkew {
		return fmt.Sprintf("clock: this machine's is %s off that of Redis (limit %s): synchronise it", skew.Round(100*time.Millisecond), maxSkew)
	}
	return ""
}

// reason says why the worker is not ready, "" when it is.
func (h *health) reason() string {
	if text := h.unfit(); text != "" {
		return text
	}
	switch {
	case h.draining.Load():
		return "stopping"
	case time.Since(time.Unix(0, h.contact.Load())) > 3*redisInterval:
		return fmt.Sprintf("redis: %v for %s", errSilent, time.Since(time.Unix(0, h.contact.Load())).Round(time.Second))
	case !h.serving.Load():
		return "starting"
	}
	return ""
}
