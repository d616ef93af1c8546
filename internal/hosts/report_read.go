package hosts

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

// figures are those that lua/report.lua keeps of a host, in its order.
type figures [figureCount]float64

const (
	figureRequests = iota
	figureWaits
	figureWaited
	figureLongest
	figurePeak
	figureAsked
	figureAskedLongest
	figureKept
	figureOverloads
	figureSilent
	figureOpened
	figureRefused
	figureRobotsReads
	figureRobotsKind
	figureRobotsAt
	figureRate
	figureBurst
	figureConns
	figureCount
)

// parseFigures reads what is kept. What is missing, because an older worker wrote it, counts as 0.
func parseFigures(text string) (f figures) {
	i := 0
	for word := range strings.FieldsSeq(text) {
		if i == len(f) || strings.Contains(word, ":") { // the spans
			break
		}
		f[i], _ = strconv.ParseFloat(word, 64)
		i++
	}
	return f
}

func (f *figures) count(i int) int64 { return int64(f[i]) }

// hostNow are the answers about one host and its site.
type hostNow struct {
	state  *redis.SliceCmd
	robots *redis.StringCmd
	limits *redis.StringSliceCmd
	line   *redis.IntCmd
	visits *redis.IntCmd
}

// tell asks how a page of hosts is now, in two calls, and passes their reports on.
func (p *reporter) tell(ctx context.Context, page []tally) error {
	sites, err := p.sites(ctx, page)
	if err != nil {
		return err
	}
	pipe := p.rdb.Pipeline()
	clock := pipe.Time(ctx)
	answers := make([]hostNow, len(page))
	for i, t := range page {
		key := StateKey(sites[i])
		answers[i] = hostNow{
			state:  pipe.HMGet(ctx, key, "until", "opened", "slow", "slow_at"),
			robots: pipe.HGet(ctx, StateKey(t.host), "robots_try"),
			limits: limitsAt(ctx, pipe, sites[i]), line: pipe.ZCard(ctx, key+":line"), visits: pipe.HLen(ctx, key+":visits"),
		}
	}
	if _, err := pipe.Exec(ctx); err != nil && !errors.Is(err, redis.Nil) {
		return fmt.Errorf("ask how %d hosts are: %w", len(page), err)
	}
	now := clock.Val()
	for i := range page {
		r := page[i].report()
		answers[i].into(r, now)
		page[i].requests(r)
		if err := p.each(r); err != nil {
			return err
		}
	}
	return nil
}

// sites are those that the fleet has for hosts now: the hosts themselves, unless workers keep limits for each address.
func (p *reporter) sites(ctx context.Context, page []tally) ([]string, error) {
	keys, sites := make([]string, len(page)), make([]string, len(page))
	for i, t := range page {
		keys[i], sites[i] = addressKey(t.host), t.host
	}
	found, err := p.rdb.MGet(ctx, keys...).Result()
	if err != nil {
		return nil, fmt.Errorf("read the addresses of %d hosts: %w", len(page), err)
	}
	for i, value := range found {
		if site, ok := value.(string); ok {
			sites[i] = site
		}
	}
	return sites, nil
}

// robotsKinds are the numbers that lua/report.lua has for them.
var robotsKinds = []RobotsStatus{"known", RobotsRules, RobotsNone, RobotsNoAnswer, RobotsUnavailable}

// report is the part that was counted.
func (t *tally) report() *Report {
	f := &t.figures
	r := &Report{
		Host: t.host, Waits: f.count(figureWaits), Waited: f.count(figureWaited), WaitedMost: f.count(figureLongest),
		Robots:        RobotsReport{Status: RobotsUnknown, Fetches: f.count(figureRobotsReads), Disallowed: f.count(figureRefused)},
		RetryAfterMet: f.count(figureAsked), RetryAfterLongest: f.count(figureAskedLongest), RetryAfterKept: f.count(figureKept),
		Overloads: f.count(figureOverloads), NoAnswer: f.count(figureSilent), CircuitOpened: f.count(figureOpened),
		Limits: LimitsReport{Rate: f[figureRate], Burst: int(f[figureBurst]), Conns: int(f[figureConns]), Pace: 1},
	}
	if at := f.count(figureRobotsAt); at > 0 {
		since := time.Unix(at, 0).UTC()
		r.Robots.Since = &since
		r.Robots.Status = robotsKinds[min(max(int(f[figureRobotsKind]), 0), len(robotsKinds)-1)]
	}
	return r
}

