package hosts

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func enter(t *testing.T, l *Local, host string, limits Limits) Visit {
	t.Helper()
	v, err := l.Enter(t.Context(), host, limits)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func permit(t *testing.T, v Visit) (release func()) {
	t.Helper()
	release, err := v.Permit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return release
}

// starts takes n permits one after the other, each given back at once, and returns when each was had.
func starts(t *testing.T, v Visit, n int) []time.Duration {
	t.Helper()
	began := time.Now()
	var at []time.Duration
	for range n {
		permit(t, v)()
		at = append(at, time.Since(began).Round(time.Millisecond))
	}
	return at
}

func TestRequestsBeginNoFasterThanTheRate(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		want   []time.Duration // since the first
	}{
		"two a second":             {Limits{Rate: 2}, []time.Duration{0, 500, 1000, 1500}},
		"a burst first":            {Limits{Rate: 2, Burst: 3}, []time.Duration{0, 0, 0, 500}},
		"slower than one a second": {Limits{Rate: 0.1}, []time.Duration{0, 10_000, 20_000, 30_000}},
		"no limit":                 {Limits{Conns: 1}, []time.Duration{0, 0, 0, 0}},
		"no limits at all":         {Limits{}, []time.Duration{0, 0, 0, 0}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				v := enter(t, NewLocal(), "h", c.limits)
				defer v.Leave()
				for i, got := range starts(t, v, len(c.want)) {
					if want := c.want[i] * time.Millisecond; got != want {
						t.Errorf("request %d began after %s, want %s", i, got, want)
					}
				}
			})
		})
	}
}

func TestTheBucketOutlivesVisitsAndOtherJobs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		began := time.Now()
		for i, limits := range []Limits{{Rate: 1}, {Rate: 1}, {Rate: 1, Burst: 2}, {Rate: 1, Conns: 3}, {Rate: 1}} {
			v := enter(t, l, "h", limits)
			permit(t, v)()
			v.Leave()
			if got, want := time.Since(began), time.Duration(i)*time.Second; got < want {
				t.Errorf("request %d began after %s, want at least %s", i, got, want)
			}
		}
	})
}

func TestAHopSpendsATurnButNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := enter(t, NewLocal(), "h", Limits{Rate: 1, Conns: 1})
		defer v.Leave()
		began := time.Now()
		release := permit(t, v)
		defer release()
		if err := v.Turn(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := time.Since(began); got != time.Second {
			t.Errorf("the hop went after %s, want 1s", got)
		}
	})
}

func TestHostsDoNotHoldEachOtherUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		began := time.Now()
		for i := range 20 {
			v := enter(t, l, fmt.Sprint(i), Limits{Rate: 0.001, Conns: 1})
			permit(t, v)()
			v.Leave()
		}
		if got := time.Since(began); got != 0 {
			t.Errorf("twenty hosts took %s", got)
		}
	})
}

func TestNoMoreAreInServiceThanConnections(t *testing.T) {
	l := NewLocal()
	limits := Limits{Conns: 3}
	var now, most atomic.Int64
	var all sync.WaitGroup
	for range 3 {
		v := enter(t, l, "h", limits)
		var requests sync.WaitGroup
		for range 200 {
			requests.Go(func() {
				release := permit(t, v)
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				now.Add(-1)
				release()
				release() // twice does no harm
			})
		}
		all.Go(func() { requests.Wait(); v.Leave() })
	}
	all.Wait()
	if most.Load() > 3 {
		t.Errorf("%d in service at once, want at most 3", most.Load())
	}
	h := l.hosts["h"]
	if h.places.taken != 0 || h.visits != 0 || l.Waiting() != 0 {
		t.Errorf("%d places taken, %d visits, %d waiting afterwards", h.places.taken, h.visits, l.Waiting())
	}
}

