package hosts

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// idleSweep is how often a worker looks for sites that are due when it knows of none: others, which do, may have died.
	idleSweep = time.Second
	// lost is when a batch in line comes back by itself, should every call to it get lost.
	lost = time.Minute
	// crowd is the length of a line from which on batches come back less often: at most so many a minute for each host.
	crowd = 1000
	// far is the longest wait that is spent in a slot. The scripts have the same.
	far = 3 * time.Second
	// step bounds a call to the source that nobody waits for.
	step = 5 * time.Second
)

// Fleet is a worker's side of the limits: it lets visits in as its Source says and keeps them to their send times.
// Run has to run while visits are made.
type Fleet struct {
	source    Source
	addresses *Addresses // nil: every host is its own site
	waiting   atomic.Int64
	wake      chan struct{}

	mu      sync.Mutex
	next    time.Time                      // when to sweep
	visits  map[string]map[*visit]struct{} // by site
	hosts   map[string]int                 // visits at each host
	cooled  map[string]time.Time           // sites to be left alone, as heard; by the local clock
	refused refusals
}

// NewFleet returns the side of one worker.
func NewFleet(source Source) *Fleet {
	return &Fleet{source: source, wake: make(chan struct{}, 1), visits: map[string]map[*visit]struct{}{},
		hosts: map[string]int{}, cooled: map[string]time.Time{}}
}

// PerAddress has hosts that resolve to the same address share their limits. It is to be called before f is used.
func (f *Fleet) PerAddress(a *Addresses) *Fleet {
	f.addresses = a
	return f
}

// Site is what the limits of a host are kept for: itself, unless PerAddress was called.
func (f *Fleet) Site(ctx context.Context, host string) (string, error) {
	if f.addresses == nil {
		return host, nil
	}
	return f.addresses.Site(ctx, host)
}

// Waiting is how many requests wait for a permit or their turn now.
func (f *Fleet) Waiting() int { return int(f.waiting.Load()) }

// Vacate ends the visits of batches whose worker was found dead.
func (f *Fleet) Vacate(ctx context.Context, batches []string) error {
	if len(batches) == 0 {
		return nil
	}
	return f.source.Vacate(ctx, batches)
}

// RobotsText is what is kept of a host's robots.txt. See Source.RobotsText.
func (f *Fleet) RobotsText(ctx context.Context, host string) (string, error) {
	return f.source.RobotsText(ctx, host)
}

// Enter begins a visit. Instead it returns a *BusyError when the batch got a place in line, an *UnavailableError when the
// host has brought nothing for longer than its patience, or the source's error. A host where nobody has limits and of which
// nothing bad is known costs no call.
func (f *Fleet) Enter(ctx context.Context, a Ask) (Visit, error) {
	if a.Limits.Unlimited() && !a.Robots && max(a.Care, f.pause(a.site())) <= 0 {
		return f.add(newVisit(f, a, nil)), nil
	}
	answer, err := f.source.Enter(ctx, a)
	switch {
	case err != nil:
		return nil, err
	case answer.Unavailable != nil:
		return nil, answer.Unavailable
	case answer.Line != nil:
		return nil, f.inLine(a.Host, answer.Line)
	}
	return f.add(newVisit(f, a, answer.Grant)), nil
}

func (f *Fleet) inLine(host string, l *Line) error {
	if l.Next > 0 {
		f.sweepWithin(l.Next)
	}
	after := max(lost, time.Duration(l.Length)*lost/crowd)
	after += rand.N(after / 8) // those that joined together do not come back together
	if l.PatienceEnd > 0 {     // whole seconds is what the queue knows
		after = min(after, l.PatienceEnd+time.Second)
	}
	return &BusyError{Host: host, After: after}
}

func (f *Fleet) add(v *visit) *visit {
	f.mu.Lock()
	defer f.mu.Unlock()
	site := v.ask.site()
	if f.visits[site] == nil {
		f.visits[site] = map[*visit]struct{}{}
	}
	f.visits[site][v] = struct{}{}
	if until := f.cooled[site]; until.After(time.Now()) { // heard while the visit was being let in
		v.cool(until)
	}
	f.hosts[v.ask.Host]++
	return v
}

// remove forgets a visit.
func (f *Fleet) remove(v *visit) {
	f.mu.Lock()
	defer f.mu.Unlock()
	site := v.ask.site()
	delete(f.visits[site], v)
	if len(f.visits[site]) == 0 {
		delete(f.visits, site)
	}
	if f.hosts[v.ask.Host]--; f.hosts[v.ask.Host] == 0 {
		delete(f.hosts, v.ask.Host)
	}
}

// Visiting reports whether this worker visits the host now.
func (f *Fleet) Visiting(host string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.hosts[host] > 0
}

// pause is how long the site is to be left alone, as far as this worker has heard.
func (f *Fleet) pause(site string) time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Until(f.cooled[site])
}

// cool leaves a site alone, in visits under way, too; for as long as it was to be left alone already, at least.
func (f *Fleet) cool(site string, pause time.Duration) {
	until := time.Now().Add(pause)
	f.mu.Lock()
	visits := slices.Collect(maps.Keys(f.visits[site]))
	if until.After(f.cooled[site]) {
		f.cooled[site] = until
	}
	f.mu.Unlock()
	for _, v := range visits {
		v.cool(until)
	}
}

// Run looks after sites that are due and hears of those that are to be left alone, until ctx ends.
func (f *Fleet) Run(ctx context.Context) {
	var loops sync.WaitGroup
	loops.Go(func() { f.sweeps(ctx) })
	for ctx.Err() == nil {
		_ = f.source.Cooled(ctx, f.cool) // it ends with ctx, or when it cannot subscribe
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
		}
	}
	loops.Wait()
}

func (f *Fleet) sweeps(ctx context.Context) {
	for {
		f.mu.Lock()
		timer := time.NewTimer(time.Until(f.next))
		f.mu.Unlock()
		select {
		case <-timer.C:
			f.sweep(ctx)
		case <-f.wake:
		case <-ctx.Done():
			timer.Stop()
			f.tellRefused()
			return
		}
		timer.Stop()
	}
}

func (f *Fleet) sweep(ctx context.Context) {
	refused := f.takeRefused()
	f.mu.Lock()
	f.next = time.Now().Add(idleSweep) // whoever wants one sooner says so from now on
	f.mu.Unlock()
	next, err := f.source.Sweep(ctx, refused...)
	if err != nil {
		f.keepRefused(refused)
	}
	if err == nil && next > 0 {
		f.sweepWithin(max(next, 2*time.Millisecond))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for site, until := range f.cooled {
		if time.Now().After(until) {
			delete(f.cooled, site)
		}
	}
}

// afterCall sees to it that sites are looked at when the source said so.
func (f *Fleet) afterCall(sweep time.Duration, err error) {
	if err == nil && sweep > 0 {
		f.sweepWithin(sweep)
	}
}

// sweepWithin sees to it that sites are looked at no later than that.
func (f *Fleet) sweepWithin(d time.Duration) {
	at := time.Now().Add(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	if at.Before(f.next) {
		f.next = at
		select {
		case f.wake <- struct{}{}:
		default:
		}
	}
}
