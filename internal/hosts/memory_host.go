package hosts

import (
	"cmp"
	"math"
	"slices"
	"time"
)

// memoryHost is what Memory knows of a host. See lua/lib.lua for the names.
type memoryHost struct {
	m        *Memory
	name     string
	bucket   bucket
	tempo    tempo
	until    time.Time // nobody sends before
	busy     int
	fails    int
	opened   int
	down     time.Time
	badAt    time.Time
	checked  time.Time
	due      time.Time // zero = not
	called   string
	calledAt time.Time
	turn     int64
	scout    string
	robots   memoryRobots
	visits   map[string]*stay
	jobs     map[string]*share
	since    map[string]time.Time // job → when it first asked while the host was in trouble
	line     []*place             // in order
}

type memoryRobots struct {
	text             string
	until            time.Time
	again, downSince time.Time
	tries            int
}

// stay is a visit.
type stay struct {
	permits           int
	since             time.Time
	queue, batch, job string
}

// share is a job with work at the host.
type share struct {
	batches int
	limits  Limits
	turn    int64
}

// place is a batch in line.
type place struct {
	batch, queue, job string
	priority          int
	turn              int64
	robots            bool // it needs robots.txt
	came              time.Time
}

func (h *memoryHost) terms(now time.Time) terms {
	var limits []Limits
	for _, j := range h.jobs {
		limits = append(limits, j.limits)
	}
	return termsAt(strictest(limits), h.tempo.factor(now))
}

// next is the next send time.
func (h *memoryHost) next(t terms, now time.Time) time.Time {
	return h.bucket.next(t, later(now, h.until))
}

// lease gives up to n send times to a visit that has so many permits.
func (h *memoryHost) lease(t terms, permits, n int, now time.Time) Times {
	at := h.bucket.lease(t, n, now, later(now, h.until))
	return Times{Interval: t.every, Burst: t.burst, At: at, Permits: permits, mark: h.bucket.mark(), read: now, now: now.UnixMicro()}
}

// short is how many of n send times a visit gets that could use more permits: where they follow one another fast it is to
// ask for them soon.
func (t terms) short(permits, n, need int) int {
	if t.conns > 0 && t.every < time.Second/10 && permits < min(need, t.conns) {
		return min(n, max(1, permits))
	}
	return n
}

// oneOnly says that a host whose circuit was open, and one whose robots.txt is being fetched, has room for one visit.
func (h *memoryHost) oneOnly() bool { return h.opened > 0 || h.scout != "" }

// roomBeside is how many permits are free for visits that are there.
func (h *memoryHost) roomBeside(t terms) int {
	if h.oneOnly() {
		return 0
	}
	return h.unheld(t)
}

// room is how many permits are free for further visits.
func (h *memoryHost) room(t terms) int {
	if h.oneOnly() && len(h.visits) > 0 {
		return 0
	}
	return h.unheld(t)
}

// unheld is how many permits no visit has.
func (h *memoryHost) unheld(t terms) int {
	if t.conns == 0 {
		return math.MaxInt
	}
	for _, s := range h.visits {
		t.conns -= s.permits
	}
	return t.conns
}

// reserved reports whether a batch was called and may still come.
func (h *memoryHost) reserved(now time.Time) bool {
	return h.called != "" && now.Before(h.calledAt.Add(net))
}

// book counts a batch of a job that comes (+1) or goes (-1).
func (h *memoryHost) book(job string, n int) *share {
	s := h.jobs[job]
	if s == nil {
		s = &share{}
		h.jobs[job] = s
	}
	if s.batches += n; s.batches <= 0 {
		delete(h.jobs, job)
	}
	return s
}

func (h *memoryHost) find(batch string) *place {
	for _, p := range h.line {
		if p.batch == batch {
			return p
		}
	}
	return nil
}

func (h *memoryHost) insert(p *place) {
	h.line = append(h.line, p)
	slices.SortStableFunc(h.line, func(a, b *place) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.turn, b.turn), cmp.Compare(a.batch, b.batch))
	})
}

func (h *memoryHost) remove(batch string) {
	h.line = slices.DeleteFunc(h.line, func(p *place) bool { return p.batch == batch })
	if h.called == batch {
		h.called = ""
	}
}

// drop takes a batch that is gone out of the line.
func (h *memoryHost) drop(p *place) {
	h.remove(p.batch)
	h.book(p.job, -1)
}

func (h *memoryHost) vacate(visit string) {
	s := h.visits[visit]
	delete(h.visits, visit)
	h.book(s.job, -1)
	if h.scout == visit {
		h.scout = ""
	}
}

// heal forgets that things did not go well.
func (h *memoryHost) heal() {
	h.down, h.busy, h.fails, h.opened = time.Time{}, 0, 0, 0
	if h.robots.downSince.IsZero() {
		clear(h.since)
	}
}

// cool keeps everybody away from the host until a time.
func (h *memoryHost) cool(until time.Time) {
	if until.After(h.until) {
		h.until = until
		h.m.told[h.name] = until
	}
}

func (h *memoryHost) learn(l Lesson, pause time.Duration, now time.Time) {
	if l == Well {
		h.heal()
		h.summon(now)
		return
	}
	if h.down.IsZero() {
		h.down = now
	}
	h.badAt = now
	switch l {
	case Asked:
		h.fails, h.opened = 0, 0 // it did answer
		h.cool(now.Add(pause))
		h.tempo = h.tempo.slower(now)
	case Overload:
		h.fails, h.opened = 0, 0
		if !h.until.After(now) {
			h.cool(now.Add(coolDown(h.busy)))
			h.busy = min(h.busy+1, mostLesson)
		}
		h.tempo = h.tempo.slower(now)
	default:
		h.failed(now)
	}
}

func (h *memoryHost) failed(now time.Time) {
	if h.until.After(now) {
		return
	}
	if h.fails++; h.opened == 0 && h.fails < inARow {
		return
	}
	h.cool(now.Add(openFor(h.opened)))
	h.opened, h.fails = min(h.opened+1, mostLesson), 0
}

func (h *memoryHost) learnRobots(known bool, lasts time.Duration, text string, now time.Time) {
	r := &h.robots
	if known {
		*r = memoryRobots{text: text, until: now.Add(lasts)}
		if h.down.IsZero() {
			clear(h.since)
		}
		return
	}
	if r.downSince.IsZero() {
		r.downSince = now
	}
	r.again = now.Add(robotsPause(lasts, r.tries))
	r.tries++
}
