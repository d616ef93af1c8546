package hosts

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	answerWithin = 5 * time.Second  // a call without an answer is lost after this
	life         = time.Minute      // a visit older than this makes room when others wait
	shy          = 30 * time.Second // for this long a queue is passed over that did not answer a call
	young        = time.Second      // a batch that asked within it may not have written its deferral
	window       = 1024             // places in line that one look goes through
	callSoon     = time.Second / 20 // to a batch whose deferral is not written
	settling     = time.Second / 2  // a visit that got too few permits asks for more that often until it is so old
)

// Tasks are the queues' side of a batch.
type Tasks interface {
	// Call puts a task that waits at the head of its queue, and says what it found: called, pending, active or gone.
	Call(queue, id string) string
	// Alive reports whether somebody works on the task.
	Alive(queue, id string) bool
}

// Memory keeps limits within one process: the steps of the Redis source in plain Go, to test against and to be read beside
// the scripts. It counts nothing for reports and forgets nothing with time.
type Memory struct {
	tasks Tasks
	now   func() time.Time

	mu     sync.Mutex
	sites  map[string]*memorySite
	robots map[string]*memoryRobots // by host
	shut   map[string]time.Time     // queues that are passed over, until when
	ears   map[*func(string, time.Duration)]struct{}
	look   time.Time            // when the step under way found something to do
	told   map[string]time.Time // sites that the step under way cools
}

var _ Source = (*Memory)(nil)

// NewMemory returns limits kept in this process. A nil clock is time.Now.
func NewMemory(tasks Tasks, clock func() time.Time) *Memory {
	if clock == nil {
		clock = time.Now
	}
	return &Memory{tasks: tasks, now: clock, sites: map[string]*memorySite{}, robots: map[string]*memoryRobots{},
		shut: map[string]time.Time{}, ears: map[*func(string, time.Duration)]struct{}{}}
}

// step takes one step at a time, and tells what was cooled in it after it.
func (m *Memory) step(do func(now time.Time)) {
	m.mu.Lock()
	m.look, m.told = time.Time{}, map[string]time.Time{}
	now := m.now()
	do(now)
	told := m.told
	var ears []func(string, time.Duration)
	for ear := range m.ears {
		ears = append(ears, *ear)
	}
	m.mu.Unlock()
	for site, until := range told {
		for _, heard := range ears {
			heard(site, until.Sub(now))
		}
	}
}

func (m *Memory) site(name string) *memorySite {
	h := m.sites[name]
	if h == nil {
		h = &memorySite{m: m, name: name, visits: map[string]*stay{}, jobs: map[sharer]*share{}, since: map[sharer]time.Time{}}
		m.sites[name] = h
	}
	return h
}

func (m *Memory) robotsOf(host string) *memoryRobots {
	r := m.robots[host]
	if r == nil {
		r = &memoryRobots{}
		m.robots[host] = r
	}
	return r
}

// away is how long a time is away: at least a moment, and 0 for the zero time.
func away(at, now time.Time) time.Duration {
	if at.IsZero() {
		return 0
	}
	return max(time.Microsecond, at.Sub(now))
}

// Enter implements Source.
func (m *Memory) Enter(_ context.Context, a Ask) (answer Answer, err error) {
	a.Want, a.Limits.Burst = max(a.Want, 1), max(a.Limits.Burst, 1)
	m.step(func(now time.Time) { answer = m.site(a.site()).enter(a, now) })
	return answer, nil
}

// Lease implements Source.
func (m *Memory) Lease(_ context.Context, a Ask, n, need int) (t Times, wait time.Duration, err error) {
	m.step(func(now time.Time) {
		h := m.site(a.site())
		s := h.visits[a.Visit]
		if s == nil {
			err = fmt.Errorf("lease send times of host %s: %w", a.Host, ErrLeft)
			return
		}
		terms := h.terms(now)
		if at := h.next(terms, now); n > 0 && (at.After(now.Add(far)) || now.Sub(s.since) > life && len(h.line) > 0) {
			wait = away(at, now)
			return
		}
		if s.permits < need && !h.reserved(now) {
			s.permits += max(0, min(need-s.permits, h.roomBeside(terms)))
		}
		if now.Sub(s.since) < settling { // those before it are still leaving
			n = terms.short(s.permits, n, need)
		}
		t = h.lease(terms, s.permits, n, now)
	})
	return t, wait, err
}

