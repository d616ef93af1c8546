package fetch

import (
	"container/list"
	"context"
	"errors"
	"net"
	"time"
)

// limits are how many connections there may be. The register keeps them, because it knows which could be closed.
//
// net/http's own MaxConnsPerHost is not used: with HTTP/2 it counts connections that are shared as if each request had one,
// and can leave requests waiting for ever (golang/go #34941). Here a dial waits for its slot, and a request that gets a
// connection that has come free, or an HTTP/2 connection with others, lets go of the dial made for it.
type limits struct {
	conns, perHost int           // 0 means no limit
	waiting        int           // dials that may wait for a slot; 0 means no limit
	lifetime       time.Duration // 0 means no limit
}

// slots are the state of limits, under the register's lock.
type slots struct {
	limits
	taken int
	queue list.List // of *slotWaiter, the first to have come first
}

// slotWaiter is a dial that waits for a slot.
type slotWaiter struct {
	home  *hostConns
	place *list.Element // nil once it waits no longer
	ready chan struct{} // closed when it does not
	ok    bool          // it has a slot
}

// errNotNeeded ends a dial whose exchange has got another connection meanwhile. Nobody sees it.
var errNotNeeded = errors.New("the connection is not needed any more")

func (r *register) limited() bool { return r.slots.conns > 0 || r.slots.perHost > 0 }

// room reports whether a connection more may be made to h; r.mu is held.
func (r *register) room(h *hostConns) bool {
	return (r.slots.conns == 0 || r.slots.taken < r.slots.conns) && (r.slots.perHost == 0 || h.slots < r.slots.perHost)
}

// claim takes a slot for a connection to p that x needs; nil means that nobody in particular does. It waits for timeout
// at most. The slot, nil when there are no limits, must be given back with vacate, or by closing the connection that has it.
func (r *register) claim(ctx context.Context, p place, x *exchange, timeout time.Duration) (*hostConns, error) {
	if !r.limited() {
		return nil, nil
	}
	r.mu.Lock()
	h := r.at(p)
	if r.room(h) {
		r.occupy(h)
		r.mu.Unlock()
		return h, nil
	}
	w, surplus, err := r.enqueue(h, x)
	r.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if surplus != nil {
		_ = surplus.Close() // which frees its slot
	}
	return r.await(ctx, w, timeout)
}

func (r *register) occupy(h *hostConns) {
	r.slots.taken++
	h.slots++
}

// enqueue has a dial wait for a slot. surplus is an idle connection of whatever host whose slot it may have, nil if there is
// none; r.mu is held.
func (r *register) enqueue(h *hostConns, x *exchange) (w *slotWaiter, surplus net.Conn, err error) {
	if x != nil && x.waitsAt == nil {
		r.tidy(h)
		return nil, nil, errNotNeeded
	}
	if r.slots.waiting > 0 && r.slots.queue.Len() >= r.slots.waiting {
		r.tidy(h)
		return nil, nil, fail(PoolTimeout, "dial", "%d requests wait for a connection already, as many as --max-waiting allows", r.slots.waiting)
	}
	w = &slotWaiter{home: h, ready: make(chan struct{})}
	w.place = r.slots.queue.PushBack(w)
	h.queued++
	if x != nil {
		x.queued = w
	}
	if r.slots.perHost == 0 || h.slots < r.slots.perHost {
		surplus = r.surplus()
	}
	return w, surplus, nil
}

// await waits until w has a slot, is not needed, or has waited long enough.
func (r *register) await(ctx context.Context, w *slotWaiter, timeout time.Duration) (*hostConns, error) {
	began := time.Now()
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	select {
	case <-w.ready:
	case <-timer.C:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waited.add(time.Since(began))
	if w.ok {
		return w.home, nil
	}
	if w.place == nil {
		return nil, errNotNeeded
	}
	r.dequeue(w)
	return nil, fail(PoolTimeout, "dial", "no connection came free within %v: --max-conns and --max-conns-per-host limit them", timeout)
}

// dequeue ends w's wait; r.mu is held.
func (r *register) dequeue(w *slotWaiter) {
	if w.place == nil {
		return
	}
	r.slots.queue.Remove(w.place)
	w.place = nil
	w.home.queued--
	r.tidy(w.home)
	close(w.ready)
}

// vacate gives a slot back, to the first that waits for one and may have it.
func (r *register) vacate(h *hostConns) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.free(h)
}

// free is vacate; r.mu is held.
func (r *register) free(h *hostConns) {
	if h == nil {
		return
	}
	r.slots.taken--
	h.slots--
	for e := r.slots.queue.Front(); e != nil; e = e.Next() {
		if w := e.Value.(*slotWaiter); r.room(w.home) {
			r.occupy(w.home)
			w.ok = true
			r.dequeue(w)
			break
		}
	}
	r.tidy(h)
}

// surplus dooms the connection that has been idle the longest and returns what to close, nil if all are in use; r.mu is held.
func (r *register) surplus() net.Conn {
	var oldest *conn
	for _, h := range r.hosts {
		for c := range h.conns {
			if c.slot != nil && c.uses == 0 && !c.doomed && (!c.fresh || h.waiting == 0) && (oldest == nil || c.idleSince.Before(oldest.idleSince)) {
				oldest = c
			}
		}
	}
	if oldest == nil {
		return nil
	}
	oldest.doomed = true
	return oldest.outer
}

// rested notes that c has become idle, and returns it when it is to be closed: because it is too old, or because others wait
// for its slot while nobody does for a connection to its host. r.mu is held.
func (r *register) rested(c *conn) net.Conn {
	c.idleSince = time.Now()
	if c.home == nil || c.doomed {
		return nil
	}
	wanted := c.slot != nil && r.slots.conns > 0 && r.slots.queue.Len() > 0 && c.home.waiting == 0
	if !wanted && !r.outlived(c) {
		return nil
	}
	c.doomed = true
	return c.outer
}

func (r *register) outlived(c *conn) bool {
	return r.slots.lifetime > 0 && time.Since(c.born) > r.slots.lifetime
}
