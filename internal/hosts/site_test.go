package hosts_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// Two hosts at one address, and the site that they are with --per-address.
const first, second, shared = "one.example", "two.example:8080", "@192.0.2.1"

var atFirst, atSecond = at(first, shared), at(second, shared)

func TestSiteSpacesSendTimesOverItsHosts(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		const rate, burst = 5, 2
		l := hosts.Limits{Rate: rate, Burst: burst}
		var all []time.Time
		for i, where := range []func(*hosts.Ask){atFirst, atSecond, atFirst, atSecond} {
			all = append(all, r.mustEnter(ask(fmt.Sprint(i), l, want(3), where)).Times.At...)
		}
		slices.SortFunc(all, time.Time.Compare)
		if len(all) != 12 {
			t.Fatalf("%d send times, want 12", len(all))
		}
		for i := rate + burst; i < len(all); i++ {
			if all[i].Sub(all[i-rate-burst]) < time.Second {
				t.Errorf("%d send times within %s, want %d within 1 s", rate+burst+1, all[i].Sub(all[i-rate-burst]), rate+burst)
			}
		}
	})
}

func TestSiteHasPermitsForAllItsHosts(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 4}
		if got := r.mustEnter(ask("a", l, want(3), atFirst)).Permits; got != 3 {
			t.Errorf("the first has %d permits, want 3", got)
		}
		b := ask("b", l, want(3), atSecond)
		if got := r.mustEnter(b).Permits; got != 1 {
			t.Errorf("the second has %d permits, want the one that is left", got)
		}
		r.mustWait(ask("c", l, atFirst))
		r.leave(b, 1)
		if len(r.called(ask("c", l))) != 1 {
			t.Error("who waits at one host was not called when the other was left")
		}
		r.mustEnter(ask("d", l, want(3), at(first, ""))) // another address, and so another site
	})
}

func TestSiteLetsItsHostsTakeTurns(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		visiting := ask("before", l, atFirst)
		r.mustEnter(visiting)
		line := []hosts.Ask{ask("a1", l, atFirst), ask("a2", l, atFirst), ask("a3", l, atFirst), ask("b1", l, atSecond), ask("b2", l, atSecond)}
		for _, a := range line {
			r.mustWait(a)
		}
		if diff := cmp.Diff([]string{"a1", "b1", "a2", "b2", "a3"}, r.order(visiting, line)); diff != "" {
			t.Errorf("order (-want +got):\n%s", diff)
		}
	})
}

func TestSiteKeepsTheStrictestLimitsOfItsHosts(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		strict := ask("a", hosts.Limits{Rate: 1, Conns: 2}, atFirst)
		r.mustEnter(strict)
		beside := ask("b", hosts.Limits{Rate: 10, Conns: 8}, want(8), atSecond)
		got := r.mustEnter(beside)
		if got.Permits != 1 || got.Times.Interval < time.Second {
			t.Errorf("beside the strict host: %d permits, a request each %s; want 1 and 1 s", got.Permits, got.Times.Interval)
		}
		if _, err := r.source.Leave(t.Context(), beside, 0, len(got.Times.At), got.Times, 0); err != nil {
			t.Fatal(err)
		}
		r.leave(strict, 1)
		if got := r.mustEnter(ask("c", hosts.Limits{Rate: 10, Conns: 8}, want(8), atFirst)); got.Permits != 7 || got.Times.Interval > time.Second/5 {
			t.Errorf("without it: %d permits, a request each %s; want 7 and 0.1 s", got.Permits, got.Times.Interval)
		}
	})
}

func TestSiteIsLeftAloneWithAllItsHosts(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		r.learnAt(ask("", twoPlaces, atFirst), hosts.Asked, 20*time.Second)
		if got := r.mustWait(ask("b", twoPlaces, atSecond)).Next; !near(got, 20*time.Second) {
			t.Errorf("the other host is looked at in %s, want 20 s", got)
		}
		r.mustEnter(ask("c", twoPlaces, at("three.example", "@192.0.2.3")))
	})
}

func TestSiteKnowsEachRobotsByItself(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		scout, other := ask("a", twoPlaces, needsRobots, atFirst), ask("b", twoPlaces, needsRobots, atSecond)
		if !r.mustEnter(scout).Scout {
			t.Fatal("the first is not to fetch robots.txt")
		}
		r.mustWait(other) // for the same server
		r.robots(scout, true, time.Hour, "1 all -\n")
		if len(r.called(other)) != 1 {
			t.Error("the other host was not called")
		}
		if !r.mustEnter(other).Scout {
			t.Error("the other host is let in by a robots.txt that is not its own")
		}
		r.robots(other, true, time.Hour, "1 file -\n")
		for host, want := range map[string]string{first: "1 all -\n", second: "1 file -\n", shared: ""} {
			if text, err := r.source.RobotsText(t.Context(), host); err != nil || text != want {
				t.Errorf("robots.txt of %s: %q, %v; want %q", host, text, err, want)
			}
		}
		r.leave(scout, 1)
		r.leave(other, 1)
		if r.mustEnter(ask("c", twoPlaces, needsRobots, at(first, "@192.0.2.2"))).Scout {
			t.Error("robots.txt is to be fetched again because the host has moved")
		}
	})
}

