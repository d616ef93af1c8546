package ledger_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// fill accepts requests 0 to n-1 in batches of 32, 16 batches a call as the enqueuer does.
func fill(t *testing.T, l *ledger.Ledger, job tasks.JobID, n int) {
	t.Helper()
	var offers []ledger.Offer
	for at := 0; at < n; at += 32 {
		var numbers []int
		for i := at; i < min(at+32, n); i++ {
			numbers = append(numbers, i)
		}
		if offers = append(offers, offer(job, numbers...)); len(offers) == 16 || at+32 >= n {
			for i, a := range accept(t, l, job, offers...) {
				if !a.Accepted() {
					t.Fatalf("batch %d of %d: %+v", i, len(offers), a)
				}
			}
			offers = nil
		}
	}
}

// found checks that requests 0 to n-1 are seen and the n after them are not.
func found(t *testing.T, l *ledger.Ledger, job tasks.JobID, n int) {
	t.Helper()
	const chunk = 1000
	for at := 0; at < 2*n; at += chunk {
		var h []int64
		for i := at; i < min(at+chunk, 2*n); i++ {
			h = append(h, hashes(job, i)...)
		}
		missing, err := l.Unseen(t.Context(), job, h)
		if err != nil {
			t.Fatal(err)
		}
		if want := max(0, at+len(h)-max(at, n)); len(missing) != want {
			t.Fatalf("requests %d to %d: %d unseen, want %d", at, at+len(h)-1, len(missing), want)
		}
	}
}

func TestSeenSetLosesNothingAsItGrows(t *testing.T) {
	for name, expect := range map[string]int64{"step by step": 0, "as expected": 20_000, "expected too much": 500_000} {
		t.Run(name, func(t *testing.T) {
			taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
				n := 20_000
				if strings.HasSuffix(t.Name(), "/embedded") { // the same scripts at a twentieth of the speed
					n = 4000
				}
				l := newJob(t, rdb, "grow")
				if expect > 0 {
					if err := l.Expect(t.Context(), "grow", expect); err != nil {
						t.Fatal(err)
					}
				}
				fill(t, l, "grow", n)
				found(t, l, "grow", n)
			})
		})
	}
}

// With thousands of sets the scripts and the caller still agree on where a hash belongs.
func TestSeenSetGrowsWhereItIsLargeAlready(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const n, sets, load = 6000, 8190, 215
		l := newJob(t, rdb, "large")
		grown := map[string]any{"seen_sets": sets, "accepted": sets*load - n/2} // as if so many were there
		if err := rdb.HSet(t.Context(), "fetchfleet:{large}:stats", grown).Err(); err != nil {
			t.Fatal(err)
		}
		fill(t, l, "large", n)
		if got, err := rdb.HGet(t.Context(), "fetchfleet:{large}:stats", "seen_sets").Int(); err != nil || got <= 8192 {
			t.Errorf("%d sets, %v; want more than 8192", got, err)
		}
		found(t, l, "large", n)
	})
}

// The compact form is what makes a request cost 8 bytes rather than 60; Redis gives it up above 512 members.
func TestSeenSetsStayCompact(t *testing.T) {
	const n = 200_000
	rdb := taskstest.Dial(t, redistest.Start(t).URL())
	l := newJob(t, rdb, "compact")
	fill(t, l, "compact", n)
	found(t, l, "compact", n)
	ctx := t.Context()
	sets, err := rdb.HGet(ctx, "fetchfleet:{compact}:stats", "seen_sets").Int()
	if err != nil {
		t.Fatal(err)
	}
	total, most, bytes := int64(0), int64(0), int64(0)
	for i := range sets {
		key := fmt.Sprintf("fetchfleet:{compact}:seen:%d", i)
		encoding, err := rdb.ObjectEncoding(ctx, key).Result()
		if err != nil || encoding != "intset" {
			t.Fatalf("%s of %d is kept as %s (%v), want intset", key, sets, encoding, err)
		}
		size, memory := rdb.SCard(ctx, key).Val(), rdb.MemoryUsage(ctx, key).Val()
		total, most, bytes = total+size, max(most, size), bytes+memory
	}
	if total != n || most > 512 {
		t.Errorf("%d requests in %d sets, want %d; the largest has %d, want at most 512", total, sets, n, most)
	}
	t.Logf("%d requests in %d sets, at most %d in one; %.1f bytes a request", n, sets, most, float64(bytes)/n)
}
