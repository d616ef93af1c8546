package hosts

import (
	"cmp"
	"maps"
	"math"
	"slices"
	"time"
)

// memorySite is what Memory knows of a site. See lua/lib.lua for the names.
type memorySite struct {
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
	visits   map[string]*stay
	jobs     map[sharer]*share
	since    map[sharer]time.Time // when it first asked while the site was in trouble
	line     []*place             // in order
}

// memoryRobots is what Memory knows of the robots.txt of a host.
type memoryRobots struct {
	text             string
	until            time.Time
	again, downSince time.Time
	tries            int
}

// stay is a visit.
type stay struct {
	permits      int
	since        time.Time
	queue, batch string
	sharer       sharer
}

// sharer is a job at a host. The hosts of a site take turns as jobs do.
type sharer struct{ job, host string }

// share is a job with work at a host of the site.
type share struct {
	batches int
	limits  Limits
	turn    int64
}

// place is a batch in line.
type place struct {
	batch, queue string
	sharer       sharer
	priority     int
	turn         int64
	robots       bool // it needs robots.txt
	came         time.Time
}

func (h *memorySite) terms(now time.Time) terms {
	var limits []Limits
	for _, j := range h.jobs {
		limits = append(limits, j.limits)
	}
	return termsAt(strictest(limits), h.tempo.factor(now))
}

// next is the next send time.
func (h *memorySite) next(t terms, now time.Time) time.Time {
	return h.bucket.next(t, later(now, h.until))
}

// lease gives up to n send times to a visit that has so many permits.
func (h *memorySite) lease(t terms, permits, n int, now time.Time) Times {
	at := h.bucket.lease(t, n, now, later(now, h.until))
	return Times{Interval: t.every, Burst: t.burst, Conns: t.conns, At: at, Permits: permits, mark: h.bucket.mark(), read: now, now: now.UnixMicro()}
}

// short is how many of n send times a visit gets that could use more permits: where they follow one another fast it is to
// ask for them soon.
func (t terms) short(permits, n, need int) int {
	if t.conns > 0 && t.every < time.Second/10 && permits < min(need, t.conns) {
		return min(n, max(1, permits))
	}
	return n
}

// oneOnly says that a site whose circuit was open, and one where a robots.txt is being fetched, has room for one visit.
func (h *memorySite) oneOnly() bool { return h.opened > 0 || h.scout != "" }

// roomBeside is how many permits are free for visits that are there.
func (h *memorySite) roomBeside(t terms) int {
	if h.oneOnly() {
		return 0
	}
	return h.unheld(t)
}

// room is how many permits are free for further visits.
func (h *memorySite) room(t terms) int {
	if h.oneOnly() && len(h.visits) > 0 {
		return 0
	}
	return h.unheld(t)
}

// unheld is how many permits no visit has.
func (h *memorySite) unheld(t terms) int {
	if t.conns == 0 {
		return math.MaxInt
	}
	for _, s := range h.visits {
		t.conns -= s.permits
	}
	return t.conns
}

// reserved reports whether a batch was called and may still come.
func (h *memorySite) reserved(now time.Time) bool {
	return h.called != "" && now.Before(h.calledAt.Add(answerWithin))
}

// book counts a batch of a job at a host that comes (+1) or goes (-1).
func (h *memorySite) book(who sharer, n int) *share {
	s := h.jobs[who]
	if s == nil {
		s = &share{}
		h.jobs[who] = s
	}
	if s.batches += n; s.batches <= 0 {
		delete(h.jobs, who)
	}
	return s
}

func (h *memorySite) find(batch string) *place {
	for _, p := range h.line {
		if p.batch == batch {
			return p
		}
	}
	return nil
}

func (h *memorySite) insert(p *place) {
	h.line = append(h.line, p)
	slices.SortStableFunc(h.line, func(a, b *place) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.turn, b.turn), cmp.Compare(a.batch, b.batch))
	})
}

func (h *memorySite) remove(batch string) {
	h.line = slices.DeleteFunc(h.line, func(p *place) bool { return p.batch == batch })
	if h.called == batch {
		h.called = ""
	}
}

// drop takes a batch that is gone out of the line.
func (h *memorySite) drop(p *place) {
	h.remove(p.batch)
	h.book(p.sharer, -1)
}

func (h *memorySite) vacate(visit string) {
	s := h.visits[visit]
	delete(h.visits, visit)
	h.book(s.sharer, -1)
	if h.scout == visit {
		h.scout = ""
	}
}

// heal forgets that things did not go well.
func (h *memorySite) heal() {
	if h.down.IsZero() && h.busy == 0 && h.fails == 0 && h.opened == 0 {
		return
	}
	h.down, h.busy, h.fails, h.opened = time.Time{}, 0, 0, 0
	h.calm()
}

// calm ends the patience of those whose host nothing is wrong with any more.
func (h *memorySite) calm() {
	maps.DeleteFunc(h.since, func(who sharer, _ time.Time) bool {
		return h.down.IsZero() && h.m.robotsOf(who.host).downSince.IsZero()
	})
}

// cool keeps everybody away from the site until a time.
func (h *memorySite) cool(until time.Time) {
	if until.After(h.until) {
		h.until = until
		h.m.told[h.name] = until
	}
}

func (h *memorySite) learn(l Lesson, pause time.Duration, now time.Time) {
	if l == Well {
		h.heal()
		h.summon(now)
		return
	}
	if now.Sub(later(h.badAt, h.until)) > longAgo {
		h.heal()
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

func (h *memorySite) failed(now time.Time) {
	if h.until.After(now) {
		return
	}
	if h.fails++; h.opened == 0 && h.fails < inARow {
		return
	}
	h.cool(now.Add(openFor(h.opened)))
	h.opened, h.fails = min(h.opened+1, mostLesson), 0
}

func (r *memoryRobots) learn(known bool, lasts time.Duration, text string, now time.Time) {
	if known {
		*r = memoryRobots{text: text, until: now.Add(lasts)}
		return
	}
	if r.downSince.IsZero() {
		r.downSince = now
	}
	r.again = now.Add(robotsPause(lasts, r.tries))
	r.tries++
}
