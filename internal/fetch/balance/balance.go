// Package balance spreads connections over the endpoints of one service and leaves alone those that failed lately.
//
// It dials nothing: it says in which order to try, and is told what came of it.
package balance

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"sync"
	"time"
)

// Cooldown is how long an endpoint that could not be reached is left alone while there are others.
const Cooldown = 10 * time.Second

// Endpoint is where a service can be had.
type Endpoint struct {
	Host     string // an address or a name; or whatever else tells endpoints apart
	Port     uint16 // 0 means the one that was asked for
	Priority uint16 // the lowest are tried first (RFC 2782)
	Weight   uint16 // the share among those of one priority (RFC 2782)
}

// Set are the endpoints of one service. It is safe for concurrent use; the zero value is empty.
type Set struct {
	// Now is the clock; nil means time.Now. It must not change once the Set is in use.
	Now func() time.Time

	mu      sync.Mutex
	members []*Member
	turn    uint64
}

// Member is an endpoint and what is known of it.
type Member struct {
	Endpoint // Host and Port never change; the rest only under the set's lock
	set      *Set

	// Under the set's lock.
	inUse     int
	turn      uint64 // when it was chosen last
	coolUntil time.Time
}

func (s *Set) now() time.Time {
	if s.Now == nil {
		return time.Now()
	}
	return s.Now()
}

// Update replaces the endpoints. What is known of those that stay is kept; the rest are no longer chosen.
func (s *Set) Update(endpoints []Endpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := map[Endpoint]*Member{}
	for _, m := range s.members {
		known[Endpoint{Host: m.Host, Port: m.Port}] = m
	}
	s.members = make([]*Member, 0, len(endpoints))
	for _, e := range endpoints {
		key := Endpoint{Host: e.Host, Port: e.Port}
		m := known[key]
		if m == nil {
			m = &Member{Endpoint: e, set: s}
			known[key] = m
		} else if slices.Contains(s.members, m) { // named twice
			continue
		}
		m.Priority, m.Weight = e.Priority, e.Weight
		s.members = append(s.members, m)
	}
	rand.Shuffle(len(s.members), func(i, j int) { s.members[i], s.members[j] = s.members[j], s.members[i] })
}

// rank is what members are ordered by.
type rank struct {
	member *Member
	cool   bool
	share  float64
	turn   uint64
}

// Order returns the endpoints in the order in which to try them, and counts the first as chosen. Those that failed lately
// come last. Among the others priority decides, and within one the number in use, and then whose turn it is; where weights
// differ the choice is random in their proportion, as RFC 2782 asks, which spreads the first connections of many workers, too.
func (s *Set) Order() []*Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.members) == 0 {
		return nil
	}
	now, weighted := s.now(), s.weighted()
	ranks := make([]rank, len(s.members))
	for i, m := range s.members {
		ranks[i] = rank{member: m, cool: now.Before(m.coolUntil), share: float64(m.inUse), turn: m.turn}
		if weighted {
			// Of independent exponential times, each divided by its weight, any one is the shortest in proportion to its weight.
			ranks[i].share = (float64(m.inUse) + rand.ExpFloat64()) / max(float64(m.Weight), leastWeight)
		}
	}
	slices.SortStableFunc(ranks, compare)
	order := make([]*Member, len(ranks))
	for i, r := range ranks {
		order[i] = r.member
	}
	s.turn++
	order[0].turn = s.turn
	return order
}

// leastWeight stands for a weight of 0, which is to have a very small chance (RFC 2782).
const leastWeight = 1e-3

func compare(a, b rank) int {
	if a.cool != b.cool {
		if a.cool {
			return 1
		}
		return -1
	}
	return cmp.Or(cmp.Compare(a.member.Priority, b.member.Priority), cmp.Compare(a.share, b.share), cmp.Compare(a.turn, b.turn))
}

func (s *Set) weighted() bool {
	return slices.ContainsFunc(s.members, func(m *Member) bool { return m.Weight != s.members[0].Weight })
}

// Down returns how many endpoints are left alone at the moment.
func (s *Set) Down() (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	for _, m := range s.members {
		if now.Before(m.coolUntil) {
			n++
		}
	}
	return n
}

// Use counts a connection to m, which could be reached, until release is called. It may be called again.
func (m *Member) Use() (release func()) {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	m.inUse++
	m.coolUntil = time.Time{}
	return sync.OnceFunc(func() {
		m.set.mu.Lock()
		defer m.set.mu.Unlock()
		m.inUse--
	})
}

// Failed leaves m alone for Cooldown.
func (m *Member) Failed() {
	m.set.mu.Lock()
	defer m.set.mu.Unlock()
	m.coolUntil = m.set.now().Add(Cooldown)
}
