package ledger_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// TestRestoreEqualsWhatWasThere plays a job into one Redis, puts what its units tell into an empty one, and compares.
func TestRestoreEqualsWhatWasThere(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		const n = 3000 // enough for several seen sets
		lost := newJob(t, rdb, "lost")
		fill(t, lost, "lost", n)
		open, err := lost.OpenBatches(ctx, "lost")
		if err != nil {
			t.Fatal(err)
		}
		l := newJob(t, taskstest.Embedded(t), "lost")
		r := l.Restore("lost", n)
		for at := 0; at < n; at += 32 {
			var numbers []int
			for i := at; i < min(at+32, n); i++ {
				numbers = append(numbers, i)
			}
			finishOrKeep(t, lost, r, numbers, at%96 == 0)
		}
		if err := r.Close(ctx); err != nil {
			t.Fatal(err)
		}
		ignore := cmpopts.IgnoreFields(ledger.Status{}, "Created", "Rate")
		if diff := cmp.Diff(status(t, lost, "lost"), status(t, l, "lost"), ignore); diff != "" {
			t.Error(diff)
		}
		kept, err := lost.OpenBatches(ctx, "lost")
		if err != nil || len(kept) == 0 || len(kept) == len(open) {
			t.Fatalf("%d of %d batches are still open (%v)", len(kept), len(open), err)
		}
		got, err := l.OpenBatches(ctx, "lost")
		if diff := cmp.Diff(kept, got); err != nil || diff != "" {
			t.Errorf("open batches: %v %s", err, diff)
		}
		found(t, l, "lost", n)
		generations, err := l.Generations(ctx, "lost")
		if err != nil || generations[string(requestID("lost", 33))] != 2 || len(generations) != 1 {
			t.Errorf("generations = %v, %v", generations, err)
		}
		grow(t, l, n)
	})
}

// finishOrKeep ends one batch of the old ledger and restores its records, or restores it as open.
func finishOrKeep(t *testing.T, lost *ledger.Ledger, r *ledger.Restoration, numbers []int, keep bool) {
	t.Helper()
	ctx := t.Context()
	o := offer("lost", numbers...)
	if keep {
		ids := make([]tasks.RequestID, len(numbers))
		for i, n := range numbers {
			ids[i] = requestID("lost", n)
		}
		if err := r.Open(ctx, ledger.Child{ID: o.ID, Requests: len(numbers), Payload: o.Payload}, ids); err != nil {
			t.Fatal(err)
		}
		return
	}
	f := ledger.Finishing{Job: "lost", Batch: o.ID, Recorded: len(numbers), Counters: counters("failed", len(numbers), 7)}
	if first, _, err := lost.Finish(ctx, f); err != nil || !first {
		t.Fatalf("finish: first %v, %v", first, err)
	}
	if err := lost.Sent(ctx, "lost", o.ID); err != nil {
		t.Fatal(err)
	}
	for _, n := range numbers {
		generation := 0
		if n == 33 {
			generation = 2
		}
		if err := r.Recorded(ctx, requestID("lost", n), generation, counters("failed", 1, 7)...); err != nil {
			t.Fatal(err)
		}
	}
}

// grow goes on with a restored job: what it had is known, what is new is taken.
func grow(t *testing.T, l *ledger.Ledger, n int) {
	t.Helper()
	for at := 0; at < 2*n; at += 100 {
		want := ledger.Answer{Taken: []int{0}}
		if at >= n {
			want = ledger.Answer{}
		}
		if diff := cmp.Diff(want, accept(t, l, "lost", offer("lost", at, 1_000_000+at))[0]); diff != "" {
			t.Fatalf("request %d: %s", at, diff)
		}
	}
}
