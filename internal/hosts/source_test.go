package hosts_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
)

var twoPlaces = hosts.Limits{Conns: 2}

func TestSourcePermitsNeverExceedConnections(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 4}
		if got := r.mustEnter(ask("a", l, want(3))).Permits; got != 3 {
			t.Errorf("the first has %d permits, want 3", got)
		}
		if got := r.mustEnter(ask("b", l, want(3))).Permits; got != 1 {
			t.Errorf("the second has %d permits, want 1", got)
		}
		r.mustWait(ask("c", l))
	})
}

func TestSourceSpacesSendTimesOverAllVisits(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Rate: 5}
		var all []time.Time
		for i := range 4 {
			all = append(all, r.mustEnter(ask(fmt.Sprint(i), l, want(3))).Times.At...)
		}
		if len(all) != 12 || !near(all[0].Sub(r.now()), 0) {
			t.Fatalf("%d send times, the first in %s; want 12 from now on", len(all), all[0].Sub(r.now()))
		}
		if got := all[11].Sub(all[0]); !near(got, 11*203600*time.Microsecond) {
			t.Errorf("12 send times at 5/s take %s, want 2.2 s", got)
		}
	})
}

func TestSourceGivesBurstsAfterAPauseOnly(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		a := ask("a", hosts.Limits{Rate: 2, Burst: 4}, want(8))
		at := r.mustEnter(a).Times.At
		if len(at) != 8 {
			t.Fatalf("%d send times, want 8", len(at))
		}
		if burst, after := at[3].Sub(at[0]), at[4].Sub(at[3]); burst > 10*time.Millisecond || !near(after, 505*time.Millisecond) {
			t.Errorf("four take %s and the fifth comes %s later, want 0 and 0.5 s", burst, after)
		}
	})
}

func TestSourceSendsNobodyWhoWouldWaitLong(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Rate: 0.1}
		a := ask("a", l)
		r.mustEnter(a)
		line := r.mustWait(ask("b", l))
		if want := 10100*time.Millisecond - 1500*time.Millisecond; !near(line.Next, want) {
			t.Errorf("somebody looks in %s, want shortly before the next send time, in %s", line.Next, want)
		}
		if _, later, err := r.source.Lease(t.Context(), a, 1, 1); err != nil || !near(later, 10100*time.Millisecond) {
			t.Errorf("a further lease: later %s, %v; want 10.1 s", later, err)
		}
		r.pass(line.Next + 100*time.Millisecond)
		r.sweep()
		if got := r.called(ask("b", l)); len(got) != 1 {
			t.Error("the batch was not called shortly before its time")
		}
	})
}

func TestSourceGivesUnspentSendTimesBack(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Rate: 1}
		a := ask("a", l, want(5))
		times := r.mustEnter(a).Times
		if _, err := r.source.Leave(t.Context(), a, -1, 4, times, 1); err != nil {
			t.Fatal(err)
		}
		if got := r.mustEnter(ask("b", l)).Times.At[0].Sub(times.At[0]); !near(got, 1018*time.Millisecond) {
			t.Errorf("the next goes %s after the one that was spent, want 1.018 s", got)
		}
	})
}

func TestSourceGivingBackTwiceFreesNoMore(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 4}
		a := ask("a", l, want(4))
		r.mustEnter(a)
		for range 2 { // the answer to the first was lost
			if _, err := r.source.Leave(t.Context(), a, 1, 0, hosts.Times{Permits: 4}, 0); err != nil {
				t.Fatal(err)
			}
		}
		if got := r.mustEnter(ask("b", l, want(4))).Permits; got != 1 {
			t.Errorf("the next has %d permits, want the one that was given back", got)
		}
	})
}

