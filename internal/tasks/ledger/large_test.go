package ledger_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

func TestLargeBodiesAreNotedUntilForgotten(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("large")
		l, o := newJob(t, rdb, job), offer(job, 1)
		accept(t, l, job, o)
		begin := func() ledger.Delivery {
			t.Helper()
			d, err := l.Begin(t.Context(), ledger.Start{Job: job, Batch: o.ID, Token: "t-1"})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		if begin().Large {
			t.Error("a job that has had no large bodies says that it had")
		}
		near := ledger.Large{URL: "http://h/near", Have: 9, Length: 10, At: 1, Worker: "w", Batch: o.ID}
		far := ledger.Large{URL: "http://h/far", Have: 1, Length: 100, At: 2, Worker: "w", Cut: true, Batch: o.ID}
		if err := l.NoteLarge(t.Context(), job, map[tasks.RequestID]ledger.Large{"r1": near, "r2": far}); err != nil {
			t.Fatal(err)
		}
		near.Batch, far.Batch = "", "" // it is not kept
		if !begin().Large {
			t.Error("a job with large bodies does not say so")
		}
		has, err := l.LargeOf(t.Context(), job, []tasks.RequestID{"r2", "r3"})
		if diff := cmp.Diff(map[tasks.RequestID]bool{"r2": true}, has); diff != "" || err != nil {
			t.Errorf("large ones (%v):\n%s", err, diff)
		}
		s, err := l.Status(t.Context(), job)
		if diff := cmp.Diff([]ledger.Large{far, near}, s.Large); diff != "" || err != nil {
			t.Errorf("status (%v):\n%s", err, diff)
		}
		if err := l.ForgetLarge(t.Context(), job, "r2"); err != nil {
			t.Fatal(err)
		}
		left, err := l.LargeBodies(t.Context(), job)
		if diff := cmp.Diff(map[tasks.RequestID]ledger.Large{"r1": near}, left); diff != "" || err != nil {
			t.Errorf("left (%v):\n%s", err, diff)
		}
		if err := l.ForgetLarge(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		if left, err := l.LargeBodies(t.Context(), job); len(left) != 0 || err != nil {
			t.Errorf("all were to be forgotten: %v, %v", left, err)
		}
	})
}

// What a worker saw of its large bodies may reach Redis after what became of them has.
func TestANoteThatComesLateIsDropped(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("late")
		l, o, other := newJob(t, rdb, job), offer(job, 1), offer(job, 2)
		accept(t, l, job, o, other)
		note := func(b ledger.Large) {
			t.Helper()
			b.Batch, b.Length = o.ID, 10
			if err := l.NoteLarge(t.Context(), job, map[tasks.RequestID]ledger.Large{"r": b}); err != nil {
				t.Fatal(err)
			}
		}
		want := func(when string, want map[tasks.RequestID]ledger.Large) {
			t.Helper()
			got, err := l.LargeBodies(t.Context(), job)
			if diff := cmp.Diff(want, got); diff != "" || err != nil {
				t.Errorf("%s (%v, -want +got):\n%s", when, err, diff)
			}
		}
		cut := ledger.Large{Have: 5, Length: 10, At: 7, Worker: "w", Cut: true}
		note(cut)
		note(ledger.Large{Have: 4, At: 6, Worker: "w"})
		note(ledger.Large{Have: 5, At: 7, Worker: "w"})
		want("seen before it was cut", map[tasks.RequestID]ledger.Large{"r": cut})
		note(ledger.Large{Have: 6, At: 3, Worker: "slow clock"})
		want("in other hands", map[tasks.RequestID]ledger.Large{"r": {Have: 6, Length: 10, At: 3, Worker: "slow clock"}})
		note(ledger.Large{Have: 8, At: 4, Worker: "slow clock"})
		want("going on", map[tasks.RequestID]ledger.Large{"r": {Have: 8, Length: 10, At: 4, Worker: "slow clock"}})

		if first, _, err := l.Finish(t.Context(), ledger.Finishing{Job: job, Batch: o.ID, Recorded: 1}); !first || err != nil {
			t.Fatalf("Finish = %v, %v", first, err)
		}
		if err := l.ForgetLarge(t.Context(), job, "r"); err != nil {
			t.Fatal(err)
		}
		note(ledger.Large{Have: 9, At: 5, Worker: "slow clock"})
		want("recorded", map[tasks.RequestID]ledger.Large{})
	})
}

func TestNothingIsNotedOfAJobThatIsNotThere(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := ledger.New(rdb)
		if err := l.NoteLarge(t.Context(), "gone", map[tasks.RequestID]ledger.Large{"r": {}}); err != nil {
			t.Fatal(err)
		}
		if n, err := rdb.Exists(t.Context(), "fetchfleet:{gone}:stats", "fetchfleet:{gone}:large").Result(); n != 0 || err != nil {
			t.Errorf("%d keys were made, %v", n, err)
		}
	})
}
