package disk

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func TestFlushesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan error)
		flushes := 0
		s := &Syncer{flush: func([]string) error { flushes++; return <-disk }}
		results := make(chan error, 11)
		go func() { results <- s.Barrier(t.Context(), nil) }()
		synctest.Wait() // the lone one is being flushed: it did not wait for company
		if flushes != 1 {
			t.Fatalf("%d flushes for a lone caller, want 1", flushes)
		}
		for range 10 {
			go func() { results <- s.Barrier(t.Context(), nil) }()
		}
		synctest.Wait()
		if flushes != 1 {
			t.Fatalf("%d flushes while the first runs, want 1", flushes)
		}
		disk <- nil
		if err := <-results; err != nil {
			t.Errorf("the first Barrier: %v", err)
		}
		bad := errors.New("bad disk")
		disk <- bad
		for range 10 {
			if err := <-results; err != bad {
				t.Errorf("a member of the failed round got %v", err)
			}
		}
		if flushes != 2 {
			t.Errorf("%d flushes for eleven callers, want 2", flushes)
		}
		s.Close()
	})
}

func TestBarrierEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan error)
		s := &Syncer{flush: func([]string) error { return <-disk }}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- s.Barrier(ctx, nil) }()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("Barrier = %v, want context.Canceled", err)
		}
		disk <- nil
		s.Close()
	})
}

func TestACrowdIsGathered(t *testing.T) {
	tests := map[string]struct {
		every         time.Duration // a commit comes
		least, most   int           // flushes for a hundred
		longestWait   time.Duration
		flushDuration time.Duration
	}{
		"lone commits never wait":         {every: 10 * time.Millisecond, flushDuration: 5 * time.Millisecond, least: 100, most: 100, longestWait: 5 * time.Millisecond},
		"many share few flushes":          {every: time.Millisecond, flushDuration: 5 * time.Millisecond, least: 2, most: 6, longestWait: 2*gather + 10*time.Millisecond},
		"a slow disk gathers a crowd too": {every: 10 * time.Millisecond, flushDuration: 100 * time.Millisecond, least: 5, most: 11, longestWait: 2*gather + 200*time.Millisecond},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				flushes := 0
				s := &Syncer{flush: func([]string) error { flushes++; time.Sleep(tt.flushDuration); return nil }}
				var commits sync.WaitGroup
				for i := range 100 {
					commits.Go(func() {
						time.Sleep(time.Duration(i) * tt.every)
						began := time.Now()
						if err := s.Barrier(t.Context(), nil); err != nil {
							t.Error(err)
						}
						if waited := time.Since(began); waited > tt.longestWait {
							t.Errorf("commit %d waited %v, want at most %v", i, waited, tt.longestWait)
						}
					})
				}
				commits.Wait()
				s.Close()
				if flushes < tt.least || flushes > tt.most {
					t.Errorf("%d flushes, want %d to %d", flushes, tt.least, tt.most)
				}
			})
		})
	}
}
