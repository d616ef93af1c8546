package fetch

import (
	"context"
	"errors"
	"sync"
	"time"
)

// gate keeps requests that arrive together from each dialling a connection where one of HTTP/2 will serve them all.
// net/http dials for every request that finds no connection, and learns only afterwards that the first one can be shared.
//
// To a place that is not known to speak HTTP/1.1 one dial goes alone; the others wait for what it negotiates. Was it
// HTTP/2, they end in errNeedless: net/http has meanwhile given the connection to their requests, or does when roundTrip
// repeats them. Was it HTTP/1.1, or did it fail, they go ahead side by side. The same goes for the second connection, when
// the server allows no more streams on the first (RFC 9113, section 5.1.2).
//
// The nil gate lets everything pass.
type gate struct {
	mu    sync.Mutex
	doors map[place]*door
}

// door is what is known of one place.
type door struct {
	http1 bool  // its last connection spoke HTTP/1.1
	lead  *lead // the dial that goes alone, if one does
}

// lead is a dial that goes alone, until its connection is in use: then net/http's pool has it, too.
type lead struct {
	gate   *gate
	place  place
	ended  chan struct{}
	shared bool // it came to HTTP/2; written before ended is closed
}

const (
	// leadTime is how long others wait for a dial that goes alone. A handshake takes less, but for lost packets.
	leadTime = 3 * time.Second
	// leadGrace passes between the first use of a connection and the end of its lead: net/http gives it to its first request
	// before it puts it where the others find it. Those whom it serves do not wait for this.
	leadGrace = 5 * time.Millisecond
	// maxDoors is how many places are remembered; forgetting one costs a wait for a handshake.
	maxDoors = 4096
	// maxNeedless is how often a request waits for others' dials before it has one of its own. With 100 streams to a
	// connection, as many as there are should serve 6,400 requests at once.
	maxNeedless = 64
)

// errNeedless ends a dial whose request is served by another's connection. Nothing was sent.
var errNeedless = errors.New("another dial has come to a connection that can be shared")

// pushy marks the context of a request that waits for nobody's dial.
type pushy struct{}

func newGate(l lane) *gate {
	if l.version == HTTP1 {
		return nil
	}
	return &gate{doors: map[place]*door{}}
}

// enter waits for its turn to dial p, for no longer than the dial itself may take. The lead is nil for a dial that does not
// go alone.
func (g *gate) enter(ctx context.Context, p place, most time.Duration) (*lead, error) {
	if g == nil || ctx.Value(pushy{}) != nil {
		return nil, nil
	}
	g.mu.Lock()
	d := g.door(p)
	first := d.lead
	if first == nil && !d.http1 {
		d.lead = &lead{gate: g, place: p, ended: make(chan struct{})}
		defer g.mu.Unlock()
		return d.lead, nil
	}
	g.mu.Unlock()
	if first != nil && first.wait(ctx, min(leadTime, most)) {
		return nil, errNeedless
	}
	return nil, nil
}

// wait reports whether the lead has come to a connection that serves others as well.
func (l *lead) wait(ctx context.Context, most time.Duration) bool {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-l.ended:
		return l.shared
	case <-ctx.Done():
	case <-timer.C:
	}
	return false
}

// door returns what is known of p, g.mu is held.
func (g *gate) door(p place) *door {
	d := g.doors[p]
	if d != nil {
		return d
	}
	for old, d := range g.doors {
		if len(g.doors) < maxDoors {
			break
		}
		if d.lead == nil {
			delete(g.doors, old)
		}
	}
	d = &door{}
	g.doors[p] = d
	return d
}

// connected notes what a dial to c.place came to. Where others wait for a connection that can be shared, they go on waiting
// until it is in use or closed: then the register calls l.end.
func (g *gate) connected(c *conn, p place, l *lead, http2 bool) {
	if g == nil {
		return
	}
	g.mu.Lock()
	g.door(p).http1 = !http2
	g.mu.Unlock()
	switch {
	case l == nil:
	case http2:
		l.shared = true
		c.lead = l
	default:
		l.end()
	}
}

// end lets the others go. The nil lead has none.
func (l *lead) end() {
	if l == nil {
		return
	}
	l.gate.mu.Lock()
	defer l.gate.mu.Unlock()
	if d := l.gate.doors[l.place]; d != nil && d.lead == l {
		d.lead = nil
	}
	close(l.ended)
}