func TestSiteKeepsNobodyWaitingForTheRobotsOfAnotherHost(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 1}
		scout := ask("a", l, needsRobots, atFirst, patience(time.Hour))
		r.mustEnter(scout)
		same, other := ask("b", l, needsRobots, atFirst, patience(time.Hour)), ask("c", l, needsRobots, atSecond, patience(time.Hour))
		r.mustWait(same)
		r.mustWait(other)
		r.robots(scout, false, time.Minute, "")
		r.leave(scout, 1)
		if got := r.called(same, other); !cmp.Equal(got, []string{"c"}) {
			t.Errorf("called %q, want c, which waits for another robots.txt", got)
		}
		r.mustWait(same) // its patience begins
		r.mustEnter(other)
		r.robots(other, true, time.Hour, "1 all -\n") // and is not ended by this
		r.leave(other, 1)
		r.pass(61 * time.Minute)
		r.robots(same, false, time.Hour, "")
		if got := r.begin(same).Unavailable; got == nil || !got.Robots || got.Host != first {
			t.Errorf("after an hour: %v, want robots.txt of %s to be unavailable", got, first)
		}
	})
}

func TestSiteThatAHostHasMovedFromForgetsIt(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		const elsewhere = "@192.0.2.2"
		l := hosts.Limits{Conns: 1}
		visiting, next := ask("a", l, atSecond), ask("c", hosts.Limits{Conns: 3}, want(3), atSecond)
		moves := ask("b", l, atFirst)
		r.mustEnter(visiting)
		r.mustWait(moves)
		r.mustWait(next)
		moves.Site = elsewhere
		r.mustEnter(moves)
		r.leave(visiting, 1)
		if got := r.called(next); len(got) != 1 {
			t.Errorf("called %q, want who waits where the host was", got)
		}
		if got := r.mustEnter(next).Permits; got != 3 {
			t.Errorf("%d permits, want 3: the limit of the host that has gone holds no more", got)
		}
		again := moves // its worker died, and the host has moved back
		again.Site, again.Visit = shared, "again"
		r.queues.put("default", "b", "pending")
		r.mustWait(again)
		r.mustEnter(ask("d", l, at(first, elsewhere)))
	})
}

func TestFleetCoolsAllHostsOfASite(t *testing.T) {
	bubble(t, 2, func(t *testing.T, r *rig, w []member) {
		one, two := w[0].mustEnter(r, ask("a", twoPlaces, atFirst)), w[1].mustEnter(r, ask("b", twoPlaces, atSecond))
		if !w[0].Visiting(first) || w[0].Visiting(second) || w[0].Visiting(shared) {
			t.Error("a worker visits other hosts than the one that it visits")
		}
		one.Learn(t.Context(), hosts.Asked, 20*time.Second)
		synctest.Wait()
		if _, err := two.Permit(t.Context()); err == nil {
			t.Error("a visit to the other host goes on while the site is left alone")
		}
		one.Leave()
		two.Leave()
		if _, err := w[1].Enter(t.Context(), ask("c", hosts.Limits{}, atSecond)); err == nil {
			t.Error("a visit without limits was let in to the other host while the site is left alone")
		}
		if w[0].Visiting(first) {
			t.Error("a worker still visits what it has left")
		}
	})
}

func TestReportOfASiteIsOfEachHost(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := redisRig(t, rdb)
		l := hosts.Limits{Rate: 1000, Conns: 1}
		a, b := ask("a", l, needsRobots, atFirst), ask("b", l, atSecond)
		r.mustEnter(a)
		r.mustWait(b)
		r.robots(a, true, time.Minute, "1 file -\n")
		begun := func(a hosts.Ask, n int) {
			t.Helper()
			if _, err := r.source.Leave(t.Context(), a, -1, 0, hosts.Times{Begun: []hosts.Span{{Number: 1, Count: n}}}, 1); err != nil {
				t.Fatal(err)
			}
		}
		begun(a, 3)
		r.mustEnter(b)
		r.learnAt(b, hosts.Asked, time.Minute)
		begun(b, 5)
		for _, host := range []string{first, second} { // as workers note them
			if err := rdb.Set(t.Context(), "fetchfleet:host:"+host+":address", shared, time.Hour).Err(); err != nil {
				t.Fatal(err)
			}
		}
		got := map[string]hosts.Report{}
		err := hosts.Reports(t.Context(), rdb, "job", hosts.ReportOptions{}, func(one *hosts.Report) error {
			got[one.Host] = *one
			return nil
		})
		if err != nil || len(got) != 2 {
			t.Fatalf("reports of %d hosts, %v; want two", len(got), err)
		}
		one, two := got[first], got[second]
		if *one.Requests != 3 || *two.Requests != 5 || one.Waits != 0 || two.Waits != 1 || one.RetryAfterMet != 0 || two.RetryAfterMet != 1 {
			t.Errorf("counted\n%+v\n%+v", one, two)
		}
		if one.Robots.Status != hosts.RobotsRules || one.Robots.Fetches != 1 || two.Robots.Status != hosts.RobotsUnknown {
			t.Errorf("robots.txt\n%+v\n%+v", one.Robots, two.Robots)
		}
		if one.State != hosts.HostCooling || two.State != hosts.HostCooling {
			t.Errorf("states %s and %s, want that of the site, %s", one.State, two.State, hosts.HostCooling)
		}
	})
}

func TestSiteThatIsTheHostCostsNothing(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		calls := 0
		fleet := hosts.NewFleet(hosts.NewRedis(rdb, asynqkeys.CallLua, func() { calls++ }))
		count := &trips{}
		rdb.AddHook(count)
		if site, err := fleet.Site(t.Context(), second); err != nil || site != second || calls+count.single+count.pipelines > 0 {
			t.Errorf("site %q, %v, after %d calls; want the host itself without any", site, err, calls+count.single+count.pipelines)
		}
	})
}
