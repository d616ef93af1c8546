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

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/hosts/robots"
)

const (
	robotsRedirects = 5                // RFC 9309, 2.3.1.2
	robotsAgain     = time.Minute      // until a robots.txt that was refused is asked for again; longer each time
	robotsLost      = 10 * time.Second // how long it holds that a host did not answer at all
	robotsKept      = 20_000           // hosts whose robots.txt a worker keeps in memory
)

// page is what is known of a host's robots.txt. One is fetched for the fleet and kept in Redis; this is a worker's copy.
// Hosts have one for both schemes, as they have one line and one rate.
type page struct {
	expires time.Time
	file    *robots.File // nil: everything is allowed
	// lost says that the host did not answer at all. Nothing may be fetched then, and nothing could be: its requests
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
	for other, old := range p.hosts { // mostly stops at once
		if len(p.hosts) < robotsKept && time.Now().Before(old.expires) {
			break
		}
		delete(p.hosts, other)
	}
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
		p.file = robots.Parse([]byte(rest))
	case "lost":
		p.lost = happening{class: fields[2], message: rest}
	}
	return p, nil
}

// mute are the classes of a host that was reached and gave no answer, or none that can be read, about robots.txt. RFC 9309
// (2.3.1.4) has it that nothing may be fetched then.
var mute = map[fetch.Class]bool{
	fetch.HeaderTimeout: true, fetch.IdleTimeout: true, fetch.TotalTimeout: true, fetch.Reset: true, fetch.BodyCut: true,
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
	case errors.As(err, &broken) && mute[broken.Class]: // it is there, and does not say
		visit.Learn(ctx, lesson(broken.Class), 0)
		return visit.Robots(ctx, false, robotsAgain, "")
	case errors.As(err, &broken):
		visit.Learn(ctx, lesson(broken.Class), 0)
		p := &page{expires: time.Now().Add(robotsLost), lost: happening{class: string(broken.Class), message: "robots.txt: " + err.Error()}}
		return d.keepRobots(ctx, visit, p, robotsLost, p.text("lost", p.lost.class, p.lost.message))
	case err != nil:
		return err
	case kind == robots.Unavailable:
		return visit.Robots(ctx, false, robotsAgain, "")
	}
	p := &page{expires: time.Now().Add(lasts)}
	if kind == robots.Parsed {
		p.file = robots.Parse(body)
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
	next := &fetch.Request{URL: target.Scheme + "://" + target.Host + "/robots.txt", UserAgent: d.userAgent(),
		Timeout: time.Duration(d.spec.Timeout), MaxTime: time.Minute, MaxBody: 16 << 20}
	for hops := 0; ; hops++ {
		resp, err := d.fetcher.Do(ctx, next)
		if err != nil {
			return robots.Unavailable, nil, 0, err
		}
		follow, redirected, err := fetch.Redirect(next, resp)
		if err == nil && redirected && hops < robotsRedirects {
			_ = resp.Body.Close()
			if err := visit.Turn(ctx); err != nil {
				return robots.Unavailable, nil, 0, err
			}
			next = follow
			continue
		}
		return d.judgeRobots(ctx, visit, resp)
	}
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