func TestTheStrictestOfTwoJobsHoldsForBoth(t *testing.T) {
	for name, c := range map[string]struct{ first, second, want Limits }{
		"rate":              {Limits{Rate: 5}, Limits{Rate: 1}, Limits{Rate: 1, Burst: 1}},
		"rate, other turn":  {Limits{Rate: 1}, Limits{Rate: 5}, Limits{Rate: 1, Burst: 1}},
		"no rate":           {Limits{Conns: 1}, Limits{Rate: 5}, Limits{Rate: 5, Conns: 1, Burst: 1}},
		"connections":       {Limits{Conns: 4}, Limits{Conns: 2}, Limits{Conns: 2, Burst: 1}},
		"no limits":         {Limits{}, Limits{Conns: 2, Rate: 3}, Limits{Conns: 2, Rate: 3, Burst: 1}},
		"no limits, second": {Limits{Conns: 2, Rate: 3}, Limits{}, Limits{Conns: 2, Rate: 3, Burst: 1}},
		"burst":             {Limits{Rate: 1, Burst: 4}, Limits{Rate: 1, Burst: 2}, Limits{Rate: 1, Burst: 2}},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLocal()
			first, second := enter(t, l, "h", c.first), enter(t, l, "h", c.second)
			if got := l.hosts["h"].limits; got != c.want {
				t.Errorf("limits %+v, want %+v", got, c.want)
			}
			first.Leave()
			second.Leave()
			third := enter(t, l, "h", c.first) // alone again
			defer third.Leave()
			want := c.first
			want.Burst = max(want.Burst, 1)
			if got := l.hosts["h"].limits; got != want {
				t.Errorf("alone: limits %+v, want %+v", got, want)
			}
		})
	}
}

// A stricter job takes places away from a host in use: who is in service stays, nobody follows before there is room.
func TestConnectionsTightenWhileInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		first := enter(t, l, "h", Limits{Conns: 3})
		defer first.Leave()
		var releases []func()
		for range 3 {
			releases = append(releases, permit(t, first))
		}
		second := enter(t, l, "h", Limits{Conns: 1})
		defer second.Leave()
		got := make(chan func(), 2)
		for _, v := range []Visit{first, second} {
			go func() { got <- permit(t, v) }()
		}
		for i, release := range releases {
			synctest.Wait()
			if len(got) != 0 {
				t.Fatalf("a permit was given with %d in service", 3-i)
			}
			release()
		}
		synctest.Wait()
		if len(got) != 1 {
			t.Fatalf("%d permits were given, want 1", len(got))
		}
		(<-got)()
		(<-got)()
	})
}

func TestConnectionsWidenForAJobThatIsAlone(t *testing.T) {
	l := NewLocal()
	v := enter(t, l, "h", Limits{Conns: 1})
	permit(t, v)()
	v.Leave()
	v = enter(t, l, "h", Limits{Conns: 2})
	defer v.Leave()
	first, second := permit(t, v), permit(t, v) // would wait for ever
	first()
	second()
}

func TestAHostWithEnoughVisitorsIsBusy(t *testing.T) {
	for name, c := range map[string]struct {
		limits Limits
		visits int // that are let in
	}{
		"a rate":               {Limits{Rate: 1}, waiters},
		"few connections":      {Limits{Conns: 1}, waiters},
		"many connections":     {Limits{Conns: 10}, 10},
		"no limits: never":     {Limits{}, 100},
		"a rate, and room yet": {Limits{Rate: 1000, Conns: 6}, 6},
	} {
		t.Run(name, func(t *testing.T) {
			l := NewLocal()
			var visits []Visit
			for range c.visits {
				visits = append(visits, enter(t, l, "h", c.limits))
			}
			_, err := l.Enter(t.Context(), "h", c.limits)
			busy, ok := IsBusy(err)
			if ok == c.limits.Unlimited() {
				t.Fatalf("one more: %v", err)
			}
			if c.limits.Unlimited() {
				return
			}
			if busy.Host != "h" || busy.After < time.Second || busy.After > 5*time.Second || err.Error() != "in line: h" {
				t.Errorf("one more: %+v", busy)
			}
			visits[0].Leave()
			enter(t, l, "h", c.limits)
			enter(t, l, "another", c.limits)
		})
	}
}

func TestWaitingEndsWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		v := enter(t, l, "h", Limits{Rate: 0.001, Burst: 1, Conns: 2})
		release := permit(t, v)
		why := errors.New("stopping")
		ctx, cancel := context.WithCancelCause(t.Context())
		failed := make(chan error)
		for range 3 { // one waits for its turn, two for a place
			go func() { _, err := v.Permit(ctx); failed <- err }()
		}
		go func() { failed <- v.Turn(ctx) }()
		synctest.Wait()
		if l.Waiting() != 4 {
			t.Errorf("%d wait, want 4", l.Waiting())
		}
		cancel(why)
		for range 4 {
			if err := <-failed; !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
				t.Errorf("error = %v", err)
			}
		}
		if taken := l.hosts["h"].places.taken; taken != 1 || l.Waiting() != 0 {
			t.Errorf("%d places taken, %d waiting; want only the one in service", taken, l.Waiting())
		}
		release()
		v.Leave()
	})
}

func TestPlacesAreGivenInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p places
		p.resize(1)
		if err := p.take(t.Context()); err != nil {
			t.Fatal(err)
		}
		var order []int
		var waiting sync.WaitGroup
		for i := range 10 {
			waiting.Go(func() {
				if err := p.take(t.Context()); err != nil {
					t.Error(err)
				}
				order = append(order, i) // one at a time holds the place
				p.free()
			})
			synctest.Wait()
		}
		p.free()
		waiting.Wait()
		for i, got := range order {
			if got != i {
				t.Fatalf("order %v", order)
			}
		}
	})
}

// Whoever gives up at the very moment at which it is given a place passes it on.
func TestAPlaceIsNotLostOnOneWhoGivesUp(t *testing.T) {
	p := places{limit: 1, taken: 1}
	first, second, third := make(chan struct{}), make(chan struct{}), make(chan struct{})
	p.line = []chan struct{}{first, second, third}
	p.giveUp(second) // still in line: nobody moves
	p.free()         // first's turn, and it gives up now
	p.giveUp(first)
	select {
	case <-third:
	default:
		t.Error("the place is lost")
	}
	if p.taken != 1 || len(p.line) != 0 {
		t.Errorf("%d taken, %d in line; want the third alone", p.taken, len(p.line))
	}
}

func TestHostsAtRestAreForgottenAndOthersAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		slow := Limits{Rate: 0.001} // its bucket takes a thousand seconds to fill
		visited := enter(t, l, "visited", Limits{Conns: 1})
		v := enter(t, l, "slow", slow)
		permit(t, v)()
		v.Leave()
		fill := func(round string) {
			for i := range 3 * keep {
				v := enter(t, l, fmt.Sprint(round, i), Limits{Rate: 100})
				permit(t, v)()
				v.Leave()
				if i%100 == 0 {
					time.Sleep(time.Second) // not real: the bubble's clock
				}
			}
		}
		fill("a")
		if len(l.hosts) > 2*keep || l.hosts["visited"] == nil {
			t.Errorf("%d hosts known, the one being visited: %v", len(l.hosts), l.hosts["visited"] != nil)
		}
		visited.Leave()
		time.Sleep(1000 * time.Second)
		fill("b")
		if l.hosts["visited"] != nil || l.hosts["slow"] != nil {
			t.Error("hosts at rest are still known")
		}
	})
}

func TestASlowHostIsNotForgottenBeforeItsBucketIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLocal()
		v := enter(t, l, "slow", Limits{Rate: 0.001})
		permit(t, v)()
		v.Leave()
		time.Sleep(999 * time.Second)
		for i := range 3 * keep {
			enter(t, l, fmt.Sprint(i), Limits{}).Leave()
		}
		if l.hosts["slow"] == nil {
			t.Error("forgotten with an empty bucket")
		}
	})
}
