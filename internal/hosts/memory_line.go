package hosts

import "time"

// enter decides what comes of an ask.
func (h *memorySite) enter(a Ask, now time.Time) Answer {
	e := &entry{Ask: a, h: h, now: now, waiting: h.find(a.Batch), again: h.visits[a.Visit], robots: h.m.robotsOf(a.Host),
		sharer: sharer{a.Job, a.Host}}
	e.unknown = a.Robots && !e.robots.until.After(now)
	delete(h.m.shut, a.Queue)
	e.endEarlier()
	if gone := e.givenUp(); gone != nil {
		return Answer{Unavailable: gone}
	}
	n := 1
	if e.waiting != nil || e.again != nil {
		n = 0
	}
	e.job = h.book(e.sharer, n)
	e.job.limits = a.Limits
	e.terms = h.terms(now)
	if e.again == nil && e.waits() {
		return Answer{Line: e.standInLine()}
	}
	return Answer{Grant: e.letIn()}
}

// entry is an ask being decided.
type entry struct {
	Ask
	h       *memorySite
	now     time.Time
	waiting *place // in line already
	again   *stay  // let in already
	robots  *memoryRobots
	unknown bool // robots.txt has to be fetched first
	sharer  sharer
	job     *share
	terms   terms
	ends    time.Time // when patience does
}

// endEarlier ends earlier deliveries, whose workers are gone, and takes the batch out of the line of another site, which its
// host has moved from.
func (e *entry) endEarlier() {
	for _, h := range e.h.m.sites {
		found := false
		for visit, s := range h.visits {
			if s.batch == e.Batch && (h != e.h || visit != e.Visit) {
				h.vacate(visit)
				found = true
			}
		}
		if h == e.h {
			continue
		}
		if p := h.find(e.Batch); p != nil {
			h.drop(p)
			found = true
		}
		if found {
			h.summon(e.now)
		}
	}
}

// givenUp gives a batch up when patience is over and it may not try now. Patience is that of the job: it begins when it first
// asked, so that a replay finds out for itself.
func (e *entry) givenUp() *UnavailableError {
	h := e.h
	down, alone, robots := h.down, h.until, false
	if e.unknown && !e.robots.downSince.IsZero() {
		down, alone, robots = e.robots.downSince, e.robots.again, true
	}
	if e.Patience == 0 || down.IsZero() {
		return nil
	}
	if h.since[e.sharer].IsZero() {
		h.since[e.sharer] = e.now
	}
	down = later(down, h.since[e.sharer])
	if e.now.Sub(down) <= e.Patience || !alone.After(e.now) || e.again != nil {
		e.ends = later(down.Add(e.Patience), e.now.Add(time.Second))
		return nil
	}
	if e.waiting != nil {
		h.drop(e.waiting)
	}
	if h.jobs[e.sharer] == nil {
		delete(h.since, e.sharer)
	}
	h.summon(e.now)
	return &UnavailableError{Host: e.Host, Robots: robots, Since: down}
}

// waits reports whether the batch has to stand in line.
func (e *entry) waits() bool {
	h := e.h
	called := h.called != e.Batch && h.reserved(e.now) && (e.terms.conns > 0 || e.terms.every > 0)
	return h.next(e.terms, e.now).After(e.now.Add(far)) || h.until.After(e.now) ||
		e.unknown && e.robots.again.After(e.now) || h.room(e.terms) < 1 || called
}

func (e *entry) standInLine() *Line {
	h := e.h
	p := e.waiting
	if p == nil {
		e.job.turn = max(e.job.turn, h.turn) + 1
		p = &place{batch: e.Batch, sharer: e.sharer, priority: e.Priority, turn: e.job.turn}
		h.insert(p)
	}
	p.queue, p.robots, p.came = e.Queue, e.unknown, e.now
	if h.called == e.Batch {
		h.called = ""
	}
	h.summon(e.now)
	return &Line{Next: away(h.m.look, e.now), PatienceEnd: away(e.ends, e.now), Length: len(h.line)}
}

