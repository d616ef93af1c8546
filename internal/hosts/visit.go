package hosts

import (
	"context"
	"fmt"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// lateness is how late a request may go at any rate.
const lateness = 20 * time.Millisecond

// settle is how long a visit gathers permits that it needs no more before it gives them back.
const settle = 500 * time.Millisecond

// topUp is how often a visit that has fewer permits than it could use asks for more.
const topUp = 50 * time.Millisecond

// craveAgain is how long it then waits before it asks once more.
const craveAgain = time.Second

// visit is one batch at one host. A visit without a grant is at a host without limits, and the source knows nothing of it.
type visit struct {
	fleet   *Fleet
	ask     Ask
	grant   *Grant
	places  places
	turns   chan struct{} // held by who waits for its turn
	limiter *rate.Limiter

	mu        sync.Mutex
	times     Times
	began     []Span        // exchanges that the report has not got
	until     time.Time     // nothing is sent before
	cooling   chan struct{} // closed when until moves
	held      int           // permits
	begun     int           // requests
	inService int
	well      int         // exchanges that went well since the last that did not
	asked     time.Time   // when for more permits or send times
	giving    bool        // permits are about to be given back
	timer     *time.Timer // that gives them back
	craving   *time.Timer // that asks for more
	cravings  int         // how often it was set
	refused   time.Time   // when there were none for the asking
	troubled  bool        // it taught something bad, and not yet that all is well again
	left      bool
	calls     sync.WaitGroup
}

var _ Visit = (*visit)(nil)

func newVisit(f *Fleet, a Ask, g *Grant) *visit {
	v := &visit{fleet: f, ask: a, grant: g, turns: make(chan struct{}, 1), cooling: make(chan struct{})}
	if g == nil {
		v.ask.Want = max(a.Want, 1)
		return v
	}
	v.held = g.Permits
	v.places.resize(g.Permits)
	v.limiter = rate.NewLimiter(rate.Inf, max(g.Times.Burst, 1)) // it begins full
	v.take(g.Times)
	return v
}

// take puts leased send times to use. The limiter spends them: it is a hundredth faster than they come, so that one that
// went late does not make all others late. The caller holds v.mu or nobody else knows v.
func (v *visit) take(t Times) {
	v.times = t
	v.grow(t.Permits)
	if t.Interval > 0 {
		v.limiter.SetLimit(rate.Limit(1.01 * float64(time.Second) / float64(t.Interval)))
		v.limiter.SetBurst(max(t.Burst, 1))
	} else {
		v.limiter.SetLimit(rate.Inf)
	}
}

// grow takes note of permits that the source has given. The caller holds v.mu or nobody else knows v.
func (v *visit) grow(permits int) {
	if permits > v.held && !v.giving {
		v.held = permits
		v.places.resize(permits)
	}
}

// Permit implements Visit.
func (v *visit) Permit(ctx context.Context) (func(), error) {
	v.fleet.waiting.Add(1)
	defer v.fleet.waiting.Add(-1)
	if err := v.places.take(ctx); err != nil {
		return nil, fmt.Errorf("wait for a permit: %w", err)
	}
	if err := v.turn(ctx); err != nil {
		v.places.free()
		return nil, err
	}
	v.mu.Lock()
	v.begun++
	v.inService++
	v.spare(v.lull())
	v.crave()
	v.mu.Unlock()
	return sync.OnceFunc(v.release), nil
}

func (v *visit) release() {
	v.places.free()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.inService--
	v.sate()
	v.spare(settle)
}

// crave asks for more permits if those there are still in service when the next request may go. The caller holds v.mu.
func (v *visit) crave() {
	if v.grant == nil || v.left || v.craving != nil || v.times.Interval == 0 || v.inService < v.held || v.begun >= v.ask.Want ||
		!v.wanting() {
		return
	}
	next := v.times.Interval
	if len(v.times.At) > 0 {
		next = time.Until(v.times.At[0])
	}
	v.craveIn(max(next, time.Until(v.refused.Add(craveAgain))))
}

func (v *visit) craveIn(wait time.Duration) {
	v.calls.Add(1)
	v.cravings++
	this := v.cravings
	v.craving = time.AfterFunc(wait, func() { v.more(this) })
}

// sate is for when a permit is free. The caller holds v.mu.
func (v *visit) sate() {
	if v.craving != nil && v.craving.Stop() {
		v.calls.Done()
	}
	v.craving = nil
}

// more asks for further permits, and for no send times. If that fails the next lease tells why.
func (v *visit) more(craving int) {
	defer v.calls.Done()
	v.mu.Lock()
	if v.craving == nil || v.cravings != craving {
		v.mu.Unlock()
		return
	}
	need := v.need()
	v.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), step)
	defer cancel()
	t, _, _ := v.fleet.source.Lease(ctx, v.ask, 0, need)
	v.mu.Lock()
	defer v.mu.Unlock()
	had := v.held
	v.grow(t.Permits)
	if v.craving == nil || v.cravings != craving {
		return
	}
	v.craving = nil
	if v.held == had && !v.left {
		v.refused = time.Now()
		v.craveIn(craveAgain)
	}
}

