package disk

import (
	"context"
	"errors"
	"os"
	"path/filepath"
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
		go func() { results <- s.Barrier(t.Context(), 0, nil) }()
		synctest.Wait() // the lone one is being flushed: it did not wait for company
		if flushes != 1 {
			t.Fatalf("%d flushes for a lone caller, want 1", flushes)
		}
		for range 10 {
			go func() { results <- s.Barrier(t.Context(), 0, nil) }()
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
		go func() { result <- s.Barrier(ctx, 0, nil) }()
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
						if err := s.Barrier(t.Context(), 0, nil); err != nil {
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

func TestAFailedFlushIsNotForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan error)
		s := NewSyncer(func([]string) error { return <-disk })
		before := s.Mark()
		results := make(chan error, 2)
		go func() { results <- s.Barrier(t.Context(), before, nil) }()
		synctest.Wait()
		go func() { results <- s.Barrier(t.Context(), before, nil) }() // comes while the flush runs that will fail
		synctest.Wait()
		bad := errors.New("bad disk")
		disk <- bad
		if err := <-results; err != bad {
			t.Errorf("Barrier = %v, want the error of its flush", err)
		}
		disk <- nil
		if err := <-results; err != ErrLost {
			t.Errorf("Barrier of what was written before the failed flush ended = %v, want ErrLost", err)
		}
		if err := s.Barrier(t.Context(), before, nil); err != ErrLost {
			t.Errorf("Barrier again = %v, want ErrLost", err)
		}
		go func() { disk <- nil }()
		if err := s.Barrier(t.Context(), s.Mark(), nil); err != nil {
			t.Errorf("Barrier of what was written afterwards = %v", err)
		}
		s.Close()
	})
}

func TestFilesFoundAreTrustedByTheirAge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	found := func(at time.Time) os.FileInfo {
		t.Helper()
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
		fi, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return fi
	}
	var flush error
	s := NewSyncer(func([]string) error { return flush })
	if s.Trusts(found(s.opened.Add(-time.Second))) || !s.Trusts(found(s.opened.Add(time.Second))) {
		t.Error("files are trusted from before the store was opened, or not after it")
	}
	if err := s.Settle(t.Context(), found(s.opened.Add(-time.Hour)), path); err != nil {
		t.Errorf("Settle = %v where no flush failed", err)
	}
	flush = errors.New("bad disk")
	if err := s.Barrier(t.Context(), s.Mark(), []string{path}); err != flush {
		t.Fatal(err)
	}
	flush = nil
	old, young := found(s.lost.Add(-time.Second)), found(s.lost.Add(time.Second))
	if s.Trusts(old) || !s.Trusts(young) {
		t.Error("files are trusted from before a failed flush, or not after it")
	}
	if err := s.Settle(t.Context(), old, path); err != ErrLost {
		t.Errorf("Settle of a file from before a failed flush = %v, want ErrLost", err)
	}
	if err := s.Settle(t.Context(), young, path); err != nil {
		t.Errorf("Settle of one from after it = %v", err)
	}
	s.Close()
	if s = nil; !s.Trusts(old) || s.Settle(t.Context(), old) != nil || s.Barrier(t.Context(), s.Mark(), nil) != nil {
		t.Error("where nothing is flushed something is not trusted")
	}
}
