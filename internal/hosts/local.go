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
// gap. More would let a busy host take the slots of all others. Where more connections are allowed than that, so are
// more visits, as each may be of one request.
const waiters = 4

// Local holds limits within one process, with x/time/rate and a semaphore per host.
type Local struct {
	waiting atomic.Int64

	mu      sync.Mutex
	hosts   map[string]*localHost
	evictAt int // known hosts at which those at rest are forgotten
}

// keep is how many hosts are known before any is forgotten.
const keep = 10_000

// NewLocal returns a Local without any host.
func NewLocal() *Local { return &Local{hosts: map[string]*localHost{}, evictAt: keep} }

// Waiting is how many requests wait for a permit or their turn now.
func (l *Local) Waiting() int { return int(l.waiting.Load()) }

// localHost is one host. Its bucket of turns outlives visits and changes of its limits.
type localHost struct {
	limiter *rate.Limiter // in force while rate is not 0
	places  places
	rate    atomic.Bool // whether the rate is limited

	// The rest is guarded by Local.mu.
	limits Limits // in force
	visits int
}

// Enter begins a visit with the host's limits as its job sees them. When the host has several jobs the strictest of
// those seen while it was visited hold, for all of them. Enter returns a *BusyError when enough visits wait for the
// host already.
func (l *Local) Enter(_ context.Context, host string, limits Limits) (Visit, error) {
	limits.Burst = max(limits.Burst, 1)
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.hosts[host]
	if h == nil {
		l.evict()
		h = &localHost{limiter: rate.NewLimiter(rate.Limit(1), limits.Burst)}
		l.hosts[host] = h
	}
	if h.visits > 0 {
		limits = h.limits.strictest(limits)
	}
	h.set(limits)
	if !limits.Unlimited() && h.visits >= max(waiters, limits.Conns) {
		return nil, &BusyError{Host: host, After: time.Second + rand.N(4*time.Second)}
	}
	h.visits++
	return &localVisit{local: l, host: h}, nil
}

// strictest joins the limits of two jobs.
func (l Limits) strictest(other Limits) Limits {
	return Limits{Rate: stricter(l.Rate, other.Rate), Conns: stricter(l.Conns, other.Conns), Burst: min(l.Burst, other.Burst)}
}

// stricter is the lower of two limits, of which 0 is none.
func stricter[T int | float64](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// set puts limits in force, also for visits under way.
func (h *localHost) set(limits Limits) {
	if limits.Rate > 0 && rate.Limit(limits.Rate) != h.limiter.Limit() {
		h.limiter.SetLimit(rate.Limit(limits.Rate))
	}
	if limits.Burst != h.limiter.Burst() {
		h.limiter.SetBurst(limits.Burst)
	}
	h.rate.Store(limits.Rate > 0)
	if limits.Conns != h.limits.Conns {
		h.places.resize(limits.Conns)
	}
	h.limits = limits
}

// evict forgets hosts at rest, once their number has doubled since the last time.
func (l *Local) evict() {
	if len(l.hosts) < l.evictAt {
		return
	}
	for name, h := range l.hosts {
		if h.rested() {
			delete(l.hosts, name)
		}
	}
	l.evictAt = max(keep, 2*len(l.hosts))
}

// rested reports whether a host could as well be new: nobody visits it, and its bucket is full.
func (h *localHost) rested() bool {
	return h.visits == 0 && (h.limits.Rate == 0 || h.limiter.Tokens() >= float64(h.limits.Burst))
}

type localVisit struct {
	local *Local
	host  *localHost
}

// Permit is as in Visit; release may be called twice.
func (v *localVisit) Permit(ctx context.Context) (func(), error) {
	v.local.waiting.Add(1)
	defer v.local.waiting.Add(-1)
	if err := v.host.places.take(ctx); err != nil {
		return nil, fmt.Errorf("wait for a permit: %w", err)
	}
	if err := v.host.turn(ctx); err != nil {
		v.host.places.free()
		return nil, err
	}
	return sync.OnceFunc(v.host.places.free), nil
}

// Turn is as in Visit.
func (v *localVisit) Turn(ctx context.Context) error {
	v.local.waiting.Add(1)
	defer v.local.waiting.Add(-1)
	return v.host.turn(ctx)
}

func (h *localHost) turn(ctx context.Context) error {
	if !h.rate.Load() {
		return nil
	}
	if err := h.limiter.Wait(ctx); err != nil {
		return fmt.Errorf("wait for a turn: %w", err)
	}
	return nil
}

// Leave is as in Visit. It is called once.
func (v *localVisit) Leave() {
	v.local.mu.Lock()
	defer v.local.mu.Unlock()
	v.host.visits--
}