// Leave implements Source. With t.Permits set, the permits that the visit had before, giving back twice does no harm.
func (m *Memory) Leave(_ context.Context, a Ask, back, unspent int, t Times, well int) (sweep time.Duration, err error) {
	m.step(func(now time.Time) {
		h := m.site(a.site())
		s := h.visits[a.Visit]
		if s == nil {
			return
		}
		h.bucket.giveBack(unspent, t.Interval, t.mark)
		if well > 0 && s.since.After(h.badAt) {
			h.heal()
		}
		if back < 0 {
			h.vacate(a.Visit)
		} else if back > 0 {
			had := t.Permits
			if had == 0 {
				had = s.permits
			}
			s.permits = min(s.permits, max(0, had-back))
		}
		h.summon(now)
		sweep = away(m.look, now)
	})
	return sweep, nil
}

// Learn implements Source.
func (m *Memory) Learn(_ context.Context, a Ask, l Lesson, pause time.Duration) (alone time.Duration, err error) {
	if l == Nothing {
		return 0, nil
	}
	m.step(func(now time.Time) {
		h := m.site(a.site())
		h.learn(l, pause, now)
		alone = max(0, h.until.Sub(now))
	})
	return alone, nil
}

// Robots implements Source.
func (m *Memory) Robots(_ context.Context, a Ask, known bool, lasts time.Duration, text string) (sweep time.Duration, err error) {
	m.step(func(now time.Time) {
		h := m.site(a.site())
		m.robotsOf(a.Host).learn(known, lasts, text, now)
		if known {
			h.calm()
		}
		if h.scout == a.Visit {
			h.scout = ""
		}
		h.summon(now)
		sweep = away(m.look, now)
	})
	return sweep, nil
}

// RobotsText implements Source.
func (m *Memory) RobotsText(_ context.Context, host string) (text string, err error) {
	m.step(func(now time.Time) {
		if r := m.robotsOf(host); now.Before(r.until) {
			text = r.text
		}
	})
	return text, nil
}

// Sweep implements Source.
func (m *Memory) Sweep(context.Context, ...Refusal) (sweep time.Duration, err error) {
	m.step(func(now time.Time) {
		var due []*memorySite
		for _, h := range m.sites {
			if !h.due.IsZero() && !h.due.After(now) {
				due = append(due, h)
			}
		}
		slices.SortFunc(due, func(a, b *memorySite) int {
			return cmp.Or(a.due.Compare(b.due), cmp.Compare(a.name, b.name))
		})
		for _, h := range due {
			h.summon(now)
		}
		sweep = away(m.look, now)
	})
	return sweep, nil
}

// Vacate implements Source. When a batch is worked again already, its new delivery ends the old visit itself.
func (m *Memory) Vacate(_ context.Context, batches []string) error {
	m.step(func(now time.Time) {
		for _, batch := range batches {
			for _, h := range m.sites {
				for visit, s := range h.visits {
					if s.batch == batch && !m.tasks.Alive(s.queue, batch) {
						h.vacate(visit)
						h.summon(now)
					}
				}
			}
		}
	})
	return nil
}

// Cooled implements Source. heard is called by whoever teaches.
func (m *Memory) Cooled(ctx context.Context, heard func(site string, pause time.Duration)) error {
	m.mu.Lock()
	m.ears[&heard] = struct{}{}
	m.mu.Unlock()
	<-ctx.Done()
	m.mu.Lock()
	delete(m.ears, &heard)
	m.mu.Unlock()
	return ctx.Err()
}
