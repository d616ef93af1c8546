package disk

import (
	"context"
	"os"
	"sync"
	"time"
)

// Syncer makes the flushes that concurrent commits need into few. Whoever needs one joins the round being gathered;
// a round begins as soon as the one before it has ended, so that a lone commit never waits for company and many share.
// Rounds do not ask what their members are about: the first flush of one commit is the second of another.
//
// A nil *Syncer flushes nothing.
type Syncer struct {
	flush func(paths []string) error

	mu      sync.Mutex
	next    *round // being gathered
	running bool
	began   time.Time // when the last flush that succeeded began
	runs    sync.WaitGroup
}

// gather is how long a round waits for company after one that had some. Flushing without a pause took a third more wall
// time for the same pages, and longer pauses gain nothing.
const gather = 25 * time.Millisecond

// round is one flush and those who wait for it.
type round struct {
	members int
	paths   []string
	done    chan struct{}
	err     error // to be read after done
}

// NewSyncer returns a syncer whose rounds call flush.
func NewSyncer(flush func(paths []string) error) *Syncer { return &Syncer{flush: flush} }

// Barrier returns when everything that the caller had done before is durable, or with the error of the flush, which
// all members of its round get. Where flushing is by file (ByPath), paths are the files and folders to flush.
// It may return early when ctx is done.
func (s *Syncer) Barrier(ctx context.Context, paths []string) error {
	if s == nil {
		return ctx.Err()
	}
	s.mu.Lock()
	r := s.next
	if r == nil {
		r = &round{done: make(chan struct{})}
		s.next = r
	}
	r.members++
	r.paths = append(r.paths, paths...)
	if !s.running {
		s.running = true
		s.runs.Go(s.run) // ends by itself when nobody waits; close waits for it
	}
	s.mu.Unlock()
	select {
	case <-r.done:
		return r.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run flushes round after round until nobody waits.
func (s *Syncer) run() {
	for {
		s.mu.Lock()
		r := s.next
		s.next = nil
		s.running = r != nil
		s.mu.Unlock()
		if r == nil {
			return
		}
		began := time.Now()
		r.err = s.flush(r.paths)
		if r.err == nil {
			s.mu.Lock()
			s.began = began
			s.mu.Unlock()
		}
		close(r.done)
		if r.members > 1 {
			time.Sleep(gather)
		}
	}
}

// Settle returns when a file found by chance, such as another worker's account, is durable under its name.
// It costs nothing if a flush has begun since the name was made.
func (s *Syncer) Settle(ctx context.Context, fi os.FileInfo, paths ...string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	began := s.began
	s.mu.Unlock()
	// The kernel stamps files with a clock that may be one tick, at most 10 ms, behind.
	if named, ok := namedAt(fi); ok && named.Add(10*time.Millisecond).Before(began) {
		return nil
	}
	return s.Barrier(ctx, paths)
}

// Close waits for the flush that is running.
func (s *Syncer) Close() {
	if s != nil {
		s.runs.Wait()
	}
}
