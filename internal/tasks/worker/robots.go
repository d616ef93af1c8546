package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/hosts/robots"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

const (
	robotsRedirects = 5                // RFC 9309, 2.3.1.2
	robotsAgain     = time.Minute      // until a robots.txt that was refused is asked for again; longer each time
	robotsLost      = 10 * time.Second // how long it holds that a host did not answer at all
	robotsKept      = 20_000           // hosts whose robots.txt a worker keeps in memory
	robotsBytes     = 32 << 20         // of their texts; as compiled rules they are some times larger
)

// page is what is known of a host's robots.txt. One is fetched for the fleet and kept in Redis; this is a worker's copy.
// Hosts have one for both schemes, as they have one line and one rate.
type page struct {
	expires time.Time
	bytes   int          // of its text
	file    *robots.File // nil: everything is allowed
	// lost says that the host could not be reached at all. Nothing may be fetched then, and nothing could be: its requests
	// fare as if they had been sent.
	lost happening

	mu    sync.Mutex
	rules map[string]*robots.Rules // compiled, by user agent
}

// rulesFor are the rules for a user agent, nil where everything is allowed.
func (p *page) rulesFor(agent string) *robots.Rules {
	if p.file == nil {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.rules[agent]
	if r == nil {
		r = p.file.For(agent)
		if p.rules == nil {
			p.rules = map[string]*robots.Rules{}
		}
		p.rules[agent] = r
	}
	return r
}

// pages are the copies.
type pages struct {
	mu    sync.Mutex
	hosts map[string]*page
	bytes int                  // of all texts
	hops  map[string]robotsHop // by host
}

// robotsHop is how far the fetch of a robots.txt has come whose next redirect was too far away to wait for.
type robotsHop struct {
	url  string
	hops int
}

// hop returns how far the fetch for a host had come, and forgets it.
func (p *pages) hop(host string) (robotsHop, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	h, ok := p.hops[host]
	delete(p.hops, host)
	return h, ok
}

func (p *pages) keepHop(host string, h robotsHop) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hops == nil || len(p.hops) >= robotsKept {
		p.hops = map[string]robotsHop{}
	}
	p.hops[host] = h
}

// get returns what holds now, or nil.
func (p *pages) get(host string) *page {
	p.mu.Lock()
	defer p.mu.Unlock()
	known := p.hosts[host]
	if known == nil || time.Now().After(known.expires) {
		return nil
	}
	return known
}

func (p *pages) put(host string, known *page) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hosts == nil {
		p.hosts = map[string]*page{}
	}
	if old := p.hosts[host]; old != nil {
		p.bytes -= old.bytes
	}
	for other, old := range p.hosts { // mostly stops at once
		if len(p.hosts) < robotsKept && p.bytes+known.bytes <= robotsBytes && time.Now().Before(old.expires) {
			break
		}
		p.bytes -= old.bytes
		delete(p.hosts, other)
	}
	p.bytes += known.bytes
	p.hosts[host] = known
}

// text is a page as it is kept for all: "EXPIRES KIND CLASS\n" and the file or the message.
func (p *page) text(kind, class, rest string) string {
	return fmt.Sprintf("%d %s %s\n%s", p.expires.UnixMilli(), kind, class, rest)
}

// parsePage reads text.
func parsePage(text string) (*page, error) {
	head, rest, _ := strings.Cut(text, "\n")
	fields := strings.Split(head, " ")
	if len(fields) != 3 {
		return nil, fmt.Errorf("robots.txt as kept begins with %.40q", head)
	}
	ms, err := strconv.ParseInt(fields[0], 10, 64)
	if err != nil {
		return nil, fmt.Errorf("robots.txt as kept begins with %.40q", head)
	}
	p := &page{expires: time.UnixMilli(ms)}
	switch fields[1] {
	case "file":
		p.file, p.bytes = robots.Parse([]byte(rest)), len(rest)
	case "lost":
		p.lost = happening{class: fields[2], message: rest}
	}
	return p, nil
}

// unreached are the classes of a host to which there was no connection. Any other class about robots.txt is one of a host
// that was reached and gave no answer, or none that can be read: RFC 9309 (2.3.1.4) has it that nothing may be fetched then.
var unreached = map[fetch.Class]bool{
	fetch.DNSTemporary: true, fetch.DNSNotFound: true, fetch.ConnectRefused: true, fetch.ConnectUnreachable: true,
	fetch.ConnectTimeout: true, fetch.TLSTimeout: true, fetch.TLSCertificate: true, fetch.TLS: true,
	fetch.AddressRefused: true, fetch.Proxy: true, fetch.PoolTimeout: true,
}