func (e *entry) letIn() *Grant {
	h := e.h
	s := e.again
	if s == nil {
		s = &stay{permits: min(e.Want, h.room(e.terms))}
		if h.opened > 0 {
			s.permits = 1
		}
		h.visits[e.Visit] = s
	}
	s.since, s.queue, s.batch, s.sharer = e.now, e.Queue, e.Batch, e.sharer
	if e.waiting != nil {
		h.turn = max(h.turn, e.waiting.turn)
	}
	h.remove(e.Batch)
	g := &Grant{Permits: s.permits, Scout: e.unknown, Probe: h.opened > 0, Slowness: h.tempo.factor(e.now)}
	if g.Scout {
		h.scout = e.Visit
	}
	n := e.Want
	if g.Probe {
		n = 1
	}
	g.Times = h.lease(e.terms, s.permits, e.terms.short(s.permits, n, e.Want), e.now)
	h.summon(e.now)
	return g
}

// lookAt has the site looked at then. A net is only for calls that are lost.
func (h *memorySite) lookAt(at time.Time, net bool) {
	h.due = at
	if m := h.m; !net && (m.look.IsZero() || at.Before(m.look)) {
		m.look = at
	}
}

// census ends the visits of batches that nobody works any more, every few seconds.
func (h *memorySite) census(now time.Time) {
	if now.Sub(h.checked) < answerWithin {
		return
	}
	h.checked = now
	for visit, s := range h.visits {
		if !h.m.tasks.Alive(s.queue, s.batch) {
			h.vacate(visit)
		}
	}
}

// summon calls the first in line if the site has room for it, and says when to look again. A batch that was called and
// did not come within answerWithin is passed over, and its queue for a while: it may be paused, or served by nobody.
func (h *memorySite) summon(now time.Time) {
	h.due = time.Time{}
	if len(h.line) == 0 {
		return
	}
	h.census(now)
	t := h.terms(now)
	switch at := h.next(t, now); {
	case h.until.After(now):
		h.lookAt(later(h.until, at.Add(-far/2)), false)
	case at.After(now.Add(far)):
		h.lookAt(at.Add(-far/2), false)
	case h.room(t) < 1:
		h.lookAt(now.Add(answerWithin), true)
	default:
		h.callNext(t, now)
	}
}

func (h *memorySite) callNext(t terms, now time.Time) {
	s := search{h: h, now: now, flood: t.conns == 0 && t.every == 0 && !h.oneOnly()}
	after := 0
	if h.called != "" && !s.flood {
		if h.reserved(now) {
			h.lookAt(h.calledAt.Add(answerWithin), true)
			return
		}
		for i, p := range h.line {
			if p.batch == h.called {
				h.m.shut[p.queue] = now.Add(shy)
				after = i + 1
			}
		}
	}
	found := s.from(0, false) || s.look.IsZero() && s.from(after, true) || s.look.IsZero() && after > 0 && s.from(0, true)
	switch {
	case found:
		h.lookAt(now.Add(answerWithin), true)
	case len(h.line) > 0:
		look := now.Add(time.Second)
		if !s.look.IsZero() && s.look.Before(look) {
			look = s.look
		}
		h.lookAt(look, false)
	}
}

// search goes through a line for the batch to call.
type search struct {
	h     *memorySite
	now   time.Time
	flood bool      // there is nothing to wait for: all are called
	look  time.Time // when to look again if none is found
}

// from calls the first that should come from a position on. It passes over those that wait for robots.txt, those of queues
// that are shut unless all is set, and those that have been active for long: they are about to ask, or their worker died
// as they stood in line.
func (s *search) from(i int, all bool) bool {
	h := s.h
	for range window {
		if i >= len(h.line) {
			return false
		}
		p := h.line[i]
		if r := h.m.robotsOf(p.sharer.host); p.robots && !r.until.After(s.now) && r.again.After(s.now) {
			s.soonest(r.again)
			i++
			continue
		}
		if !all && h.m.shut[p.queue].After(s.now) {
			i++
			continue
		}
		switch h.m.tasks.Call(p.queue, p.batch) {
		case "gone":
			h.drop(p)
			continue
		case "active":
			if s.now.Sub(p.came) < young {
				s.look = s.now.Add(callSoon)
				return false
			}
			s.soonest(s.now.Add(young / 4))
		default:
			if !s.flood {
				h.called, h.calledAt = p.batch, s.now
				return true
			}
		}
		i++
	}
	s.look = s.now
	return false
}

func (s *search) soonest(at time.Time) {
	if s.look.IsZero() || at.Before(s.look) {
		s.look = at
	}
}
