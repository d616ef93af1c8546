package hosts_test

import (
	"context"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
)

func TestSourceLeavesAHostAloneForAsLongAsItAsks(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		a, b := ask("a", twoPlaces), ask("b", twoPlaces)
		r.mustEnter(a)
		if got := r.learn(hosts.Asked, 20*time.Second); !near(got, 20*time.Second) {
			t.Errorf("left alone for %s, want 20 s", got)
		}
		if got := r.learn(hosts.Asked, 5*time.Second); !near(got, 20*time.Second) {
			t.Errorf("left alone for %s after a shorter pause was asked for, want 20 s", got)
		}
		if got := r.mustWait(b).Next; !near(got, 20*time.Second) {
			t.Errorf("somebody looks in %s, want 20 s", got)
		}
		r.leave(a, 0)
		r.pass(19 * time.Second)
		r.sweep()
		if len(r.called(b)) != 0 {
			t.Error("called before the pause is over")
		}
		r.pass(1500 * time.Millisecond)
		r.sweep()
		if len(r.called(b)) != 1 {
			t.Error("not called when the pause is over")
		}
		if got := r.mustEnter(b); got.Slowness < 1.1 {
			t.Errorf("the host is taken %v times slower after an overload", got.Slowness)
		}
	})
}

func TestSourceCoolsLongerWithEachOverloadAndRecovers(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		for _, want := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second} {
			if got := r.learn(hosts.Overload, 0); !near(got, want) {
				t.Errorf("left alone for %s, want %s", got, want)
			}
			r.pass(want + 100*time.Millisecond)
		}
		a := ask("a", hosts.Limits{Rate: 1})
		slow := r.mustEnter(a).Slowness
		if slow < 5 || slow > 8 {
			t.Errorf("taken %v times slower after three overloads, want nearly 8", slow)
		}
		r.leave(a, 1)
		if got := r.learn(hosts.Overload, 0); !near(got, time.Second) {
			t.Errorf("left alone for %s after all was well, want 1 s", got)
		}
		r.pass(5 * time.Minute)
		if got := r.mustEnter(ask("b", hosts.Limits{Rate: 1})).Slowness; got != 1 {
			t.Errorf("taken %v times slower after five minutes, want full speed", got)
		}
	})
}

func TestSourceSetsASilentHostAside(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		l := hosts.Limits{Conns: 4}
		r.learn(hosts.Failed, 0)
		r.learn(hosts.Well, 0) // in a row means in a row
		for i := range 4 {
			if got := r.learn(hosts.Failed, 0); got != 0 {
				t.Fatalf("left alone for %s after %d failures", got, i+1)
			}
			r.learn(hosts.Nothing, 0) // says nothing, not even that it is well
		}
		old := ask("old", l)
		r.mustEnter(old)
		if got := r.learn(hosts.Failed, 0); !near(got, 30*time.Second) {
			t.Fatalf("left alone for %s after five failures, want 30 s", got)
		}
		r.learn(hosts.Failed, 0) // what was under way ends the same
		r.leave(old, 3)          // and what went well before says nothing about now
		r.pass(31 * time.Second)
		probe, other := ask("probe", l, want(3)), ask("other", l)
		if got := r.mustEnter(probe); !got.Probe || got.Permits != 1 {
			t.Errorf("after that: probe %v, %d permits; want one probe", got.Probe, got.Permits)
		}
		r.mustWait(other)
		if got := r.learn(hosts.Failed, 0); !near(got, time.Minute) {
			t.Errorf("left alone for %s after the probe failed, want 60 s", got)
		}
		r.learn(hosts.Nothing, 0)
		r.leave(probe, 0)
		r.pass(61 * time.Second)
		r.sweep()
		if got := r.mustEnter(other); !got.Probe {
			t.Error("the next is no probe")
		}
		r.mustWait(ask("third", l))
		r.learn(hosts.Well, 0)
		if len(r.called(ask("third", l))) != 1 {
			t.Error("nobody was called when the probe went well")
		}
		if got := r.mustEnter(ask("third", l)); got.Probe {
			t.Error("still probing")
		}
	})
}

func TestSourcePatienceEnds(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		a, b := ask("a", twoPlaces, patience(10*time.Second)), ask("b", twoPlaces, patience(10*time.Second))
		r.learn(hosts.Asked, time.Hour)
		if got := r.mustWait(a).PatienceEnd; !near(got, 10*time.Second) {
			t.Errorf("patience ends in %s, want 10 s", got)
		}
		r.pass(9 * time.Second)
		r.mustWait(b)
		r.pass(1500 * time.Millisecond)
		for _, x := range []hosts.Ask{a, b} {
			if got := r.begin(x).Unavailable; got == nil || got.Robots {
				t.Errorf("batch %s: %v, want the host to be unavailable", x.Batch, got)
			}
		}
		replay := ask("a", twoPlaces, patience(10*time.Second), visit("replay"))
		r.mustWait(replay) // has a patience of its own
		r.pass(2 * time.Hour)
		r.mustEnter(replay) // nobody is given up who may try
	})
}

