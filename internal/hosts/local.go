package hosts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"
)

// waiters is how many visits of one host may wait in their slots at once: one at work and some to follow on without a
// gap. More would let a busy host take the slots of all others.
const waiters = 4

// Local holds limits within one process, with x/time/rate and a semaphore per host.
type Local struct {
	waiting atomic.Int64

	mu    sync.Mutex
	hosts map[string]*localHost
}

// Waiting is how many requests wait for a permit or their turn now.
func (l *Local) Waiting() int { return int(l.waiting.Load()) }

// NewLocal returns a Local without any host.
func NewLocal() *Local { return &Local{hosts: map[string]*localHost{}} }

type localHost struct {
	limits  Limits
	limiter *rate.Limiter
	conns   chan struct{} // nil = no limit
	visits  int
	idle    time.Time // since when nobody visits it
}

// Enter begins a visit with the host's limits as its job sees them. When the host has several jobs the strictest of
// those seen while it was visited hold. Enter returns a *BusyError when enough visits wait for the host already.
func (l *Local) Enter(_ context.Context, host string, limits Limits) (Visit, error) {
	if limits.Unlimited() {
		return unlimited{}, nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hosts[host]
	if h == nil || h.visits == 0 && h.limits != limits {
		l.evict()
		h = newLocalHost(limits)
		l.hosts[host] = h
	}
	if h.visits >= waiters {
		return nil, &BusyError{Host: host, After: time.Second + rand.N(4*time.Second)}
	}
	h.tighten(limits)
	h.visits++
	return &localVisit{local: l, host: h}, nil
}

// evict forgets hosts that were left a while ago: long enough for any bucket worth keeping to be full again.
func (l *Local) evict() {
	const keep = 10_000
	if len(l.hosts) < keep {
		return
	}
	for name, h := range l.hosts {
		if h.visits == 0 && time.Since(h.idle) > time.Minute {
			delete(l.hosts, name)
		}
	}
}

func newLocalHost(limits Limits) *localHost {
	h := &localHost{limits: limits, limiter: rate.NewLimiter(rate.Inf, max(limits.Burst, 1))}
	if limits.Rate > 0 {
		h.limiter.SetLimit(rate.Limit(limits.Rate))
	}
	if limits.Conns > 0 {
		h.conns = make(chan struct{}, limits.Conns)
	}
	return h
}

// tighten lowers the rate to that of another job. Connections of a host in use stay as they are.
func (h *localHost) tighten(limits Limits) {
	if limits.Rate > 0 && (h.limits.Rate == 0 || limits.Rate < h.limits.Rate) {
		h.limits.Rate = limits.Rate
		h.limiter.SetLimit(rate.Limit(limits.Rate))
	}
}

type localVisit struct {
	local *Local
	host  *localHost
}

func (v *localVisit) Permit(ctx context.Context) (func(), error) {
	v.local.waiting.Add(1)
	defer v.local.waiting.Add(-1)
	release := func() {}
	if v.host.conns != nil {
		select {
		case v.host.conns <- struct{}{}:
			release = sync.OnceFunc(func() { <-v.host.conns })
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for a permit: %w", context.Cause(ctx))
		}
	}
	if err := v.host.limiter.Wait(ctx); err != nil {
		release()
		return nil, fmt.Errorf("wait for a turn: %w", err)
	}
	return release, nil
}

func (v *localVisit) Turn(ctx context.Context) error {
	v.local.waiting.Add(1)
	defer v.local.waiting.Add(-1)
	if err := v.host.limiter.Wait(ctx); err != nil {
		return fmt.Errorf("wait for a turn: %w", err)
	}
	return nil
}

func (v *localVisit) Leave() {
	v.local.mu.Lock()
	defer v.local.mu.Unlock()
	v.host.visits--
	v.host.idle = time.Now()
}

// unlimited is a visit of a host without limits.
type unlimited struct{}

func (unlimited) Permit(context.Context) (func(), error) { return func() {}, nil }
func (unlimited) Turn(context.Context) error             { return nil }
func (unlimited) Leave()                                 {}