func TestSourceCallsByPriorityThenJobsInTurn(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		visiting := ask("first", l)
		r.mustEnter(visiting)
		line := []hosts.Ask{
			ask("a1", l, ofJob("a")), ask("a2", l, ofJob("a")), ask("a3", l, ofJob("a")),
			ask("b1", l, ofJob("b")), ask("b2", l, ofJob("b")), ask("x", l, ofJob("c"), inQueue("critical", 0)), ask("y", l, ofJob("d"), inQueue("low", 2)),
		}
		for _, a := range line {
			r.mustWait(a)
			r.mustWait(a) // asking twice keeps the place
		}
		if diff := cmp.Diff([]string{"x", "a1", "b1", "a2", "b2", "a3", "y"}, r.order(visiting, line)); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestSourceCallsMayComeEarlyLateOrTwice(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		a, b, c := ask("a", l), ask("b", l), ask("c", l)
		r.mustEnter(a)
		r.mustWait(b)
		r.mustWait(c)
		r.mustWait(b) // early: it stays the first
		r.leave(a, 1)
		if got := r.called(b, c); !cmp.Equal(got, []string{"b"}) {
			t.Fatalf("called %q, want b", got)
		}
		r.mustWait(c) // comes uncalled while b is called
		r.mustEnter(b)
		if again := r.enter(b); again.Grant == nil || again.Grant.Permits != 1 {
			t.Errorf("asking again after the answer was lost brought %+v, want the same visit", again)
		}
		r.mustWait(c)
		r.leave(b, 1)
		if _, err := r.source.Leave(t.Context(), b, -1, 0, hosts.Times{}, 1); err != nil {
			t.Errorf("leaving twice: %v", err)
		}
		r.mustEnter(c)
	})
}

func TestSourceCallsABatchWhoseDeferralIsNotWrittenWithinFiftyMilliseconds(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		a, b := ask("a", l), ask("b", l)
		r.mustEnter(a)
		r.begin(b)
		if next := r.leave(a, 1); next == 0 || next > 50*time.Millisecond {
			t.Errorf("somebody looks in %s, want within 50 ms", next)
		}
		r.queues.put("default", "b", "retry")
		r.pass(50 * time.Millisecond)
		r.sweep()
		if len(r.called(b)) != 1 {
			t.Error("the batch was not called")
		}
	})
}

func TestSourceIsNotHeldUpByABatchWhoseWorkerDiedBeforeItsDeferral(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		a, b, c := ask("a", l), ask("b", l), ask("c", l)
		r.mustEnter(a)
		r.begin(b)
		r.mustWait(c)
		r.pass(2 * time.Second)
		r.leave(a, 1)
		if len(r.called(c)) != 1 {
			t.Error("the next in line was not called")
		}
	})
}

func TestSourceDropsBatchesThatAreGone(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		a, last := ask("a", l), ask("zz", l, ofJob("other"))
		r.mustEnter(a)
		for i := range 100 {
			r.mustWait(ask(fmt.Sprintf("b%03d", i), l))
			r.queues.put("default", fmt.Sprintf("b%03d", i), "gone") // cancelled
		}
		r.mustWait(last)
		r.leave(a, 1)
		if len(r.called(last)) != 1 {
			t.Error("a hundred cancelled batches keep the next from being called")
		}
		r.mustEnter(last)
		r.leave(last, 1)
		r.pass(time.Minute)
		if next := r.sweep(); next != 0 {
			t.Errorf("something is left to look at in %s", next)
		}
	})
}

func TestSourcePassesOverAQueueThatNobodyServes(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		visiting := ask("first", l)
		r.mustEnter(visiting)
		for i := range 40 {
			r.mustWait(ask(fmt.Sprint("paused", i), l, ofJob("p"), inQueue("paused", 0)))
		}
		var served []hosts.Ask
		for i := range 3 {
			served = append(served, ask(fmt.Sprint("b", i), l))
			r.mustWait(served[i])
		}
		r.leave(visiting, 1)
		r.pass(5100 * time.Millisecond) // the reservation lapses
		r.sweep()
		for i, b := range served {
			if len(r.called(b)) != 1 {
				t.Fatalf("batch %d of the queue that is served was not called", i)
			}
			r.mustEnter(b)
			r.leave(b, 1)
		}
		woken := ask("paused3", l, ofJob("p"), inQueue("paused", 0)) // the queue goes on
		r.pass(10 * time.Second)
		r.mustEnter(woken)
	})
}