func TestSourcePatienceEndsForOneBatchThatProbesAgainAndAgain(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		a := ask("a", twoPlaces, patience(time.Hour))
		for range 5 {
			r.learn(hosts.Failed, 0)
		}
		for i := range 30 {
			answer := r.begin(a)
			switch {
			case answer.Unavailable != nil:
				if i < 5 {
					t.Errorf("given up after %d rounds", i)
				}
				return
			case answer.Grant != nil:
				r.learn(hosts.Failed, 0)
				r.leave(a, 0)
			default:
				r.queues.put("default", "a", "retry")
				r.pass(10 * time.Minute)
			}
		}
		t.Error("it is never given up")
	})
}

func TestSourceFetchesRobotsOnceForAll(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		scout, other := ask("a", twoPlaces, needsRobots), ask("b", twoPlaces, needsRobots)
		if !r.mustEnter(scout).Scout {
			t.Fatal("the first is not to fetch robots.txt")
		}
		r.mustWait(other)
		if _, err := r.source.Robots(t.Context(), scout, true, time.Hour, "1 all -\n"); err != nil {
			t.Fatal(err)
		}
		if len(r.called(other)) != 1 {
			t.Error("nobody was called when robots.txt was known")
		}
		if r.mustEnter(other).Scout {
			t.Error("the second is to fetch it again")
		}
		if text, err := r.source.RobotsText(t.Context(), host); err != nil || text != "1 all -\n" {
			t.Errorf("text %q, %v", text, err)
		}
		r.leave(scout, 1)
		r.pass(2 * time.Hour)
		if !r.mustEnter(ask("c", twoPlaces, needsRobots)).Scout {
			t.Error("nobody fetches it when it is old")
		}
	})
}

func TestSourceAsksForRobotsAgainAndKeepsNobodyElseWaiting(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		one := hosts.Limits{Conns: 1}
		scout := ask("a", one, needsRobots, patience(time.Hour))
		r.mustEnter(scout)
		needs, ignores := ask("b", one, needsRobots, patience(time.Hour)), ask("c", one, ofJob("ignores"))
		r.mustWait(needs)
		r.mustWait(ignores)
		if _, err := r.source.Robots(t.Context(), scout, false, time.Minute, ""); err != nil {
			t.Fatal(err)
		}
		r.leave(scout, 1)
		if len(r.called(needs)) != 0 || len(r.called(ignores)) != 1 {
			t.Errorf("called %q, want only who does without robots.txt", r.called(needs, ignores))
		}
		r.mustEnter(ignores)
		r.leave(ignores, 1)
		r.pass(61 * time.Second)
		r.sweep()
		if !r.mustEnter(needs).Scout {
			t.Error("the next is not to ask for robots.txt again")
		}
		if _, err := r.source.Robots(t.Context(), needs, false, time.Hour, ""); err != nil {
			t.Fatal(err)
		}
		r.leave(needs, 0)
		r.pass(59 * time.Minute / 2)
		d := ask("d", one, needsRobots, ofJob("late"), patience(time.Minute))
		r.enter(d)
		r.learn(hosts.Overload, 0)
		if _, err := r.source.Robots(t.Context(), d, false, time.Hour, ""); err != nil {
			t.Fatal(err)
		}
		r.leave(d, 0)
		r.pass(2 * time.Minute)
		if got := r.begin(d).Unavailable; got == nil || !got.Robots {
			t.Errorf("patience over: %v, want robots.txt to be unavailable", got)
		}
	})
}

func TestSourceTellsEverybodyWhoIsLeftAlone(t *testing.T) {
	onSources(t, func(t *testing.T, r *rig) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		type news struct {
			host  string
			pause time.Duration
		}
		heard, ended := make(chan news, 1000), make(chan struct{})
		go func() {
			defer close(ended)
			_ = r.source.Cooled(ctx, func(host string, pause time.Duration) { heard <- news{host, pause} })
		}()
		var got news
		for i := 1; got.host == ""; i++ { // until it listens
			r.learn(hosts.Asked, time.Duration(i)*time.Minute)
			select {
			case got = <-heard:
			case <-time.After(20 * time.Millisecond):
			}
		}
		if got.host != host || got.pause < 30*time.Second {
			t.Errorf("heard %+v", got)
		}
		cancel()
		<-ended
	})
}
