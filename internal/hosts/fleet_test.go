package hosts_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
)

// member is a worker's side, running, of a source that others may have, too. Times are those of the bubble.
type member struct {
	*hosts.Fleet
	t *testing.T
}

// bubble runs a claim about workers in fake time, with as many of them as wanted on one source.
func bubble(t *testing.T, n int, claim func(*testing.T, *rig, []member)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		q := &fakeQueues{states: map[string]string{}}
		r := &rig{t: t, source: hosts.NewMemory(q, nil), queues: q, now: time.Now, pass: time.Sleep}
		ctx, cancel := context.WithCancel(t.Context())
		var running sync.WaitGroup
		members := make([]member, n)
		for i := range members {
			members[i] = member{hosts.NewFleet(r.source), t}
			running.Go(func() { members[i].Run(ctx) })
		}
		synctest.Wait()
		claim(t, r, members)
		cancel()
		running.Wait()
	})
}

func (m member) mustEnter(r *rig, a hosts.Ask) hosts.Visit {
	m.t.Helper()
	r.queues.put(a.Queue, a.Batch, "active")
	v, err := m.Enter(m.t.Context(), a)
	if err != nil {
		m.t.Fatal(err)
	}
	return v
}

func (m member) permit(v hosts.Visit) (release func()) {
	m.t.Helper()
	release, err := v.Permit(m.t.Context())
	if err != nil {
		m.t.Fatal(err)
	}
	return release
}

func TestFleetSpacesRequestsOfAllWorkers(t *testing.T) {
	bubble(t, 3, func(t *testing.T, r *rig, workers []member) {
		const each = 6
		l := hosts.Limits{Rate: 5, Conns: 3 * each}
		var mu sync.Mutex
		var sent []time.Time
		var visits sync.WaitGroup
		for i, w := range workers {
			visits.Go(func() {
				v := w.mustEnter(r, ask(string(rune('a'+i)), l, want(each)))
				defer v.Leave()
				for range each {
					release, err := v.Permit(t.Context())
					if err != nil {
						t.Error(err)
						return
					}
					mu.Lock()
					sent = append(sent, time.Now())
					mu.Unlock()
					release()
				}
			})
		}
		visits.Wait()
		for i := 1; i < len(sent); i++ {
			if gap := sent[i].Sub(sent[i-1]); gap < 195*time.Millisecond {
				t.Errorf("request %d goes %s after the one before, want about 204 ms", i, gap)
			}
		}
		if got := sent[len(sent)-1].Sub(sent[0]); got > 3*each*210*time.Millisecond {
			t.Errorf("%d requests took %s", len(sent), got)
		}
	})
}

func TestFleetLetsABurstGoAtOnce(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		v := w[0].mustEnter(r, ask("a", hosts.Limits{Rate: 1, Burst: 4, Conns: 8}, want(5)))
		began := time.Now()
		for range 4 {
			defer w[0].permit(v)()
		}
		if took := time.Since(began); took > 10*time.Millisecond {
			t.Errorf("a burst of four took %s", took)
		}
		defer w[0].permit(v)()
		if took := time.Since(began); took < 900*time.Millisecond {
			t.Errorf("the fifth went after %s, want 1 s", took)
		}
		v.Leave()
	})
}

func TestFleetHearsOfACoolDownAtOnce(t *testing.T) {
	bubble(t, 2, func(t *testing.T, r *rig, w []member) {
		l := hosts.Limits{Rate: 1, Conns: 4}
		one, two := w[0].mustEnter(r, ask("a", l, want(2))), w[1].mustEnter(r, ask("b", l))
		w[0].permit(one)()
		ended := make(chan error, 1)
		go func() { // waits for its turn meanwhile
			_, err := two.Permit(t.Context())
			ended <- err
		}()
		synctest.Wait()
		one.Learn(t.Context(), hosts.Asked, 20*time.Second)
		synctest.Wait()
		select {
		case err := <-ended:
			var later *hosts.LaterError
			if !errors.As(err, &later) || later.After < 19*time.Second {
				t.Errorf("the other worker's request got %v, want to be told to come later", err)
			}
		default:
			t.Error("the other worker's request still waits")
		}
		one.Leave()
		two.Leave()
		if _, err := w[1].Enter(t.Context(), ask("c", l)); err == nil {
			t.Error("a visit was let in while the host is left alone")
		}
		began := time.Now()
		if _, err := w[1].Enter(t.Context(), ask("d", hosts.Limits{}, ofJob("unlimited"))); err == nil {
			t.Error("a visit without limits was let in while the host is left alone")
		}
		r.queues.put("default", "c", "retry")
		r.queues.put("default", "d", "retry")
		for len(r.called(ask("c", l), ask("d", l))) == 0 {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took < 19*time.Second || took > 21*time.Second {
			t.Errorf("the next was called after %s, want 20 s", took)
		}
	})
}

func TestFleetShortCoolDownIsSatOut(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		v := w[0].mustEnter(r, ask("a", twoPlaces, want(2)))
		w[0].permit(v)()
		began := time.Now()
		v.Learn(t.Context(), hosts.Overload, 0)
		w[0].permit(v)()
		if took := time.Since(began); took < time.Second || took > 1100*time.Millisecond {
			t.Errorf("the next went after %s, want 1 s", took)
		}
		v.Leave()
	})
}