// requests adds how many there were, unless the host has no limits.
func (t *tally) requests(r *Report) {
	n, rate := t.figures.count(figureRequests), t.figures[figurePeak]/span.Seconds()
	if n > 0 || r.Limits.limited() {
		r.Requests, r.MaxRate = &n, &rate
	}
}

func (l LimitsReport) limited() bool { return l.Rate > 0 || l.Conns > 0 }

// into adds how the host is now.
func (a *hostNow) into(r *Report, now time.Time) {
	r.Visits, r.InLine = a.visits.Val(), a.line.Val()
	a.strictest(r)
	state := make([]float64, 4)
	for i, value := range a.state.Val() {
		if text, ok := value.(string); ok && i < len(state) {
			state[i], _ = strconv.ParseFloat(text, 64)
		}
	}
	until, opened, slow, slowAt := state[0], state[1], state[2], state[3]
	robotsTry, _ := strconv.ParseFloat(a.robots.Val(), 64)
	r.Limits.Pace = pace(slow, slowAt, now)
	at := float64(now.UnixMicro())
	switch {
	case until > at && opened > 0:
		r.State, r.Until = HostCircuitOpen, microTime(until)
	case until > at:
		r.State, r.Until = HostCooling, microTime(until)
	case robotsTry > at:
		r.State, r.Until = HostRobotsUnavailable, microTime(robotsTry)
	case r.Visits > 0:
		r.State = HostVisited
	case r.InLine > 0:
		r.State = HostInLine
	default:
		r.State = HostFree
	}
}

// limitsAt asks for the limits of the jobs with work at a site, each as "RATE BURST CONNS", maybe between other words: see
// lua/lib.lua.
func limitsAt(ctx context.Context, pipe redis.Pipeliner, site string) *redis.StringSliceCmd {
	if strings.HasPrefix(site, "@") {
		return pipe.HKeys(ctx, StateKey(site)+":limits")
	}
	return pipe.HVals(ctx, StateKey(site)+":jobs")
}

// strictest takes the strictest of the jobs with work at the site, as lua/lib.lua does.
func (a *hostNow) strictest(r *Report) {
	values := a.limits.Val()
	if len(values) == 0 {
		return
	}
	var l LimitsReport
	for _, value := range values {
		words := strings.Fields(value)
		if len(words) == 5 { // of the jobs hash: BATCHES RATE BURST CONNS TURN
			words = words[1:4]
		}
		var burst, conns int
		var rate float64
		if _, err := fmt.Sscan(strings.Join(words, " "), &rate, &burst, &conns); err != nil {
			continue
		}
		l.Rate = stricter(l.Rate, rate)
		if rate > 0 {
			l.Burst = int(stricter(float64(l.Burst), float64(burst)))
		}
		l.Conns = int(stricter(float64(l.Conns), float64(conns)))
	}
	l.Burst = max(l.Burst, 1)
	r.Limits = l
}

// stricter of two limits, where 0 is none.
func stricter(a, b float64) float64 {
	if a == 0 || b > 0 && b < a {
		return b
	}
	return a
}

// pace is the part of its rate that a host gets, rounded to a hundredth: lua/lib.lua has its inverse.
func pace(slow, slowAt float64, now time.Time) float64 {
	if slow <= 1 {
		return 1
	}
	slow /= math.Pow(1.25, (float64(now.UnixMicro())-slowAt)/1e7)
	return math.Round(100/max(1, slow)) / 100
}

func microTime(us float64) *time.Time {
	t := time.UnixMicro(int64(us)).UTC()
	return &t
}
