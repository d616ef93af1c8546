package hosts_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
)

const (
	tick  = 20 * time.Millisecond
	slots = 6 // deliveries at once
)

// world is a fleet, its queues and its hosts, as simple as can be: what happens in it is drawn at random.
type world struct {
	t       *rapid.T
	source  *hosts.Memory
	queues  *fakeQueues
	clock   time.Time
	sweepAt time.Time
	sites   map[string]string       // of each host
	limits  map[string]hosts.Limits // the loosest of each site
	batches []*simBatch             // all that are not done
	paused  map[string]bool
	sent    map[string][]time.Time // by site
	idle    map[string]time.Time   // since when a site is idle while somebody could visit it
	alone   map[string]time.Time   // sites that are cooling, until when
	serial  int
	refused map[string]int // how often in a row the robots.txt of a host could not be had
	chance  *rand.Rand
}

// simBatch is a batch on its way.
type simBatch struct {
	ask     hosts.Ask
	left    int // requests to begin
	back    time.Time
	defers  bool // its deferral is about to be written
	visit   *simVisit
	stalled time.Time // when its worker died
}

// simVisit is its visit.
type simVisit struct {
	permits int
	times   hosts.Times
	ends    []time.Time // of the requests in service
	scout   bool
}

func newWorld(t *rapid.T) *world {
	w := &world{t: t, queues: &fakeQueues{states: map[string]string{}}, clock: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
		sites: map[string]string{}, limits: map[string]hosts.Limits{}, paused: map[string]bool{}, sent: map[string][]time.Time{},
		idle: map[string]time.Time{}, alone: map[string]time.Time{}, refused: map[string]int{},
		chance: rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "chance"), 0))}
	w.source = hosts.NewMemory(w.queues, func() time.Time { return w.clock })
	for _, name := range []string{"one", "two"} {
		w.sites[name] = rapid.SampledFrom([]string{name, "@192.0.2.1"}).Draw(t, "site")
		w.limits[w.sites[name]] = hosts.Limits{Rate: float64(rapid.SampledFrom([]int{1, 5, 20}).Draw(t, "rate")),
			Burst: rapid.IntRange(1, 4).Draw(t, "burst"), Conns: rapid.IntRange(1, 4).Draw(t, "conns")}
	}
	return w
}

func (w *world) arrive() {
	w.serial++
	name := rapid.SampledFrom([]string{"one", "two"}).Draw(w.t, "host")
	job := rapid.SampledFrom([]string{"a", "b", "c"}).Draw(w.t, "job")
	limits := w.limits[w.sites[name]]
	if job == "c" { // a stricter one
		limits.Rate, limits.Burst, limits.Conns = limits.Rate/2, 1, 1
	}
	queue := rapid.SampledFrom([]string{"default", "other"}).Draw(w.t, "queue")
	b := &simBatch{left: rapid.IntRange(1, 12).Draw(w.t, "requests")}
	b.ask = hosts.Ask{Host: name, Site: w.sites[name], Batch: fmt.Sprint("batch", w.serial), Queue: queue, Priority: 1, Job: job,
		Limits: limits, Robots: job == "b"}
	w.queues.put(queue, b.ask.Batch, "pending")
	w.batches = append(w.batches, b)
}

func (w *world) state(b *simBatch) string { return w.queues.state(b.ask.Queue, b.ask.Batch) }

func (w *world) any(what string, fits func(*simBatch) bool) *simBatch {
	var some []*simBatch
	for _, b := range w.batches {
		if fits(b) {
			some = append(some, b)
		}
	}
	if len(some) == 0 {
		return nil
	}
	return some[rapid.IntRange(0, len(some)-1).Draw(w.t, what)]
}

func visiting(b *simBatch) bool { return b.visit != nil }

// die kills the worker of one batch.
func (w *world) die() {
	if b := w.any("dies", visiting); b != nil {
		b.visit, b.stalled = nil, w.clock
		w.queues.put(b.ask.Queue, b.ask.Batch, "stalled")
	}
}

// cancel takes a batch away that nobody works.
func (w *world) cancel() {
	b := w.any("cancelled", func(b *simBatch) bool { return !visiting(b) && !b.defers && b.stalled.IsZero() })
	if b != nil {
		w.queues.put(b.ask.Queue, b.ask.Batch, "gone")
		w.finish(b)
	}
}

func (w *world) finish(b *simBatch) {
	w.batches = slices.DeleteFunc(w.batches, func(x *simBatch) bool { return x == b })
}