// scout fetches robots.txt for the fleet, under the visit's permits and in its turns.
func (d *delivery) scout(ctx context.Context, visit hosts.Visit) error {
	if err := visit.Turn(ctx); err != nil { // a permit of its own it needs not: nothing else has begun
		return err
	}
	kind, body, lasts, err := d.askRobots(ctx, visit)
	var broken *fetch.Error
	switch {
	case errors.As(err, &broken) && broken.Class == fetch.Canceled:
		return err
	case errors.As(err, &broken):
		visit.Learn(ctx, lesson(broken.Class), 0)
		if !unreached[broken.Class] { // it is there, and does not say
			return visit.Robots(ctx, false, robotsAgain, "")
		}
		if silent[broken.Class] && visit.Probe() { // it is not back: nobody's attempt
			return &hosts.BusyError{Host: d.batch.Host, After: time.Second}
		}
		p := &page{expires: time.Now().Add(robotsLost), lost: happening{class: string(broken.Class), message: "robots.txt: " + err.Error()}}
		return d.keepRobots(ctx, visit, p, robotsLost, p.text("lost", p.lost.class, p.lost.message))
	case err != nil:
		return err
	case kind == robots.Unavailable:
		return visit.Robots(ctx, false, robotsAgain, "")
	}
	p := &page{expires: time.Now().Add(lasts)}
	if kind == robots.Parsed {
		p.file, p.bytes = robots.Parse(body), len(body)
		return d.keepRobots(ctx, visit, p, lasts, p.text("file", "-", string(body)))
	}
	return d.keepRobots(ctx, visit, p, lasts, p.text("all", "-", ""))
}

func (d *delivery) keepRobots(ctx context.Context, visit hosts.Visit, p *page, lasts time.Duration, text string) error {
	d.pages.put(d.batch.Host, p)
	return visit.Robots(ctx, true, lasts, text)
}

// askRobots makes the exchanges: robots.txt, and up to five redirects. An error of the exchange is a *fetch.Error.
func (d *delivery) askRobots(ctx context.Context, visit hosts.Visit) (robots.Verdict, []byte, time.Duration, error) {
	target, err := url.Parse(d.batch.Requests[0].URL)
	if err != nil {
		return robots.AllowAll, nil, 0, err
	}
	from := robotsHop{url: target.Scheme + "://" + target.Host + "/robots.txt"}
	if before, ok := d.pages.hop(d.batch.Host); ok {
		from = before
	}
	next := &fetch.Request{URL: from.url, UserAgent: d.userAgent(),
		Timeout: time.Duration(d.spec.Timeout), MaxTime: time.Minute, MaxBody: 16 << 20,
		Limits: limits(&tasks.Request{}, &d.spec), HTTP: fetch.Version(d.spec.HTTP), Insecure: d.spec.Insecure}
	if from.hops == 0 {
		next.Certificate, _ = d.hostCertificate() // else there would be nothing to ask for
	}
	for hops := from.hops; ; hops++ {
		resp, err := d.fetcher.Do(ctx, next)
		if err != nil {
			return robots.Unavailable, nil, 0, err
		}
		follow, redirected, err := fetch.Redirect(next, resp)
		if err == nil && redirected && hops < robotsRedirects {
			_ = resp.Body.Close()
			if d.blockedAt(follow.URL) {
				return robots.Unavailable, nil, 0, nil
			}
			if err := visit.Turn(ctx); err != nil {
				d.pages.keepHop(d.batch.Host, robotsHop{url: follow.URL, hops: hops + 1})
				return robots.Unavailable, nil, 0, err
			}
			next = follow
			continue
		}
		return d.judgeRobots(ctx, visit, resp)
	}
}

// blockedAt reports whether the fleet's rules keep everybody away from where a redirect leads.
func (d *delivery) blockedAt(rawURL string) bool {
	target, err := canon.Parse(rawURL)
	return err == nil && d.rules != nil && d.rules(target.Host).Blocked
}

func (d *delivery) judgeRobots(ctx context.Context, visit hosts.Visit, resp *fetch.Response) (robots.Verdict, []byte, time.Duration, error) {
	defer resp.Body.Close()
	verdict := robots.OfStatus(resp.Status)
	lasts := robots.Lifetime(resp.Header, time.Now())
	if verdict != robots.Parsed {
		if verdict == robots.Unavailable {
			d.teach(ctx, visit, resp)
		}
		return verdict, nil, lasts, nil
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, robots.MaxBytes+1))
	if err != nil {
		return robots.Unavailable, nil, 0, err
	}
	return verdict, body, lasts, nil
}

// readRobots takes over what another worker fetched.
func (d *delivery) readRobots(ctx context.Context) error {
	text, err := d.gate.RobotsText(ctx, d.batch.Host)
	if err != nil || text == "" {
		return err
	}
	p, err := parsePage(text)
	if err == nil {
		d.pages.put(d.batch.Host, p)
	}
	return err
}
