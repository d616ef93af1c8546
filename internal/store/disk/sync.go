package disk

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"
)

// Syncer makes the flushes that concurrent commits need into few. Whoever needs one joins the round being gathered;
// a round begins as soon as the one before it has ended, so that a lone commit never waits for company and many share.
// Rounds do not ask what their members are about: the first flush of one commit is the second of another.
//
// A flush that fails is never made good by the next one: the kernel tells of a write that failed once and then takes the
// pages for clean, so the next flush succeeds although they are lost. Whatever was written before a failed flush ended and
// was not flushed before is therefore not trusted any more, whatever the error was; it must be written again. Barrier, Settle
// and Trusts hold callers to that.
//
// A nil *Syncer flushes nothing.
type Syncer struct {
	flush  func(paths []string) error
	opened time.Time

	mu      sync.Mutex
	next    *round // being gathered
	running bool
	began   time.Time // when the last flush that succeeded began
	failed  Mark      // flushes that failed so far
	lost    time.Time // when the last of them ended
	runs    sync.WaitGroup
}

// Mark tells what was written after a failed flush from what was written before it.
type Mark int

// ErrLost says that a flush has failed since something was written, so that it may not be on the disk although a later flush
// succeeds.
var ErrLost = errors.New("an earlier flush failed: what was written before it may be lost and has to be written again")

// gather is how long a round waits for company after one that had some. Flushing without a pause took a third more wall
// time for the same pages, and longer pauses gain nothing.
const gather = 25 * time.Millisecond

// round is one flush and those who wait for it.
type round struct {
	members int
	paths   []string
	done    chan struct{}
	err     error // to be read after done, as is failed
	failed  Mark  // flushes that had failed when this one ended
}

// NewSyncer returns a syncer whose rounds call flush.
func NewSyncer(flush func(paths []string) error) *Syncer {
	return &Syncer{flush: flush, opened: time.Now()}
}

// Mark returns the mark of what is written from now on.
func (s *Syncer) Mark() Mark {
	if s == nil {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.failed
}

// Barrier returns when everything that the caller has done since it took a mark is durable, or with the error of the flush,
// which all members of its round get, or with ErrLost, then and for ever, if one has failed since the mark. Where flushing is
// by file (ByPath), paths are the files and folders to flush. It may return early when ctx is done.
func (s *Syncer) Barrier(ctx context.Context, since Mark, paths []string) error {
	if s == nil {
		return ctx.Err()
	}
	s.mu.Lock()
	if s.failed != since {
		s.mu.Unlock()
		return ErrLost
	}
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
		if r.err == nil && r.failed != since { // in the round before, in which the kernel may have begun with the caller's pages
			return ErrLost
		}
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
		s.mu.Lock()
		if r.err == nil {
			s.began = began
		} else {
			s.failed++
			s.lost = time.Now()
		}
		r.failed = s.failed
		s.mu.Unlock()
		close(r.done)
		if r.members > 1 {
			time.Sleep(gather)
		}
	}
}

// Settle returns when a file found by chance, such as another worker's account, is durable under its name, or with ErrLost
// if it is older than a flush that failed: see Folder.Renew. It costs nothing if a flush has begun since the name was made.
func (s *Syncer) Settle(ctx context.Context, fi os.FileInfo, paths ...string) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	began, failed, lost := s.began, s.failed, s.lost
	s.mu.Unlock()
	if !fi.ModTime().After(lost) {
		return ErrLost
	}
	// The kernel stamps files with a clock that may be one tick, at most 10 ms, behind.
	if named, ok := namedAt(fi); ok && named.Add(10*time.Millisecond).Before(began) {
		return nil
	}
	return s.Barrier(ctx, failed, paths)
}

// Trusts reports whether the next flush makes a file found by chance durable, whoever wrote it. That is not so where the file
// is older than a flush that failed, or than s: those who wrote before s was there may have been told of a failure, and it
// is told once.
func (s *Syncer) Trusts(fi os.FileInfo) bool {
	if s == nil {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	// The kernel's stamps are never ahead of the clock.
	return fi.ModTime().After(s.opened) && fi.ModTime().After(s.lost)
}

// Close waits for the flush that is running.
func (s *Syncer) Close() {
	if s != nil {
		s.runs.Wait()
	}
}
