package fetch

import (
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/names"
)

// Stats are the figures of a Fetcher's connections, counted since it was made unless they are of the moment.
type Stats struct {
	Open, Idle, Waiting int // of the moment: connections, those that no exchange uses, and dials that wait for a slot
	ProxiesOut          int // of the moment: proxies left alone because they failed

	Opened, Reused            uint64 // connections made, and exchanges that got one made before
	DialsFailed               uint64
	Handshakes, Resumed       uint64 // TLS: full ones, and those that resumed a session
	Waits                     uint64 // dials that had to wait for a slot
	WaitTime                  time.Duration
	DNSHits, DNSMisses, DNSNo uint64 // names from memory, those asked for, and those of either that are not there
}

// counts are the figures that are counted as things happen.
type counts struct {
	opened, reused, failed, full, resumed atomic.Uint64
}

// shook counts a TLS handshake.
func (c *counts) shook(resumed bool) {
	if resumed {
		c.resumed.Add(1)
		return
	}
	c.full.Add(1)
}

// waits sums how long was waited; it is under the register's lock.
type waits struct {
	n    uint64
	time time.Duration
}

func (w *waits) add(d time.Duration) {
	w.n++
	w.time += d
}

// Stats returns the figures of the moment. It looks at every connection, and is meant for every few seconds.
func (f *Fetcher) Stats() Stats {
	s := Stats{
		Opened: f.register.opened.Load(), Reused: f.register.reused.Load(), DialsFailed: f.register.failed.Load(),
		Handshakes: f.register.full.Load(), Resumed: f.register.resumed.Load(), ProxiesOut: f.proxies.Out(),
	}
	s.addNames(f.names.Stats())
	f.register.addTo(&s)
	return s
}

func (s *Stats) addNames(n names.Stats) {
	s.DNSHits, s.DNSMisses, s.DNSNo = n.Hits, n.Misses, n.Negative
}

// addTo adds what the register knows.
func (r *register) addTo(s *Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range r.hosts {
		s.Open += len(h.conns)
		for c := range h.conns {
			if c.uses == 0 {
				s.Idle++
			}
		}
	}
	s.Waiting = r.slots.queue.Len()
	s.Waits, s.WaitTime = r.waited.n, r.waited.time
}
