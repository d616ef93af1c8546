package filestore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
)

func TestFlushesAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan error)
		flushes := 0
		s := &syncer{flush: func([]string) error { flushes++; return <-disk }}
		results := make(chan error, 11)
		go func() { results <- s.barrier(t.Context(), nil) }()
		synctest.Wait() // the lone one is being flushed: it did not wait for company
		if flushes != 1 {
			t.Fatalf("%d flushes for a lone caller, want 1", flushes)
		}
		for range 10 {
			go func() { results <- s.barrier(t.Context(), nil) }()
		}
		synctest.Wait()
		if flushes != 1 {
			t.Fatalf("%d flushes while the first runs, want 1", flushes)
		}
		disk <- nil
		if err := <-results; err != nil {
			t.Errorf("the first barrier: %v", err)
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
		s.close()
	})
}

func TestBarrierEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := make(chan error)
		s := &syncer{flush: func([]string) error { return <-disk }}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error, 1)
		go func() { result <- s.barrier(ctx, nil) }()
		synctest.Wait()
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("barrier = %v, want context.Canceled", err)
		}
		disk <- nil
		s.close()
	})
}