func TestFleetHoldsNoSlotForARequestThatIsFarAway(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		v := w[0].mustEnter(r, ask("a", hosts.Limits{Rate: 0.1}, want(2)))
		w[0].permit(v)()
		began := time.Now()
		_, err := v.Permit(t.Context())
		var later *hosts.LaterError
		if !errors.As(err, &later) || time.Since(began) > time.Second {
			t.Errorf("got %v after %s, want to be told to come later at once", err, time.Since(began))
		}
		v.Leave()
	})
}

func TestFleetGivesPermitsBackWhenNothingIsLeftToBegin(t *testing.T) {
	bubble(t, 2, func(t *testing.T, r *rig, w []member) {
		l := hosts.Limits{Conns: 3}
		v := w[0].mustEnter(r, ask("a", l, want(3)))
		releases := []func(){w[0].permit(v), w[0].permit(v), w[0].permit(v)}
		r.mustWait(ask("b", l, want(3)))
		releases[0]()
		releases[1]()
		time.Sleep(time.Second)
		if len(r.called(ask("b", l))) != 1 {
			t.Fatal("the next in line was not called while a slow request is in service")
		}
		if got := r.mustEnter(ask("b", l, want(3))).Permits; got != 2 {
			t.Errorf("it has %d permits, want the two that are free", got)
		}
		releases[2]()
		v.Leave()
	})
}

func TestFleetNeverBeginsMoreThanItsPermitsAfterGivingBack(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		v := w[0].mustEnter(r, ask("a", hosts.Limits{Conns: 2}, want(2)))
		w[0].permit(v)() // robots.txt, which was not wanted as such
		slow := w[0].permit(v)
		time.Sleep(time.Second) // one permit went back
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := v.Permit(ctx); err == nil {
			t.Error("a second request began with one permit left")
		}
		slow()
		w[0].permit(v)()
		v.Leave()
	})
}

func TestFleetLeavingTakesNoTimeAndGivesSendTimesBack(t *testing.T) {
	bubble(t, 2, func(t *testing.T, r *rig, w []member) {
		l := hosts.Limits{Rate: 1, Conns: 4}
		v := w[0].mustEnter(r, ask("a", l, want(4)))
		w[0].permit(v)()
		began := time.Now()
		v.Leave()
		if took := time.Since(began); took > 0 {
			t.Errorf("leaving took %s", took)
		}
		other := w[1].mustEnter(r, ask("b", l))
		w[1].permit(other)()
		if took := time.Since(began); took > 1028*time.Millisecond {
			t.Errorf("the next request went after %s, want 1.018 s", took)
		}
		other.Leave()
	})
}

func TestFleetVisitThatWasEndedByOthersBeginsNothing(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		l := hosts.Limits{Rate: 1}
		v := w[0].mustEnter(r, ask("a", l, want(20)))
		r.queues.put("default", "a", "pending")
		if err := w[0].Vacate(t.Context(), []string{"a"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute) // it slept, too: what it had leased is void
		if _, err := v.Permit(t.Context()); !errors.Is(err, hosts.ErrLeft) {
			t.Errorf("got %v, want ErrLeft", err)
		}
		v.Leave()
	})
}

