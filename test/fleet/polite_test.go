//go:build unix

package fleet_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/politetest"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// politeWindow is the window in which limits are looked at: long enough for a burst to show, short enough for a pace.
const politeWindow = 10 * time.Second

// resort is a world whose hosts want to be visited politely, and note whether they were.
type resort struct {
	*world
	hosts *politetest.Origin
	want  map[string]string // outcome of each URL
	urls  []string
}

func newResort(t testing.TB, hosts int) *resort {
	t.Helper()
	o, err := politetest.New(politetest.Options{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return &resort{world: newWorld(t), hosts: o, want: map[string]string{}}
}

// add puts so many pages of each host on the list, from the first host on.
func (r *resort) add(counts ...int) {
	for _, u := range r.hosts.List(counts) {
		r.urls = append(r.urls, u)
		r.want[u] = "ok"
	}
}

// polite are the flags of a job with these limits.
func polite(l politetest.Limits, more ...string) []string {
	return append([]string{"--host-rate", fmt.Sprint(l.Rate), "--host-burst", fmt.Sprint(l.Burst), "--host-conns", fmt.Sprint(l.Conns)}, more...)
}

// kept demands that no host saw more than the limits allow.
func (r *resort) kept(l politetest.Limits) {
	r.t.Helper()
	log := r.hosts.Log()
	for _, breach := range log.Breaches(l, politeWindow) {
		r.t.Error(breach)
	}
	within, inService := log.Worst(politeWindow)
	r.t.Logf("%d requests in %.1f s; the most that a host saw: %d within %s (limit %d), %d in service (limit %d)", len(log),
		log.Makespan().Seconds(), within, politeWindow, l.Within(politeWindow), inService, l.Conns)
}

// robotsOnce demands that robots.txt of each host was fetched once by the whole fleet.
func (r *resort) robotsOnce(hosts ...int) {
	r.t.Helper()
	robots := r.hosts.Log().Robots()
	for _, i := range hosts {
		if n := len(robots.Host(r.hosts.Host(i))); n != 1 {
			r.t.Errorf("robots.txt of host %d was fetched %d times, want once for the whole fleet", i, n)
		}
	}
}

// deserted demands that soon no connection to a host is open: a worker that leaves a limited host closes its own.
func (r *resort) deserted() {
	r.t.Helper()
	const soon = 5 * time.Second
	open := 0
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(50 * time.Millisecond) {
		open = 0
		for i := range r.hosts.Hosts() {
			open += r.hosts.Connections(i)
		}
		if open == 0 {
			return
		}
	}
	r.t.Errorf("%s after the job ended %d connections are open, want none: who leaves a limited host closes its own", soon, open)
}

// served waits until the origin has had so many requests.
func (r *resort) served(n int) {
	r.t.Helper()
	await(r.t, time.Minute, fmt.Sprintf("the origin has had %d requests", n), func() bool { return len(r.hosts.Log()) >= n })
}

func hostsFrom(first, end int) (all []int) {
	for i := first; i < end; i++ {
		all = append(all, i)
	}
	return all
}

// fleetIsOnePoliteVisitor has three workers visit thirty hosts, of which one worker is killed in mid-visit, one
// joins and Redis is started again, and holds what the hosts saw against their limits.
func fleetIsOnePoliteVisitor(t *testing.T) {
	if testing.Short() {
		t.Skip("takes three quarters of a minute")
	}
	t.Parallel()
	const hosts, delay, restart = 30, 500 * time.Millisecond, 5 * time.Second
	limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 2}
	r := newResort(t, hosts)
	counts := politetest.Zipf(600, hosts) // 150 of the largest
	bound := politetest.Bound(counts, limits.Rate)
	for i := range hosts {
		if i%3 == 1 { // as slow as 5/s with two connections just cannot be
			r.hosts.Answer(i, func(int) politetest.Answer { return politetest.Answer{Delay: delay} })
			bound = max(bound, time.Duration(counts[i])*delay/time.Duration(limits.Conns))
		}
	}
	r.add(counts...)
	r.enqueue(r.urls, polite(limits)...)
	fleet := &crew{world: r.world, size: []string{"--visits", "16"}}
	victim := fleet.hire("victim")
	fleet.hire("second")
	fleet.hire("third")
	r.served(150)
	victim.kill()
	killed := r.hosts.Now()
	await(t, 5*time.Second, "the origin misses the killed worker", func() bool { return r.hosts.Log().Broken() > 0 })
	r.served(250)
	fleet.hire("joined")
	r.served(300)
	r.redis.Restart()
	r.ends(2 * time.Minute)
	r.deserted()
	fleet.dismiss()
	r.kept(limits)
	r.robotsOnce(hostsFrom(0, hosts)...)
	r.whole(r.want)
	log := r.hosts.Log()
	limit := bound + bound*3/100 + 15*time.Second + restart
	t.Logf("makespan %.1f s, bound %.1f s; %d requests were broken off by the kill at %.1f s", log.Makespan().Seconds(),
		bound.Seconds(), log.Broken(), killed.Seconds())
	if got := log.Makespan(); got > limit {
		t.Errorf("makespan %s, want at most %s: 1.03 of the bound, 15s for the killed worker and %s for Redis", got, limit, restart)
	}
}

// permitsOfTheDeadAreFree kills one of two workers while it holds the only permit of several hosts.
func permitsOfTheDeadAreFree(t *testing.T) {
	if testing.Short() {
		t.Skip("a dead worker is noticed after 12 s")
	}
	t.Parallel()
	const hosts, free = 8, 15 * time.Second
	limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 1}
	r := newResort(t, hosts)
	var counts []int
	for i := range hosts {
		r.hosts.Answer(i, func(int) politetest.Answer { return politetest.Answer{Delay: 700 * time.Millisecond} })
		counts = append(counts, 20)
	}
	r.add(counts...)
	r.enqueue(r.urls, polite(limits)...)
	fleet := &crew{world: r.world}
	victim := fleet.hire("victim")
	r.served(3 * hosts) // it has the hosts, and is well under way
	heir := fleet.hire("heir")
	r.takesBatches(heir)
	victim.kill()
	killed := r.hosts.Now()
	r.ends(2 * time.Minute)
	fleet.dismiss()
	r.kept(limits)
	r.whole(r.want)
	log, held := r.hosts.Log(), 0
	for name, seen := range log.ByHost() {
		broken := seen.Where(func(q *politetest.Request) bool { return q.Broken })
		if len(broken) == 0 {
			continue
		}
		held++
		next, ok := seen.Next(killed)
		if !ok {
			t.Errorf("%s was not visited again", name)
			continue
		}
		t.Logf("%s was visited again %.1f s after its visitor was killed", name, (next.Start - killed).Seconds())
		if next.Start-killed > free {
			t.Errorf("%s was visited again after %s, want within %s", name, next.Start-killed, free)
		}
	}
	if held == 0 {
		t.Error("the killed worker was in no host, so nothing was shown")
	}
}

