package worker

import (
	"cmp"
	"context"
	"fmt"
	"net/url"
	"slices"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/hosts/robots"
	"github.com/fetchfleet/fetchfleet/internal/hosts/rules"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// manners are how a delivery is to behave at its host: by the fleet's rules for it, and its robots.txt.
type manners struct {
	rule   rules.Rule
	page   *page         // nil: not known, or not asked for
	robots *robots.Rules // for our user agent; nil allows everything
	secret error         // the host wants a certificate of ours that this worker cannot have
}

// priorities of the queues in a host's line.
var priorities = []string{"critical", "default", "low"}

func priority(queue string) int {
	if i := slices.Index(priorities, queue); i >= 0 {
		return i
	}
	return 1
}

func (d *delivery) userAgent() string {
	if d.manners.rule.Agent != "" {
		return d.manners.rule.Agent
	}
	return d.spec.UserAgent
}

// obeys reports whether robots.txt is to be obeyed: the fleet's rules win over the job's.
func (d *delivery) obeys() bool {
	if d.manners.rule.Robots != "" {
		return d.manners.rule.Robots == rules.Obey
	}
	return d.spec.Robots == "obey"
}

// look takes what is known of the host now.
func (d *delivery) look() {
	d.manners = manners{}
	if d.rules != nil {
		d.manners.rule = d.rules(d.batch.Host)
	}
	_, d.manners.secret = d.hostCertificate()
	if !d.obeys() {
		return
	}
	d.manners.page = d.pages.get(d.batch.Host)
	if d.manners.page != nil {
		d.manners.robots = d.manners.page.rulesFor(cmp.Or(d.userAgent(), "fetchfleet"))
	}
}

// limits are the job's, tightened by Crawl-delay, unless the fleet's rules for this host name others: they win over both.
func (d *delivery) limits() hosts.Limits {
	l := hosts.Limits{Conns: d.spec.HostConns}
	l.Rate, l.Burst = d.manners.rule.Pace(d.spec.HostRate, d.spec.HostBurst)
	if conns := d.manners.rule.Conns; conns != nil {
		l.Conns = *conns
	}
	if rule := d.manners.rule; rule.Rate != nil || rule.Delay > 0 {
		return l
	}
	delay, _ := d.manners.robots.CrawlDelay()
	if delay > 0 {
		l.Burst = 1
		if rate := 1 / delay.Seconds(); l.Rate == 0 || rate < l.Rate {
			l.Rate = rate
		}
	}
	return l
}

// refusal is why a request is not sent, if it is not.
func (d *delivery) refusal(target string) (happening, bool) {
	switch {
	case d.manners.rule.Blocked:
		return happening{class: classBlocked, message: "the fleet's rules block host " + d.batch.Host}, true
	case d.manners.secret != nil:
		return happening{class: string(fetch.Secret), message: d.manners.secret.Error()}, true
	case d.manners.page != nil && d.manners.page.lost.class != "":
		lost := d.manners.page.lost
		lost.asked, lost.retryAfter = true, time.Until(d.manners.page.expires) // no attempt before somebody has asked again
		return lost, true
	case d.manners.robots != nil:
		if u, err := url.Parse(target); err == nil && !d.manners.robots.Allowed(u.RequestURI()) {
			return happening{class: classRobots, message: "robots.txt does not allow it"}, true
		}
	}
	return happening{}, false
}

// wanted is how many requests of the batch are to be sent, as far as is known.
func (d *delivery) wanted() int {
	n := 0
	for i := range d.batch.Requests {
		if _, refused := d.refusal(d.batch.Requests[i].URL); !refused {
			n++
		}
	}
	return n
}

// entries bounds how often a delivery asks its host to be let in: again after it has learnt more of robots.txt.
const entries = 3

// enter begins the visit. It is nil where nothing is to be sent. A *hosts.BusyError says that the batch stands in line, an
// *hosts.UnavailableError that the host is given up.
func (d *delivery) enter(ctx context.Context) (hosts.Visit, error) {
	for entry := range entries {
		d.look()
		want := d.wanted()
		if want == 0 {
			return nil, nil
		}
		ask := hosts.Ask{
			Host: d.batch.Host, Site: d.site, Batch: string(d.batch.ID), Visit: fmt.Sprintf("%s.%d", d.token, entry),
			Queue: d.queue, Priority: priority(d.queue), Job: string(d.batch.Job), Want: want, Limits: d.limits(), Patience: time.Duration(d.spec.Patience),
			Robots: d.obeys() && d.manners.page == nil, Care: d.state.Care - time.Since(d.began),
		}
		visit, err := d.gate.Enter(ctx, ask)
		if err == nil {
			d.visited = visit
		}
		if err != nil || !ask.Robots {
			return visit, err
		}
		if visit.Scout() {
			err = d.scout(ctx, visit)
		} else {
			err = d.readRobots(ctx)
		}
		if err == nil {
			d.look()
			if d.manners.page != nil && d.limits() == ask.Limits && d.wanted() == want {
				return visit, nil
			}
		}
		visit.Leave()
		if err != nil {
			return nil, err
		}
	}
	return nil, &hosts.BusyError{Host: d.batch.Host, After: time.Second}
}

// givenUp ends all requests of the batch: their host has brought nothing for longer than the job's patience.
func (v *visitRun) givenUp(why *hosts.UnavailableError) {
	h := happening{class: classHostUnavailable, message: why.Error()}
	if why.Robots {
		h.class = classRobotsUnavailable
	}
	for i := range v.results {
		v.results[i] = v.unsent(i, h)
	}
}

// tellRefused notes for the report how many requests robots.txt did not allow.
func (v *visitRun) tellRefused() {
	n := 0
	for i := range v.results {
		if v.results[i].verdict.final.class == classRobots {
			n++
		}
	}
	if n > 0 {
		v.gate.Refused(string(v.batch.Job), v.batch.Host, n)
	}
}

// unsent is what comes of a request that was not sent.
func (v *visitRun) unsent(i int, h happening) result {
	return v.attempt(i).end(nil, h, store.BodyRef{})
}

// silent are the classes of exchanges that brought no answer, by which a host is found to be in trouble.
var silent = map[fetch.Class]bool{
	fetch.ConnectRefused: true, fetch.ConnectUnreachable: true, fetch.ConnectTimeout: true, fetch.TLSTimeout: true,
	fetch.HeaderTimeout: true, fetch.Reset: true,
}

// spoke are the classes of exchanges that failed although the host answered: a status line came, and after it something that
// we cannot use, or would not take. A host that sends it is there.
//
// The others say nothing of its health. Names, addresses and what we refuse to send are decided before anything reaches it;
// a bad certificate or handshake, or bytes that are no HTTP, may come from whatever stands in its place; a body that stalls or
// takes too long is neither silence nor an answer; and Canceled and Other are our own.
var spoke = map[fetch.Class]bool{
	fetch.BodyCut: true, fetch.HeaderTooLarge: true, fetch.BodyTooLarge: true, fetch.Decode: true, fetch.DecodeTooLarge: true,
	fetch.DecodeRatio: true, fetch.ContentType: true,
	fetch.RedirectInvalid: true, fetch.TooManyRedirects: true,
}

// lesson is what an exchange without a whole answer teaches about the host, hosts.Nothing for most: only an answer ends the
// trouble of a host, and only silence begins it.
func lesson(c fetch.Class) hosts.Lesson {
	switch {
	case silent[c]:
		return hosts.Failed
	case spoke[c]:
		return hosts.Well
	}
	return hosts.Nothing
}

// teach tells everybody what an answer says about the host.
func (d *delivery) teach(ctx context.Context, visit hosts.Visit, resp *fetch.Response) {
	told := told[resp.Status]
	if told || resp.Status >= 300 {
		if pause, ok := fetch.RetryAfter(resp.Header, time.Now()); ok && pause > 0 {
			visit.Learn(ctx, hosts.Asked, min(pause, d.retryAfterCap))
			return
		}
	}
	if told {
		visit.Learn(ctx, hosts.Overload, 0)
		return
	}
	visit.Learn(ctx, hosts.Well, 0)
}

// leftHost closes the idle connections to a limited host that this worker visits no more: to the host they count. It is
// limited, too, when another job has the limit.
func (d *delivery) leftHost() {
	limited := d.limits().Conns > 0 || d.visited != nil && d.visited.Conns() > 0
	if limited && !d.gate.Visiting(d.batch.Host) {
		d.fetcher.CloseIdle(d.batch.Host)
	}
}