// need is how many permits the visit could use. The caller holds v.mu.
func (v *visit) need() int { return v.inService + max(1, v.ask.Want-v.begun) }

// wanting reports whether that is more than it has, and the host may have more. The caller holds v.mu.
func (v *visit) wanting() bool { return v.held < min(v.need(), v.times.Conns) }

// spare gives back, after a moment, the permits for which nothing is left to begin. The caller holds v.mu.
func (v *visit) spare(after time.Duration) {
	if v.grant == nil || v.times.Conns == 0 || v.begun < v.ask.Want || v.giving || v.left ||
		v.held <= v.inService || v.inService == 0 {
		return
	}
	v.giving = true
	v.calls.Add(1)
	v.timer = time.AfterFunc(after, v.giveBack)
}

// lull is how long permits are kept after the last request has begun. Where the one before it has ended already, the host
// answers faster than it is asked: the visit will have ended before the next request may go, and frees all at once. The
// caller holds v.mu.
func (v *visit) lull() time.Duration {
	if v.inService > 1 {
		return 0
	}
	return max(v.times.Interval, 20*time.Millisecond)
}

// giveBack keeps the permits of what is in service or about to be.
func (v *visit) giveBack() {
	defer v.calls.Done()
	v.mu.Lock()
	keep := v.places.shrink()
	if v.left || keep >= v.held {
		v.giving = false
		v.mu.Unlock()
		return
	}
	began, had := v.tell(), v.held
	v.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.Background(), step)
	defer cancel()
	sweep, err := v.fleet.source.Leave(ctx, v.ask, had-keep, 0, Times{Begun: began, Permits: had}, 0)
	v.fleet.afterCall(sweep, err) // on an error the end of the visit frees them
	v.mu.Lock()
	v.held, v.giving = keep, false
	v.mu.Unlock()
}

// Turn implements Visit.
func (v *visit) Turn(ctx context.Context) error {
	v.fleet.waiting.Add(1)
	defer v.fleet.waiting.Add(-1)
	return v.turn(ctx)
}

// Interval implements Visit.
func (v *visit) Interval() time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.times.Interval
}

// late is how late a request may go. With less than one interval no window has more than one request too many, and the
// intervals leave room for that one; timers are not exact, so at a high rate it is more.
func (v *visit) late() time.Duration { return max(v.times.Interval, lateness) }

// Renew implements Visit.
func (v *visit) Renew(ctx context.Context, taken time.Time) error {
	v.mu.Lock()
	fresh := time.Since(taken) < v.late()
	v.mu.Unlock()
	if fresh {
		return nil
	}
	return v.Turn(ctx)
}

// turn waits for one send time after the other, whoever comes first.
func (v *visit) turn(ctx context.Context) error {
	select {
	case v.turns <- struct{}{}:
	case <-ctx.Done():
		return fmt.Errorf("wait for a turn: %w", context.Cause(ctx))
	}
	defer func() { <-v.turns }()
	for {
		at, cooling, err := v.next(ctx)
		if err != nil {
			return err
		}
		if wait := time.Until(at); wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-cooling:
				timer.Stop()
				continue
			case <-ctx.Done():
				timer.Stop()
				return fmt.Errorf("wait for a turn: %w", context.Cause(ctx))
			}
		}
		if v.limiter != nil {
			if err := v.limiter.Wait(ctx); err != nil {
				return fmt.Errorf("wait for a turn: %w", err)
			}
		}
		if v.spend(at) {
			return nil
		}
	}
}