// retryAfterHoldsForTheWholeFleet has one host answer one of its requests with 429 and Retry-After: 20.
func retryAfterHoldsForTheWholeFleet(t *testing.T) {
	if testing.Short() {
		t.Skip("a host asks for 20 s")
	}
	t.Parallel()
	const hosts, told, asked, notice = 8, 0, 20 * time.Second, 150 * time.Millisecond
	limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 4}
	r := newResort(t, hosts)
	r.hosts.Answer(told, func(n int) politetest.Answer {
		if n == 20 {
			return politetest.Answer{Status: 429, RetryAfter: "20"}
		}
		return politetest.Answer{}
	})
	counts := []int{60}
	for range hosts - 1 {
		counts = append(counts, 130) // 26 s: longer than the host is silent
	}
	r.add(counts...)
	r.enqueue(r.urls, polite(limits)...)
	r.fetched(limits, "16", 2*time.Minute)
	log := r.hosts.Log()
	refused := log.Where(func(q *politetest.Request) bool { return q.Status == 429 })
	if len(refused) != 1 {
		t.Fatalf("%d answers were 429, want 1", len(refused))
	}
	said := refused[0].End
	host := log.Host(r.hosts.Host(told))
	for _, q := range host.Between(said+notice, said+asked) {
		t.Errorf("%s was requested %s after the host had asked for %s", q.Path, q.Start-said, asked)
	}
	if next, ok := host.Next(said + asked); !ok || next.Start > said+asked+3*time.Second {
		t.Errorf("the next request came %s after the 429 (any: %v), want soon after %s", next.Start-said, ok, asked)
	}
	until := said + 18*time.Second
	full := int(0.95 * limits.Rate * (until - said).Seconds())
	for i := 1; i < hosts; i++ {
		if n := len(log.Host(r.hosts.Host(i)).Between(said, until)); n < full {
			t.Errorf("host %d saw %d requests while another was silent, want its full rate, %d", i, n, full)
		}
	}
	for u, rec := range r.records() {
		if rec.Attempts != 1 {
			t.Errorf("%s: %d attempts, want 1: a wait costs none", u, rec.Attempts)
		}
	}
}

// fetched has three workers with so many visits each do the job, which demands that the limits are kept and all is there.
func (r *resort) fetched(limits politetest.Limits, visits string, within time.Duration) {
	r.t.Helper()
	fleet := &crew{world: r.world, size: []string{"--visits", visits}}
	for i := range 3 {
		fleet.hire(fmt.Sprint("worker", i))
	}
	r.ends(within)
	fleet.dismiss()
	r.kept(limits)
	r.whole(r.want)
}

// overloadWithoutRetryAfterCoolsTheFleet has a host answer 503 for a while, without saying for how long.
func overloadWithoutRetryAfterCoolsTheFleet(t *testing.T) {
	t.Parallel()
	const hosts, ill = 2, 0
	limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 4}
	r := newResort(t, hosts)
	var until time.Duration
	r.hosts.Answer(ill, func(n int) politetest.Answer {
		now := r.hosts.Now()
		if n == 10 {
			until = now + 3*time.Second
		}
		if n >= 10 && now < until {
			return politetest.Answer{Status: 503}
		}
		return politetest.Answer{}
	})
	r.add(40, 40)
	r.enqueue(r.urls, polite(limits)...)
	r.fetched(limits, "8", 90*time.Second)
	refused := r.hosts.Log().Where(func(q *politetest.Request) bool { return q.Status == 503 })
	t.Logf("%d requests were answered 503 within 3 s", len(refused))
	if n, most := len(refused), 7; n == 0 || n > most { // 15 at full rate, of which some were under way
		t.Errorf("%d requests were answered 503, want 1 to %d", n, most)
	}
}

// skipped demands that the records of these URLs say so.
func (r *resort) skipped(part string) {
	r.t.Helper()
	n := 0
	for u, rec := range r.records() {
		if !strings.Contains(u, part) {
			continue
		}
		n++
		if rec.Outcome != store.Skipped || rec.Error == nil || rec.Error.Class != "robots" || rec.Status != 0 {
			r.t.Errorf("record of %s: outcome %s, status %d, error %+v; want skipped, class robots", u, rec.Outcome, rec.Status, rec.Error)
		}
	}
	if n == 0 {
		r.t.Errorf("no record of a URL with %s", part)
	}
}
