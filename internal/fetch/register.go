package fetch

import (
	"net"
	"sync"
	"time"
)

// register knows the open connections by where they lead, and which of them are in use, so that the idle ones of one host
// can be closed: net/http's pool can only be emptied as a whole.
//
// A connection moves through three states:
//
//	new ──gotConn──▶ in use (uses > 0) ──the last exchange ends──▶ idle (uses = 0) ──gotConn──▶ in use
//	  └──closeIdle, nobody waiting──▶ doomed ◀──closeIdle──┘
//
// A doomed one is about to be closed. net/http's pool may still hand it out until it notices; the exchange that gets it
// learns so before it has written a byte, and is made again. One in use is never doomed: both are decided under one lock.
// New ones belong to the exchanges that wait for a connection there, as long as there are any; otherwise closing often
// enough could keep a host from ever being reached.
type register struct {
	counts

	mu     sync.Mutex
	hosts  map[place]*hostConns
	slots  slots
	waited waits
}

// place is where connections lead: one address as dialled, host:port, in one scheme.
type place struct {
	tls  bool
	addr string
}

// hostConns are the connections to one place. It is registered as long as it has connections or somebody waits for one.
type hostConns struct {
	place   place
	conns   map[*conn]struct{}
	waiting int // exchanges between net/http's GetConn and GotConn
	slots   int // connections and dials that count against the limits
	queued  int // dials that wait for a slot
}

func newRegister(l limits) *register {
	return &register{hosts: map[place]*hostConns{}, slots: slots{limits: l}}
}

// at returns the connections of p; r.mu is held.
func (r *register) at(p place) *hostConns {
	h := r.hosts[p]
	if h == nil {
		h = &hostConns{place: p, conns: map[*conn]struct{}{}}
		r.hosts[p] = h
	}
	return h
}

// tidy forgets h when there is nothing to know about it; r.mu is held.
func (r *register) tidy(h *hostConns) {
	if len(h.conns) == 0 && h.waiting == 0 && h.slots == 0 && h.queued == 0 {
		delete(r.hosts, h.place)
	}
}

// add registers a new connection; outer is what net/http holds: c, or TLS above it.
func (r *register) add(c *conn, p place, outer net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened.Add(1)
	c.outer, c.fresh, c.home, c.born = outer, true, r.at(p), time.Now()
	c.home.conns[c] = struct{}{}
}

// remove forgets a connection that is closed. It may be called again, and for one that was never added.
func (r *register) remove(c *conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free(c.slot)
	c.slot = nil
	if c.home == nil {
		return
	}
	delete(c.home.conns, c)
	r.tidy(c.home)
	c.home = nil
	c.settle()
}

// settle lets those go who wait for what becomes of a new connection; the register's lock is held.
func (c *conn) settle() {
	if c.lead != nil {
		time.AfterFunc(leadGrace, c.lead.end)
		c.lead = nil
	}
}

// wait notes that x is about to get a connection at p, and that it uses the one it had no longer. surplus, if not nil, is
// for the caller to close.
func (r *register) wait(x *exchange, p place) (surplus net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if x.done.Load() {
		return nil
	}
	surplus = r.drop(x)
	x.waitsAt = r.at(p)
	x.waitsAt.waiting++
	return surplus
}

// take notes that x has got c, nil for one that is not ours, and reports whether it may use it.
func (r *register) take(x *exchange, c *conn) (usable bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c != nil && c.uses == 0 && !c.fresh && r.outlived(c) {
		c.doomed = true
	}
	if c != nil && c.doomed {
		r.drop(x)
		return false
	}
	if c != nil && !x.done.Load() {
		if !c.fresh {
			r.reused.Add(1)
		}
		c.uses++
		c.served++
		c.fresh = false
		c.settle()
		r.drop(x)
		x.holds = c
		return true
	}
	r.drop(x)
	return true
}

// leave notes that x uses and waits for nothing any more; x.done is set. surplus, if not nil, is for the caller to close.
func (r *register) leave(x *exchange) (surplus net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.drop(x)
}

// drop ends what x held and waited for, and returns a connection that is to be closed now, nil if there is none; r.mu is
// held. In take x holds nothing.
func (r *register) drop(x *exchange) (surplus net.Conn) {
	if x.holds != nil {
		if x.holds.uses--; x.holds.uses == 0 {
			surplus = r.rested(x.holds)
		}
		x.holds = nil
	}
	if x.queued != nil {
		r.dequeue(x.queued)
		x.queued = nil
	}
	if x.waitsAt != nil {
		x.waitsAt.waiting--
		r.tidy(x.waitsAt)
		x.waitsAt = nil
	}
	return surplus
}

// retire dooms c if it has served no more exchanges than so many and none uses it; -1 is any number. It returns how many it
// has served, and whether it is to be closed.
func (r *register) retire(c *conn, served int) (now int, idle bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if c.uses == 0 && (served < 0 || c.served == served) {
		c.doomed = true
	}
	return c.served, c.doomed
}

// doom marks the idle connections to p and returns what to close.
func (r *register) doom(p place) []net.Conn {
	r.mu.Lock()
	defer r.mu.Unlock()
	h := r.hosts[p]
	if h == nil {
		return nil
	}
	var idle []net.Conn
	for c := range h.conns {
		if c.uses == 0 && !c.doomed && (!c.fresh || h.waiting == 0) {
			c.doomed = true
			idle = append(idle, c.outer)
		}
	}
	return idle
}

// CloseIdle closes the connections to host that no exchange uses, of http and of https. host is spelt as in canonical URLs
// (canon.URL's Host): without a port it means those of both schemes, with one also both, except that 80 and 443 are then the
// other scheme's. Connections of other hosts, and those in use, stay open; so does one that is only being made, and a
// connection to a proxy that forwards requests of http URLs, which is the proxy's own. A tunnel through a proxy leads to host
// and is closed.
//
// It may be called at any time and disturbs no exchange: one that was just picking up a connection that is closed here gets
// another.
func (f *Fetcher) CloseIdle(host string) {
	for _, p := range places(host) {
		for _, c := range f.register.doom(p) {
			c.Close() // nobody is there to whom its error would matter
		}
	}
}

// places are where exchanges with host are dialled.
func places(host string) []place {
	name, port, err := net.SplitHostPort(host)
	switch {
	case err != nil: // no port; IPv6 keeps its brackets
		return []place{{false, host + ":80"}, {true, host + ":443"}}
	case port == "80":
		return []place{{true, net.JoinHostPort(name, port)}}
	case port == "443":
		return []place{{false, net.JoinHostPort(name, port)}}
	}
	addr := net.JoinHostPort(name, port)
	return []place{{false, addr}, {true, addr}}
}
