package worker

import (
	"context"
	"sync"
	"time"
)

// rampStep is how long a visit waits for one of its requests to end before it puts another beside them. A host that
// answers faster is served over the few connections that suffice for it, instead of one for every request of the batch;
// a slow one has up to 200 requests more in flight after each second.
const rampStep = 5 * time.Millisecond

// crew runs the requests of one visit on as few goroutines as the host's answers allow. It is used by one goroutine:
// for each request ready, then do; at the end wait.
type crew struct {
	work  chan func()
	idle  chan struct{} // a token for each hand that waits for work
	hands sync.WaitGroup
	size  int
	taken bool // a token was taken for the next do
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
	if c.timer == nil {
		c.timer = time.NewTimer(rampStep)
	} else {
		c.timer.Reset(rampStep)
	}
	defer c.timer.Stop()
	select {
	case <-c.idle:
		c.taken = true
	case <-c.timer.C:
	case <-ctx.Done():
		return false
	}
	return true
}

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
