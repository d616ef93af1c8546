package worker

import (
	"container/heap"
	"context"
	"sync"
)

// slots bounds requests in flight over all visits. A free slot goes to the oldest visit that waits: batches then finish
// one after another instead of all at once, and few units are open at any time.
type slots struct {
	mu      sync.Mutex
	free    int
	size    int
	waiting slotQueue
}

// slotWaiter is one request that waits for a slot.
type slotWaiter struct {
	visit   uint64 // the lower, the older
	granted chan struct{}
	index   int // in the queue, -1 once out of it
}

func newSlots(n int) *slots { return &slots{free: n, size: n} }

// acquire takes a slot for a visit. It reports false when ctx ended first; then no slot is held.
func (s *slots) acquire(ctx context.Context, visit uint64) bool {
	s.mu.Lock()
	if s.free > 0 && ctx.Err() == nil {
		s.free--
		s.mu.Unlock()
		return true
	}
	w := &slotWaiter{visit: visit, granted: make(chan struct{})}
	heap.Push(&s.waiting, w)
	s.mu.Unlock()
	select {
	case <-w.granted:
		return true
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.index < 0 { // granted at the same moment: pass it on
		s.pass()
		return false
	}
	heap.Remove(&s.waiting, w.index)
	return false
}

// release gives a slot back.
func (s *slots) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pass()
}

// pass hands a slot to the oldest visit that waits, or keeps it as free.
func (s *slots) pass() {
	if len(s.waiting) == 0 {
		s.free++
		return
	}
	close(heap.Pop(&s.waiting).(*slotWaiter).granted)
}

// inUse is how many slots are taken.
func (s *slots) inUse() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.size - s.free
}

// slotQueue is a heap of waiters, oldest visit first.
type slotQueue []*slotWaiter

// Len is for container/heap.
func (q slotQueue) Len() int { return len(q) }

// Less is for container/heap: the oldest visit comes first.
func (q slotQueue) Less(i, j int) bool { return q[i].visit < q[j].visit }

// Swap is for container/heap, and keeps the indexes true.
func (q slotQueue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].index, q[j].index = i, j
}

// Push is for container/heap.
func (q *slotQueue) Push(x any) {
	w := x.(*slotWaiter)
	w.index = len(*q)
	*q = append(*q, w)
}

// Pop is for container/heap.
func (q *slotQueue) Pop() any {
	old := *q
	w := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	w.index = -1
	return w
}