func TestSourceFreesWhatTheDeadHeld(t *testing.T) {
	l := hosts.Limits{Conns: 1}
	a, b := ask("a", l), ask("b", l)
	t.Run("when they are named", func(t *testing.T) {
		onSources(t, func(t *testing.T, r *rig) {
			r.mustEnter(a)
			r.mustWait(b)
			r.queues.put("default", "a", "pending") // put back by whoever found it
			if err := r.source.Vacate(t.Context(), []string{"a", "unknown"}); err != nil {
				t.Fatal(err)
			}
			if len(r.called(b)) != 1 {
				t.Error("the next was not called")
			}
		})
	})
	t.Run("when a look at the host finds them", func(t *testing.T) {
		onSources(t, func(t *testing.T, r *rig) {
			r.mustEnter(a)
			r.mustWait(b)
			r.queues.put("default", "a", "stalled")
			r.pass(5100 * time.Millisecond)
			r.sweep()
			if len(r.called(b)) != 1 {
				t.Error("the next was not called")
			}
		})
	})
	t.Run("when the batch is worked again", func(t *testing.T) {
		onSources(t, func(t *testing.T, r *rig) {
			r.mustEnter(a)
			again := ask("a", l, visit("second"))
			r.mustEnter(again)
			if err := r.source.Vacate(t.Context(), []string{"a"}); err != nil { // late: it is another delivery now
				t.Fatal(err)
			}
			if _, _, err := r.source.Lease(t.Context(), again, 1, 1); err != nil {
				t.Errorf("the new visit was ended: %v", err)
			}
			if _, _, err := r.source.Lease(t.Context(), a, 1, 1); !errors.Is(err, hosts.ErrLeft) {
				t.Errorf("the old visit wakes and gets %v, want ErrLeft", err)
			}
			if _, err := r.source.Leave(t.Context(), a, -1, 0, hosts.Times{}, 1); err != nil {
				t.Fatal(err)
			}
			r.mustWait(b)
		})
	})
}

func TestSourceStrictestLimitsHoldWhileTheirJobHasWork(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		loose, strict := hosts.Limits{Rate: 10, Burst: 3, Conns: 8}, hosts.Limits{Rate: 5, Burst: 2, Conns: 2}
		b := ask("b", strict, ofJob("strict"))
		if got := r.mustEnter(b).Times; !near(got.Interval, 203600*time.Microsecond) || got.Burst != 2 {
			t.Fatalf("interval %s, burst %d", got.Interval, got.Burst)
		}
		a := ask("a", loose, ofJob("loose"), want(8))
		if got := r.mustEnter(a); got.Permits != 1 || got.Times.Interval != 203600*time.Microsecond || got.Times.Burst != 2 {
			t.Errorf("beside the strict job: %d permits, interval %s, burst %d", got.Permits, got.Times.Interval, got.Times.Burst)
		}
		r.leave(b, 1)
		r.leave(a, 1)
		c := ask("c", loose, ofJob("loose"), want(8))
		if got := r.mustEnter(c); got.Permits != 8 || got.Times.Interval != 101800*time.Microsecond || got.Times.Burst != 3 {
			t.Errorf("without it: %d permits, interval %s, burst %d", got.Permits, got.Times.Interval, got.Times.Burst)
		}
	})
}

func TestSourceJobWithoutARateHasNoSayInTheBurst(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		r.mustEnter(ask("a", twoPlaces, ofJob("conns only")))
		if got := r.mustEnter(ask("b", hosts.Limits{Rate: 5, Burst: 3}, ofJob("rate only"))).Times.Burst; got != 3 {
			t.Errorf("burst %d, want 3", got)
		}
	})
}

func TestSourceGivesPermitsToAVisitWhoseSendTimesGoFarAhead(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Rate: 5, Conns: 4}
		before, visit := ask("a", l, want(3)), ask("b", l, want(30))
		r.mustEnter(before)
		if g := r.mustEnter(visit); g.Permits != 1 || len(g.Times.At) != 30 || g.Times.Conns != 4 {
			t.Fatalf("%d permits of %d, %d send times; want what is free, and a time for each", g.Permits, g.Times.Conns, len(g.Times.At))
		}
		r.leave(before, 3)
		if times, later, err := r.source.Lease(t.Context(), visit, 0, 9); err != nil || later != 0 || times.Permits != 4 || len(times.At) != 0 {
			t.Errorf("asked for permits alone: %d, %d send times, later %s, %v; want 4 and none", times.Permits, len(times.At), later, err)
		}
		if _, later, err := r.source.Lease(t.Context(), visit, 1, 1); err != nil || later < 3*time.Second {
			t.Errorf("asked for a send time: later %s, %v; want to be told that it is far ahead", later, err)
		}
	})
}