func TestFleetFailuresInARowAreThoseWithNothingGoodBetween(t *testing.T) {
	for _, l := range []hosts.Limits{{}, {Conns: 4}} {
		bubble(t, 1, func(t *testing.T, r *rig, w []member) {
			v := w[0].mustEnter(r, ask("a", l, want(30)))
			for range 10 {
				v.Learn(t.Context(), hosts.Failed, 0)
				v.Learn(t.Context(), hosts.Well, 0)
			}
			v.Leave()
			v = w[0].mustEnter(r, ask("b", l, want(30)))
			v.Learn(t.Context(), hosts.Well, 0)
			for range 5 {
				v.Learn(t.Context(), hosts.Failed, 0)
			}
			v.Leave() // what went well before does not close the circuit
			if _, err := w[0].Enter(t.Context(), ask("c", l)); err == nil {
				t.Fatal("a visit was let in after five failures in a row")
			}
			time.Sleep(31 * time.Second)
			if probe := r.mustEnter(ask("d", hosts.Limits{Conns: 4})); !probe.Probe {
				t.Error("the next visit is no probe")
			}
		})
	}
}

func TestFleetLeavingDoesNotWaitForPermitsToSettle(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		v := w[0].mustEnter(r, ask("a", hosts.Limits{Conns: 2}, want(2)))
		one, two := w[0].permit(v), w[0].permit(v)
		one()
		two()
		began := time.Now()
		v.Leave()
		if took := time.Since(began); took > 0 {
			t.Errorf("leaving took %s", took)
		}
	})
}

func TestFleetSuccessOfOneWorkerBreaksTheRowOfAnother(t *testing.T) {
	bubble(t, 2, func(t *testing.T, r *rig, w []member) {
		l := hosts.Limits{Conns: 4}
		one, two := w[0].mustEnter(r, ask("a", l)), w[1].mustEnter(r, ask("b", l))
		for range 4 {
			one.Learn(t.Context(), hosts.Failed, 0)
		}
		two.Learn(t.Context(), hosts.Well, 0)
		two.Learn(t.Context(), hosts.Failed, 0)
		if _, err := one.Permit(t.Context()); err != nil {
			t.Errorf("the circuit was opened though something went well: %v", err)
		}
		one.Leave()
		two.Leave()
	})
}

// leases counts what is asked of a source during visits.
type leases struct {
	hosts.Source
	n atomic.Int64
}

func (l *leases) Lease(ctx context.Context, a hosts.Ask, n, need int) (hosts.Times, time.Duration, error) {
	l.n.Add(1)
	return l.Source.Lease(ctx, a, n, need)
}

func TestFleetAsksForMorePermitsOnceThoseItHasAreNotEnough(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		counted := &leases{Source: r.source}
		second := member{hosts.NewFleet(counted), t}
		l := hosts.Limits{Rate: 5, Conns: 4}
		first := w[0].mustEnter(r, ask("a", l, want(3)))
		releases := []func(){w[0].permit(first), w[0].permit(first), w[0].permit(first)}
		v := second.mustEnter(r, ask("b", l, want(8)))
		for range 4 {
			second.permit(v)()
			time.Sleep(50 * time.Millisecond) // an answer comes long before the next may go
		}
		if n := counted.n.Load(); n != 0 {
			t.Errorf("%d leases while one permit was enough, want none", n)
		}
		slow := second.permit(v)
		time.Sleep(5 * time.Second)
		if n := counted.n.Load(); n < 3 || n > 7 {
			t.Errorf("asked %d times for more permits in five seconds in which there were none, want about one a second", n)
		}
		for _, release := range releases {
			release()
		}
		first.Leave()
		began := time.Now()
		second.permit(v)()
		if took := time.Since(began); took > 1100*time.Millisecond {
			t.Errorf("the next request went %s after permits were free, want it within a second", took)
		}
		slow()
		v.Leave()
	})
}

// Who asks while robots.txt is being fetched is in line a moment before its deferral is written.
func TestFleetCallsThoseWhoWaitForRobotsAtOnce(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		scout := w[0].mustEnter(r, ask("a", hosts.Limits{}, needsRobots))
		next := ask("b", hosts.Limits{}, needsRobots)
		r.queues.put(next.Queue, next.Batch, "active")
		if _, err := w[0].Enter(t.Context(), next); err == nil {
			t.Fatal("a second visit was let in while robots.txt is being fetched")
		}
		if err := scout.Robots(t.Context(), true, time.Hour, "1 all -\n"); err != nil {
			t.Fatal(err)
		}
		r.queues.put(next.Queue, next.Batch, "retry")
		began := time.Now()
		for len(r.called(next)) == 0 && time.Since(began) < 5*time.Second {
			time.Sleep(time.Millisecond)
		}
		if took := time.Since(began); took > 100*time.Millisecond {
			t.Errorf("it was called after %s, want at once", took)
		}
		scout.Leave()
	})
}

