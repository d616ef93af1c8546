package pgstore

import (
	"context"
	"errors"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

const (
	maxLanes   = 2       // transactions at the same time, at most; with more each is smaller, and on two cores slower
	groupUnits = 64      // units in one of them, at most
	groupBytes = 4 << 20 // bytes in one of them, about
)

// request is one unit waiting for its commit.
type request struct {
	unit    *unit // its mu is held by the goroutine that waits
	given   *store.Account
	account string

	done   chan struct{} // closed when the rest is there
	winner *store.Account
	won    bool
	err    error
}

func (r *request) size() int { return len(r.unit.records) + len(r.unit.bodies) + len(r.account) }

// committer commits the units that come together in one transaction: while as many as lanes are under way, others
// gather. One that comes alone goes at once.
type committer struct {
	s       *Store
	lanes   int
	running sync.WaitGroup // of lanes; Close waits for them

	mu    sync.Mutex
	queue []*request
	busy  int // lanes under way
}

// do commits one unit with others. An error is of ctx, and says that nothing was begun, or of the store being closed.
func (c *committer) do(ctx context.Context, r *request) error {
	if err := c.join(r); err != nil {
		return err
	}
	select {
	case <-r.done:
		return nil
	case <-ctx.Done():
	}
	if c.leave(r) {
		return ctx.Err()
	}
	<-r.done
	return nil
}

func (c *committer) join(r *request) error {
	c.s.mu.Lock() // so that Close sees either the lane or nothing of it
	defer c.s.mu.Unlock()
	if c.s.closed {
		return errClosed
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, r)
	if c.busy < c.lanes {
		c.busy++
		c.running.Go(c.lane)
	}
	return nil
}

// leave takes a request back that nobody has begun.
func (c *committer) leave(r *request) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.queue {
		if c.queue[i] == r {
			c.queue = append(c.queue[:i], c.queue[i+1:]...)
			return true
		}
	}
	return false
}

// lane commits group after group until nobody waits.
func (c *committer) lane() {
	for {
		group := c.next()
		if len(group) == 0 {
			return
		}
		c.commit(group)
		for _, r := range group {
			close(r.done)
		}
	}
}

// next takes what waits, up to the limits of one transaction.
func (c *committer) next() []*request {
	c.mu.Lock()
	defer c.mu.Unlock()
	n, size := 0, 0
	for n < min(len(c.queue), groupUnits) && (n == 0 || size+c.queue[n].size() <= groupBytes) {
		size += c.queue[n].size()
		n++
	}
	group := append([]*request(nil), c.queue[:n]...)
	c.queue = append(c.queue[:0], c.queue[n:]...)
	if n == 0 {
		c.busy--
	}
	return group
}

// commit commits a group and, if the server refuses what one of them has, each of them alone.
func (c *committer) commit(group []*request) {
	err := c.try(group)
	if err == nil {
		return
	}
	for _, r := range group {
		if len(group) > 1 && isOurs(err) {
			r.err = nil
			if err := c.try([]*request{r}); err != nil { // a unit that was swept has its error already
				r.err = err
			}
			continue
		}
		if r.err == nil || !errors.Is(r.err, errSwept) {
			r.err = err
		}
	}
}

func (c *committer) try(group []*request) error {
	ctx, cancel := context.WithTimeout(context.Background(), commitLimit)
	defer cancel()
	return c.s.commitAll(ctx, append([]*request(nil), group...))
}
