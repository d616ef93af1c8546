package worker

import (
	"context"
	"sync"
	"time"
)

// rampStep is how long a visit waits for one of its requests to end before it puts another beside them. A host that
// answers faster is served over the few connections that suffice for it, instead of one for every request of the batch.
// As long as nothing ends, twice as many as before follow after each slowStep: a batch of 32 is in flight within 13 ms.
const (
	rampStep = 5 * time.Millisecond
	slowStep = 2 * time.Millisecond
)

// crew runs the requests of one visit on as few goroutines as the host's answers allow. It is used by one goroutine:
// for each request ready, then do; at the end wait.
type crew struct {
	work  chan func()
	idle  chan struct{} // a token for each hand that waits for work
	hands sync.WaitGroup
	size  int
	taken bool // a token was taken for the next do
	burst int  // hands that the last step without an end has added, 0 after an end
	free  int  // of them, those that have not begun
	timer *time.Timer
}

// newCrew returns the crew for so many requests.
func newCrew(requests int) *crew {
	return &crew{work: make(chan func(), requests), idle: make(chan struct{}, requests)}
}

// ready waits until another request may begin. It reports false when ctx ended first.
func (c *crew) ready(ctx context.Context) bool {
	if c.size == 0 {
		return ctx.Err() == nil
	}
	select {
	case <-c.idle:
		c.ended()
		return ctx.Err() == nil
	default:
	}
	if c.free > 0 {
		c.free--
		return ctx.Err() == nil
	}
	step := rampStep
	if c.burst > 0 {
		step = slowStep
	}
	if c.timer == nil {
		c.timer = time.NewTimer(step)
	} else {
		c.timer.Reset(step)
	}
	defer c.timer.Stop()
	select {
	case <-c.idle:
		c.ended()
	case <-c.timer.C:
		c.burst = max(1, 2*c.burst)
		c.free = c.burst - 1
	case <-ctx.Done():
		return false
	}
	return true
}

// ended takes the hand of a request that has ended.
func (c *crew) ended() { c.taken, c.burst, c.free = true, 0, 0 }

// do runs a request, on a hand that is free or on a new one.
func (c *crew) do(request func()) {
	if c.taken {
		c.taken = false
		c.work <- request
		return
	}
	c.size++
	c.hands.Go(func() {
		request()
		c.idle <- struct{}{}
		for next := range c.work {
			next()
			c.idle <- struct{}{}
		}
	})
}

// wait lets the requests end. Nothing may be done after it.
func (c *crew) wait() {
	close(c.work)
	c.hands.Wait()
}