// wakeEarly delivers a batch in line that nobody called.
func (w *world) wakeEarly() {
	if b := w.any("early", func(b *simBatch) bool { return w.state(b) == "retry" }); b != nil {
		w.queues.put(b.ask.Queue, b.ask.Batch, "pending")
	}
}

func (w *world) askTwice() {
	if b := w.any("twice", visiting); b != nil {
		answer, _ := w.source.Enter(w.t.Context(), b.ask)
		if answer.Grant == nil {
			w.t.Fatalf("asking again brought %+v", answer)
		}
		b.visit.times = answer.Grant.Times
	}
}

func (w *world) pause() {
	q := rapid.SampledFrom([]string{"default", "other"}).Draw(w.t, "queue")
	w.paused[q] = !w.paused[q]
}

func (w *world) learn() {
	name := rapid.SampledFrom([]string{"one", "two"}).Draw(w.t, "host")
	l := rapid.SampledFrom([]hosts.Lesson{hosts.Asked, hosts.Overload, hosts.Failed, hosts.Failed, hosts.Failed, hosts.Well}).Draw(w.t, "lesson")
	site := w.sites[name]
	alone, _ := w.source.Learn(w.t.Context(), hosts.Ask{Host: name, Site: site, Job: "a"}, l, 2*time.Second)
	w.alone[site] = w.clock.Add(alone)
	for _, b := range w.batches { // its workers hear of it
		if b.visit != nil && b.ask.Site == site && alone > 0 {
			b.visit.times.At = slices.DeleteFunc(b.visit.times.At, func(at time.Time) bool { return at.Before(w.alone[site]) })
		}
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	for end := w.clock.Add(d); w.clock.Before(end); {
		w.clock = w.clock.Add(tick)
		w.serve()
		w.deliver()
		w.recover()
		if !w.clock.Before(w.sweepAt) {
			w.sweepAt = w.clock.Add(time.Second)
			next, _ := w.source.Sweep(w.t.Context())
			w.sweepWithin(next)
		}
		w.check()
	}
}

func (w *world) sweepWithin(next time.Duration) {
	if at := w.clock.Add(next); next > 0 && at.Before(w.sweepAt) {
		w.sweepAt = at
	}
}

// serve lets visits send what they may.
func (w *world) serve() {
	for _, b := range slices.Clone(w.batches) {
		if b.visit == nil {
			continue
		}
		v := b.visit
		v.ends = slices.DeleteFunc(v.ends, func(at time.Time) bool { return !at.After(w.clock) })
		later := !w.send(b, v)
		if len(v.ends) == 0 && (b.left == 0 || later) {
			w.leave(b)
		}
	}
}

// send reports false when the next may go too late to wait for it.
func (w *world) send(b *simBatch, v *simVisit) bool {
	for b.left > 0 && len(v.ends) < v.permits {
		if len(v.times.At) == 0 {
			t, later, err := w.source.Lease(w.t.Context(), b.ask, b.left, len(v.ends)+b.left)
			if err != nil || later > 0 {
				return false
			}
			v.times, v.permits = t, max(v.permits, t.Permits)
		}
		at := v.times.At[0]
		if at.After(w.clock) {
			return true
		}
		v.times.At = v.times.At[1:]
		if w.clock.Sub(at) > v.times.Interval+tick {
			continue // void
		}
		w.sent[b.ask.Site] = append(w.sent[b.ask.Site], at)
		if v.scout {
			v.scout = false
			known := w.chance.IntN(4) > 0 || w.refused[b.ask.Host] == 3 // the pause doubles each time
			next, _ := w.source.Robots(w.t.Context(), b.ask, known, 3*time.Second, "")
			w.sweepWithin(next)
			w.refused[b.ask.Host]++
			if !known {
				return false
			}
			w.refused[b.ask.Host] = 0
		}
		b.left--
		v.ends = append(v.ends, w.clock.Add(time.Duration(1+w.chance.IntN(600))*time.Millisecond))
	}
	return true
}

func (w *world) leave(b *simBatch) {
	v := b.visit
	b.visit = nil
	for range 1 + w.serial%2 { // the answer to the first may be lost
		next, _ := w.source.Leave(w.t.Context(), b.ask, -1, len(v.times.At), v.times, 1)
		w.sweepWithin(next)
	}
	if b.left == 0 {
		w.queues.put(b.ask.Queue, b.ask.Batch, "gone")
		w.finish(b)
		return
	}
	w.queues.put(b.ask.Queue, b.ask.Batch, "pending")
}

// deliver gives tasks to free slots: those that were called first, the last of them before the others.
func (w *world) deliver() {
	for _, b := range w.batches {
		if b.defers {
			b.defers, b.back = false, w.clock.Add(time.Minute)
			w.queues.put(b.ask.Queue, b.ask.Batch, "retry")
		}
		if w.state(b) == "retry" && w.clock.After(b.back) {
			w.queues.put(b.ask.Queue, b.ask.Batch, "pending")
		}
	}
	busy := 0
	var ready []*simBatch
	for _, b := range w.batches {
		if b.visit != nil {
			busy++
		} else if w.state(b) == "pending" && !w.paused[b.ask.Queue] {
			ready = append(ready, b)
		}
	}
	slices.SortStableFunc(ready, func(x, y *simBatch) int {
		return slices.Index(w.queues.calls, y.ask.Batch) - slices.Index(w.queues.calls, x.ask.Batch)
	})
	for _, b := range ready[:min(len(ready), slots-busy)] {
		w.enter(b)
	}
}

func (w *world) enter(b *simBatch) {
	w.serial++
	b.ask.Visit, b.ask.Want = fmt.Sprint("visit", w.serial), b.left
	w.queues.calls = slices.DeleteFunc(w.queues.calls, func(id string) bool { return id == b.ask.Batch })
	w.queues.put(b.ask.Queue, b.ask.Batch, "active")
	answer, _ := w.source.Enter(w.t.Context(), b.ask)
	if g := answer.Grant; g != nil {
		b.visit = &simVisit{permits: g.Permits, times: g.Times, scout: g.Scout}
		if g.Permits < 1 {
			w.t.Fatalf("a visit with %d permits", g.Permits)
		}
		return
	}
	b.defers = true
	w.sweepWithin(answer.Line.Next)
}

// recover puts batches of dead workers back.
func (w *world) recover() {
	for _, b := range w.batches {
		if !b.stalled.IsZero() && w.clock.Sub(b.stalled) > 13*time.Second {
			b.stalled = time.Time{}
			w.queues.put(b.ask.Queue, b.ask.Batch, "pending")
			_ = w.source.Vacate(w.t.Context(), []string{b.ask.Batch})
		}
	}
}

// check is what has to hold at all times.
func (w *world) check() {
	for name, l := range w.limits {
		inUse, waiting, visits := 0, 0, 0
		for _, b := range w.batches {
			if b.ask.Site != name {
				continue
			}
			switch {
			case b.visit != nil:
				inUse, visits = inUse+len(b.visit.ends), visits+1
			case !b.stalled.IsZero():
				visits++ // its permits are held until it is found
			case !w.paused[b.ask.Queue] && (!b.ask.Robots || w.refused[b.ask.Host] == 0):
				waiting++
			}
		}
		if inUse > l.Conns {
			w.t.Fatalf("%d requests in service at site %s, want at most %d", inUse, name, l.Conns)
		}
		if visits > 0 || waiting == 0 || w.clock.Before(w.alone[name]) {
			w.idle[name] = w.clock
		}
		bound := 30 * time.Second
		if w.clock.Sub(w.alone[name]) < 10*time.Minute { // it may be taken up to 8 times slower, the strict job's rate is half
			bound += time.Duration(16 * 1.018 / l.Rate * float64(time.Second))
		}
		if w.clock.Sub(later(w.idle[name], w.alone[name])) > bound {
			w.t.Fatalf("site %s has room and is idle for %s while %d batches wait:\n%s", name, bound, waiting, w.describe(name))
		}
	}
}

// checkWindows looks at the send times of each site in windows of 10 s.
func (w *world) checkWindows() {
	for name, sent := range w.sent {
		slices.SortFunc(sent, time.Time.Compare)
		most := int(w.limits[name].Rate*10) + w.limits[name].Burst
		for i := range sent {
			if j := i + most; j < len(sent) && sent[j].Sub(sent[i]) < 10*time.Second {
				w.t.Fatalf("site %s: %d requests in %s, want at most %d in 10 s", name, most+1, sent[j].Sub(sent[i]), most)
			}
		}
	}
}

func (w *world) describe(name string) (out string) {
	for _, b := range w.batches {
		if b.ask.Site == name {
			out += fmt.Sprintf("batch %s of job %s in %s: %s, visit %+v\n", b.ask.Batch, b.ask.Job, b.ask.Queue, w.state(b), b.visit)
		}
	}
	return fmt.Sprintf("%sat %s, left alone until %s, source:\n%s", out, w.clock, w.alone[name], w.source.Left())
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
