//go:build unix

package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/politetest"
)

// forbidding is a robots.txt that forbids /private/.
const forbidding = "User-agent: *\nDisallow: /private/\n"

// addPrivate puts so many pages on the list that forbidding forbids.
func (r *resort) addPrivate(host, n int) {
	for k := range n {
		u := r.hosts.URL(host, fmt.Sprintf("/private/%d", k))
		r.urls = append(r.urls, u)
		r.want[u] = "robots"
	}
}

// robotsAreAskedFirst has some hosts answer 503 for their robots.txt until it is known that nobody went on
// without it, and others forbid some of their pages from the beginning.
func robotsAreAskedFirst(t *testing.T) {
	if testing.Short() {
		t.Skip("a failing robots.txt is asked for again after a while")
	}
	t.Parallel()
	const hosts, ill = 6, 3
	limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 4}
	r := newResort(t, hosts)
	for i := range hosts {
		r.hosts.Robots(i, politetest.Answer{Body: forbidding})
		if i < ill {
			r.hosts.Robots(i, politetest.Answer{Status: 503})
		}
		r.addPrivate(i, 8)
	}
	r.add(20, 20, 20, 20, 20, 20)
	r.enqueue(r.urls, polite(limits)...)
	fleet := &crew{world: r.world}
	for i := range 3 {
		fleet.hire(fmt.Sprint("worker", i))
	}
	await(t, 30*time.Second, "the hosts that are well are done, the others were asked for robots.txt", func() bool {
		log := r.hosts.Log()
		well := true
		for i := range hosts {
			well = well && len(log.Robots().Host(r.hosts.Host(i))) > 0 && (i < ill || r.hosts.Pages(i) == 20)
		}
		return well
	})
	for i := range ill {
		if n := r.hosts.Pages(i); n > 0 {
			t.Errorf("host %d: %d pages were fetched while its robots.txt failed, want none", i, n)
		}
		r.hosts.Robots(i, politetest.Answer{Body: forbidding})
	}
	r.ends(2 * time.Minute)
	fleet.dismiss()
	r.kept(limits)
	r.whole(r.want)
	r.skipped("/private/")
	r.robotsOnce(hostsFrom(ill, hosts)...)
	log := r.hosts.Log()
	for i := range ill {
		r.askedInTurn(log.Host(r.hosts.Host(i)))
	}
	for _, q := range log.Where(func(q *politetest.Request) bool { return len(q.Path) > 9 && q.Path[:9] == "/private/" }) {
		t.Errorf("%s%s was fetched, which is not allowed", q.Host, q.Path)
	}
}

// askedInTurn demands of a host whose robots.txt failed at first that it was asked for by one worker at a time, with
// pauses, until it came, and for nothing else before.
func (r *resort) askedInTurn(log politetest.Log) {
	r.t.Helper()
	robots := log.Robots()
	came := robots.Where(func(q *politetest.Request) bool { return q.Status == 200 })
	if len(came) != 1 {
		r.t.Errorf("robots.txt was had %d times, want once for the whole fleet", len(came))
		return
	}
	if n, _ := robots.Most(500 * time.Millisecond); n > 1 {
		r.t.Errorf("%d requests for robots.txt within half a second, want one for the whole fleet", n)
	}
	for _, q := range log.Between(0, came[0].End) {
		if !q.Robots() {
			r.t.Errorf("%s%s was fetched before robots.txt was had", q.Host, q.Path)
		}
	}
	for _, q := range robots.Between(came[0].End, r.hosts.Now()) {
		r.t.Errorf("robots.txt was asked for again at %s, after it was had at %s", q.Start, came[0].End)
	}
	r.t.Logf("robots.txt failed %d times, and was had %.1f s after the first request", len(robots)-1, (came[0].End - log[0].Start).Seconds())
}

// robotsThatNeverAnswerEndTheJob has robots.txt fail for longer than the patience.
func robotsThatNeverAnswerEndTheJob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		robots politetest.Answer
	}{
		{"always 503", politetest.Answer{Status: 503}},
		{"no answer", politetest.Answer{Delay: time.Hour}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := newResort(t, 2)
			r.hosts.Robots(0, c.robots)
			r.add(20, 20)
			for k := range 20 {
				r.want[r.hosts.URL(0, fmt.Sprintf("/p/%d", k))] = "robots_unavailable"
			}
			limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 4}
			r.enqueue(r.urls, polite(limits, "--patience", "5s", "--timeout", "1s")...)
			fleet := &crew{world: r.world}
			fleet.hire("one")
			fleet.hire("two")
			began := time.Now()
			r.ends(90 * time.Second)
			t.Logf("the job ended after %.1f s", time.Since(began).Seconds())
			fleet.dismiss()
			r.kept(limits)
			r.whole(r.want)
			if n := r.hosts.Pages(0); n != 0 {
				t.Errorf("%d pages were fetched of a host without its robots.txt, want none", n)
			}
			r.robotsOnce(1)
		})
	}
}

// robotsMayBeIgnored fetches what is forbidden, and no robots.txt, for a job that says so.
func robotsMayBeIgnored(t *testing.T) {
	t.Parallel()
	r := newResort(t, 1)
	r.hosts.Robots(0, politetest.Answer{Body: forbidding})
	r.addPrivate(0, 5)
	for u := range r.want {
		r.want[u] = "ok"
	}
	r.enqueue(r.urls, polite(politetest.Limits{Rate: 20, Burst: 1, Conns: 4}, "--robots", "ignore")...)
	worker := r.worker("worker")
	r.ends(30 * time.Second)
	worker.terminate(20 * time.Second)
	r.whole(r.want)
	if n := len(r.hosts.Log().Robots()); n != 0 {
		t.Errorf("robots.txt was fetched %d times, want never", n)
	}
}

// redirectsOfASlowHostAreFollowed has a host redirect from its robots.txt and from its page, each time for longer than a
// visit waits in its slot.
func redirectsOfASlowHostAreFollowed(t *testing.T) {
	if testing.Short() {
		t.Skip("four exchanges, four seconds apart")
	}
	t.Parallel()
	r := newResort(t, 1)
	r.hosts.Robots(0, politetest.Answer{Status: 301, Location: "/rules.txt"})
	answers := []politetest.Answer{{Body: forbidding}, {Status: 302, Location: "/moved"}, {}}
	r.hosts.Answer(0, func(n int) politetest.Answer { return answers[min(n, len(answers)-1)] })
	page := r.hosts.URL(0, "/page")
	r.enqueue([]string{page}, polite(politetest.Limits{Rate: 0.25, Burst: 1, Conns: 4})...)
	worker := r.worker("worker")
	r.ends(time.Minute)
	worker.terminate(20 * time.Second)
	r.whole(map[string]string{page: "ok"})
	var paths []string
	for _, request := range r.hosts.Log() {
		paths = append(paths, request.Path)
	}
	if diff := cmp.Diff([]string{"/robots.txt", "/rules.txt", "/page", "/moved"}, paths); diff != "" {
		t.Errorf("requests differ (-want +got):\n%s", diff)
	}
	if got := r.records()[page]; len(got.Redirects) != 1 || got.Attempts != 1 {
		t.Errorf("redirects %v, attempts %d; want one and one", got.Redirects, got.Attempts)
	}
}