// meddler is a source where something happens in the middle of a call.
type meddler struct {
	hosts.Source
	enter, sweep func()
}

func (m *meddler) Enter(ctx context.Context, a hosts.Ask) (hosts.Answer, error) {
	answer, err := m.Source.Enter(ctx, a)
	if m.enter != nil {
		m.enter()
	}
	return answer, err
}

func (m *meddler) Sweep(ctx context.Context, refused ...hosts.Refusal) (time.Duration, error) {
	if m.sweep != nil {
		m.sweep()
	}
	return m.Source.Sweep(ctx, refused...)
}

// run has a worker of its own work with the source until the test ends.
func (m *meddler) run(t *testing.T) member {
	f := hosts.NewFleet(m)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { f.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	synctest.Wait()
	return member{f, t}
}

func TestFleetHearsOfACoolDownWhileItIsBeingLetIn(t *testing.T) {
	bubble(t, 0, func(t *testing.T, r *rig, _ []member) {
		l := hosts.Limits{Rate: 5, Conns: 4}
		m := &meddler{Source: r.source}
		w := m.run(t)
		m.enter = func() {
			r.learn(hosts.Asked, 20*time.Second)
			synctest.Wait()
		}
		v := w.mustEnter(r, ask("a", l, want(8)))
		var later *hosts.LaterError
		if _, err := v.Permit(t.Context()); !errors.As(err, &later) {
			t.Errorf("a permit while the host is left alone: %v, want to be told to come later", err)
		}
		v.Leave()
	})
}

func TestFleetSweepsAgainWhenThatIsAskedForDuringASweep(t *testing.T) {
	bubble(t, 0, func(t *testing.T, r *rig, _ []member) {
		m := &meddler{Source: r.source}
		var mu sync.Mutex
		var sweeps []time.Time
		during := make(chan struct{})
		m.sweep = func() {
			mu.Lock()
			sweeps = append(sweeps, time.Now())
			first := len(sweeps) == 1
			mu.Unlock()
			if first {
				<-during
			}
		}
		w := m.run(t)
		v := w.mustEnter(r, ask("a", hosts.Limits{}, needsRobots))
		next := ask("b", hosts.Limits{}, needsRobots)
		r.queues.put(next.Queue, next.Batch, "active")
		if _, err := w.Enter(t.Context(), next); err == nil {
			t.Fatal("a second visit was let in while robots.txt is being fetched")
		}
		// Its deferral is not written yet, so somebody is to look in 50 ms.
		if err := v.Robots(t.Context(), true, time.Hour, "1 all -\n"); err != nil {
			t.Fatal(err)
		}
		close(during)
		time.Sleep(200 * time.Millisecond)
		v.Leave()
		mu.Lock()
		defer mu.Unlock()
		if len(sweeps) < 2 {
			t.Errorf("%d sweeps, want a second when it was asked for", len(sweeps))
		}
	})
}

func TestFleetUsesATurnThatIsALittleLate(t *testing.T) {
	bubble(t, 1, func(t *testing.T, r *rig, w []member) {
		v := w[0].mustEnter(r, ask("a", hosts.Limits{Rate: 0.1}, want(2)))
		defer v.Leave()
		defer w[0].permit(v)()
		taken := time.Now()
		time.Sleep(9 * time.Second)
		if err := v.Renew(t.Context(), taken); err != nil || time.Since(taken) != 9*time.Second {
			t.Errorf("nine seconds late, one request each ten: %v after %s, want it to be used", err, time.Since(taken))
		}
		time.Sleep(2 * time.Second)
		if err := v.Renew(t.Context(), taken); err != nil { // another turn: the one that there is by now
			t.Error(err)
		}
		var later *hosts.LaterError
		if err := v.Turn(t.Context()); !errors.As(err, &later) {
			t.Errorf("a third turn within eleven seconds: %v, want to be told to come later", err)
		}
	})
}