// next is when the next exchange may go, and a channel that is closed if that changes.
func (v *visit) next(ctx context.Context) (time.Time, <-chan struct{}, error) {
	for {
		now := time.Now()
		v.mu.Lock()
		cooling := v.cooling
		if pause := v.until.Sub(now); pause > far {
			v.mu.Unlock()
			return now, nil, &LaterError{Host: v.ask.Host, After: pause}
		}
		need := v.need()
		if v.grant == nil || v.times.Interval == 0 && !v.short(now) {
			at := v.until
			v.mu.Unlock()
			return at, cooling, nil
		}
		v.void(now)
		if v.times.Interval > 0 && len(v.times.At) > 0 {
			at := v.times.At[0]
			v.mu.Unlock()
			return at, cooling, nil
		}
		n := max(1, v.ask.Want-v.begun)
		v.asked = now
		v.mu.Unlock()
		t, later, err := v.fleet.source.Lease(ctx, v.ask, n, need)
		if err != nil {
			return now, nil, err
		}
		if later > 0 {
			return now, nil, &LaterError{Host: v.ask.Host, After: later}
		}
		v.mu.Lock()
		v.take(t)
		v.mu.Unlock()
	}
}

// short reports whether it is time to ask for more permits. The caller holds v.mu.
func (v *visit) short(now time.Time) bool { return v.wanting() && now.Sub(v.asked) > topUp }

// void drops send times that were missed by more than they may be late, and those during which the host is left alone. The
// caller holds v.mu.
func (v *visit) void(now time.Time) {
	at := v.times.At
	for len(at) > 0 && (now.Sub(at[0]) > v.late() || at[0].Before(v.until)) {
		at = at[1:]
	}
	v.times.At = at
}

// spend takes the send time that was waited for. It reports false when it was made void meanwhile.
func (v *visit) spend(at time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	if time.Now().Before(v.until) {
		return false
	}
	if v.grant == nil || v.times.Interval == 0 {
		v.note(time.Now())
		return true
	}
	if len(v.times.At) == 0 || !v.times.At[0].Equal(at) || time.Since(at) > v.late() {
		return false
	}
	v.times.At = v.times.At[1:]
	v.note(at)
	return true
}

// cool leaves the host alone until then.
func (v *visit) cool(until time.Time) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if until.After(v.until) {
		v.until = until
		close(v.cooling)
		v.cooling = make(chan struct{})
	}
}

// Learn implements Visit. That it went well is told to others only where things had not, and by the end of the visit.
func (v *visit) Learn(ctx context.Context, l Lesson, pause time.Duration) {
	if l == Nothing {
		return
	}
	v.mu.Lock()
	well := v.well
	v.well++
	tell := v.troubled || v.Probe() && well == 0
	v.troubled = l != Well
	if l != Well {
		v.well = 0
	}
	v.mu.Unlock()
	if l == Well && !tell {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), step)
	defer cancel()
	if l == Asked {
		v.fleet.cool(v.ask.site(), pause) // whatever Redis says, this worker has heard it
	}
	if l == Failed && well > 0 { // failures in a row are those that nothing good came between
		_, _ = v.fleet.source.Learn(ctx, v.ask, Well, 0)
	}
	if pause, err := v.fleet.source.Learn(ctx, v.ask, l, pause); err == nil && pause > 0 {
		v.fleet.cool(v.ask.site(), pause)
	}
}

// Scout implements Visit.
func (v *visit) Scout() bool { return v.grant != nil && v.grant.Scout }

// Probe implements Visit.
func (v *visit) Probe() bool { return v.grant != nil && v.grant.Probe }

// Conns implements Visit.
func (v *visit) Conns() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.times.Conns
}

// Robots implements Visit.
func (v *visit) Robots(ctx context.Context, known bool, lasts time.Duration, text string) error {
	sweep, err := v.fleet.source.Robots(ctx, v.ask, known, lasts, text)
	v.fleet.afterCall(sweep, err)
	return err
}

// Leave implements Visit. If the source cannot be reached the permits are freed when others find that the batch has ended.
func (v *visit) Leave() {
	v.mu.Lock()
	v.left = true
	if v.timer != nil && v.timer.Stop() {
		v.calls.Done()
	}
	v.sate()
	v.void(time.Now())
	times, well := v.times, v.well
	times.Begun = v.tell()
	v.mu.Unlock()
	v.calls.Wait()
	v.fleet.remove(v)
	if v.grant == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), step)
	defer cancel()
	v.fleet.afterCall(v.fleet.source.Leave(ctx, v.ask, -1, len(times.At), times, well))
}
