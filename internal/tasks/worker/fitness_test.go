package worker_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

// shiftedClock makes Redis tell another time to one client: the same to a worker as a clock of its own that is off.
type shiftedClock struct{ by time.Duration }

func (shiftedClock) DialHook(next redis.DialHook) redis.DialHook { return next }

func (shiftedClock) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (s shiftedClock) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		err := next(ctx, cmd)
		if told, ok := cmd.(*redis.TimeCmd); ok && err == nil {
			told.SetVal(told.Val().Add(s.by))
		}
		return err
	}
}

// awaitReason waits until the worker is not ready for a reason that contains part, or is ready where part is empty.
func awaitReason(t *testing.T, w *worker.Worker, part string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		ready, reason := w.Ready()
		if ready == (part == "") && strings.Contains(reason, part) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("ready: %v, %q; want %q", ready, reason, part)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestAWorkerWhoseClockIsOffTakesNoWork(t *testing.T) {
	for name, c := range map[string]struct {
		by    time.Duration
		ready bool
	}{
		"an hour ahead":     {-time.Hour, false},
		"an hour behind":    {time.Hour, false},
		"three seconds off": {3 * time.Second, false},
		"a second off":      {time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			rdb := f.client()
			rdb.AddHook(shiftedClock{c.by})
			fetcher := fetch.New(fetch.Options{})
			defer fetcher.Close()
			w, err := worker.New(t.Context(), worker.Options{Redis: rdb, Store: f.store, Fetcher: fetcher, Gate: newGate(rdb), Logger: zerolog.Nop()})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- w.Run(ctx) }()
			part := "clock"
			if c.ready {
				part = ""
			}
			awaitReason(t, w, part)
			if !c.ready {
				f.enqueue("late", fastSpec(), f.origin.URL("/page/1"))
				nothingFetched(t, f)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// nothingFetched looks for two seconds that nothing is fetched: longer than an idle asynq server waits for its next task.
func nothingFetched(t *testing.T, f *fleet) {
	t.Helper()
	for end := time.Now().Add(2 * time.Second); time.Now().Before(end); <-time.After(50 * time.Millisecond) {
		if n := f.origin.Total(); n != 0 {
			t.Fatalf("%d requests were fetched", n)
		}
	}
}
