//go:build unix

package fleet_test

import (
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/politetest"
)

// hostsAtOneAddressAreOneServer has two workers with --per-address visit three hosts, which are ports of one address, and
// holds what the server saw of all of them against the limits of one.
func hostsAtOneAddressAreOneServer(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a quarter of a minute")
	}
	t.Parallel()
	const pages, delay = 25, 250 * time.Millisecond
	limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 2}
	var origins []*politetest.Origin
	w := newWorld(t)
	want := map[string]string{}
	var urls []string
	for range 3 {
		o, err := politetest.New(politetest.Options{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(o.Close)
		o.Answer(0, func(int) politetest.Answer { return politetest.Answer{Delay: delay} })
		origins = append(origins, o)
		for _, u := range o.List([]int{pages}) { // one host after the other
			urls = append(urls, u)
			want[u] = "ok"
		}
	}
	w.enqueue(urls, polite(limits)...)
	fleet := &crew{world: w, size: []string{"--per-address"}}
	fleet.hire("one")
	fleet.hire("two")
	w.ends(2 * time.Minute)
	fleet.dismiss()
	w.whole(want)
	var log, server politetest.Log // the same requests, by host and as those of one
	for _, o := range origins {
		later := o.Now() - origins[0].Now() // each counts from its own beginning
		for _, r := range o.Log() {
			r.Start, r.End = r.Start-later, r.End-later
			log = append(log, r)
			r.Host = "the server"
			server = append(server, r)
		}
		if n := len(o.Log().Robots()); n != 1 {
			t.Errorf("robots.txt of %s was fetched %d times, want once: it is each host's own", o.Host(0), n)
		}
	}
	for _, breach := range server.Breaches(limits, politeWindow) {
		t.Error(breach)
	}
	bound := time.Duration(float64(len(server)) / limits.Rate * float64(time.Second))
	within, inService := server.Worst(politeWindow)
	t.Logf("%d requests in %.1f s, bound %.1f s; the most that the server saw: %d within %s (limit %d), %d in service (limit %d)",
		len(server), server.Makespan().Seconds(), bound.Seconds(), within, politeWindow, limits.Within(politeWindow), inService, limits.Conns)
	if got, limit := server.Makespan(), bound+bound*3/100+5*time.Second; got > limit {
		t.Errorf("makespan %s, want at most %s", got, limit)
	}
	first, _ := log.Next(0)
	half := log.Between(0, first.Start+bound/2)
	for _, o := range origins { // they take turns by batches, which differ in length
		if len(half.Host(o.Host(0))) == 0 {
			t.Errorf("%s had none of the first %d requests, want the hosts to take turns", o.Host(0), len(half))
		}
	}
}
