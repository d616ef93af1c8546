package hosts

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// Report is what one job did at one host, and how the host is now. Times are those of Redis, durations in milliseconds.
//
// It is counted by the scripts that keep the limits, so of a host without limits only what was learnt there is known, and
// nothing where that is nothing. A worker that was killed takes the counts of its last visits with it.
type Report struct {
	Host       string   `json:"host"`
	Requests   *int64   `json:"requests"` // exchanges begun, redirects and robots.txt included; nil = not counted: no limits
	MaxRate    *float64 `json:"max_rate"` // requests per second in the fullest ten seconds; nil = not counted
	Waits      int64    `json:"waits"`    // times a batch joined the host's line
	Waited     int64    `json:"waited_ms"`
	WaitedMost int64    `json:"waited_longest_ms"`

	Robots RobotsReport `json:"robots"`

	RetryAfterMet     int64 `json:"retry_after_met"`        // answers that named a pause
	RetryAfterLongest int64 `json:"retry_after_longest_ms"` // as far as it was accepted
	RetryAfterKept    int64 `json:"retry_after_kept_ms"`    // for how long nothing was sent for them; where they overlap, once
	Overloads         int64 `json:"overloads"`              // answers 429 and 503 that named none
	NoAnswer          int64 `json:"no_answer"`              // exchanges that were refused, timed out or were cut off
	CircuitOpened     int64 `json:"circuit_opened"`         // times the host was set aside because it did not answer

	Limits LimitsReport `json:"limits"`

	State  HostState  `json:"state"`   // of its site, as are the following: see Addresses
	Until  *time.Time `json:"until"`   // when that ends, if a time is set
	Visits int64      `json:"visits"`  // batches being worked there now, of all jobs
	InLine int64      `json:"in_line"` // batches in line there now, of all jobs
}

// RobotsReport is what became of a host's robots.txt.
type RobotsReport struct {
	Status     RobotsStatus `json:"status"`
	Since      *time.Time   `json:"since"`      // when it was asked for; nil = it was not, as far as is known
	Fetches    int64        `json:"fetches"`    // how often by this job
	Disallowed int64        `json:"disallowed"` // requests not sent because of it, attempts included
}

// RobotsStatus says what is known of a robots.txt.
type RobotsStatus string

// What can be known of a robots.txt.
const (
	RobotsUnknown     RobotsStatus = "unknown"     // this job did not ask
	RobotsRules       RobotsStatus = "rules"       // it was there, and is obeyed
	RobotsNone        RobotsStatus = "none"        // an answer 4xx: everything is allowed
	RobotsNoAnswer    RobotsStatus = "no_answer"   // the host did not answer at all
	RobotsUnavailable RobotsStatus = "unavailable" // an answer 5xx: nothing is fetched until it can be had
)

// LimitsReport are the limits in force: the strictest of the jobs with work at the host, or else the last ones.
type LimitsReport struct {
	Rate  float64 `json:"rate"` // requests per second, 0 = no limit
	Burst int     `json:"burst"`
	Conns int     `json:"conns"` // requests in service, 0 = no limit
	Pace  float64 `json:"pace"`  // the part of the rate that the host gets now: 1, and less after overloads
}

// HostState is what a host is doing now.
type HostState string

// The states, the first that holds.
const (
	HostCircuitOpen       HostState = "circuit_open"       // it did not answer; nothing is sent until a time
	HostCooling           HostState = "cooling"            // it asked for a pause, or was overloaded
	HostRobotsUnavailable HostState = "robots_unavailable" // its robots.txt is asked for again at a time
	HostVisited           HostState = "visited"
	HostInLine            HostState = "in_line" // nobody visits it, and batches wait to
	HostFree              HostState = "free"
)

// ReportOrder is an order of reports.
type ReportOrder string

// The orders; all but the first have the greatest first, and need some 200 bytes of memory for each host.
const (
	AsKept     ReportOrder = "" // as Redis has them
	ByRequests ReportOrder = "requests"
	ByRate     ReportOrder = "rate"
	ByWaits    ReportOrder = "waits"
)

// ReportOptions say which reports are wanted.
type ReportOptions struct {
	Host  string // of this one alone; "" = of all
	Order ReportOrder
}

// ErrNoReport says that nothing is known of what a job did at a host.
var ErrNoReport = errors.New("nothing is known of the host")

// reportPage is how many hosts are asked about in one call.
const reportPage = 1000

// Reports calls each with what a job did at each host that it came to. It makes three calls to Redis for every thousand.
// While the job runs hosts may be added that it does not tell of. An error of each ends it.
func Reports(ctx context.Context, rdb redis.UniversalClient, job string, o ReportOptions, each func(*Report) error) error {
	p := reporter{rdb: rdb, key: "fetchfleet:hosts:report:" + job, each: each}
	if o.Host != "" {
		return p.one(ctx, o.Host)
	}
	if o.Order == AsKept {
		return p.scan(ctx, func(page []tally) error { return p.tell(ctx, page) })
	}
	var all []tally
	err := p.scan(ctx, func(page []tally) error {
		all = append(all, page...)
		return nil
	})
	if err != nil {
		return err
	}
	slices.SortFunc(all, func(a, b tally) int { return compareTallies(o.Order, a, b) })
	for page := range slices.Chunk(all, reportPage) {
		if err := p.tell(ctx, page); err != nil {
			return err
		}
	}
	return nil
}

// tally is what was counted of a host.
type tally struct {
	host    string
	figures figures
}

func compareTallies(o ReportOrder, a, b tally) int {
	by := figureRequests
	switch o {
	case ByRate:
		by = figurePeak
	case ByWaits:
		by = figureWaits
	}
	return cmp.Or(cmp.Compare(b.figures[by], a.figures[by]), cmp.Compare(a.host, b.host))
}

// reporter reads the reports of a job.
type reporter struct {
	rdb  redis.UniversalClient
	key  string
	each func(*Report) error
}

func (p *reporter) one(ctx context.Context, host string) error {
	text, err := p.rdb.HGet(ctx, p.key, host).Result()
	if errors.Is(err, redis.Nil) {
		return ErrNoReport
	}
	if err != nil {
		return fmt.Errorf("read what is known of host %s: %w", host, err)
	}
	return p.tell(ctx, []tally{{host: host, figures: parseFigures(text)}})
}

// scan reads the counts and passes them on in pages: Redis gives a little more or less than it is asked for at a time. It
// may name a host twice when the hash grows meanwhile; the second is dropped.
func (p *reporter) scan(ctx context.Context, page func([]tally) error) error {
	seen := map[string]struct{}{}
	var tallies []tally
	for cursor := uint64(0); ; {
		words, next, err := p.rdb.HScan(ctx, p.key, cursor, "", reportPage).Result()
		if err != nil {
			return fmt.Errorf("read what is known of hosts: %w", err)
		}
		for i := 0; i+1 < len(words); i += 2 {
			if _, again := seen[words[i]]; again {
				continue
			}
			seen[words[i]] = struct{}{}
			tallies = append(tallies, tally{host: words[i], figures: parseFigures(words[i+1])})
		}
		for len(tallies) >= reportPage || next == 0 && len(tallies) > 0 {
			n := min(len(tallies), reportPage)
			if err := page(tallies[:n]); err != nil {
				return err
			}
			tallies = tallies[n:]
		}
		if next == 0 {
			return nil
		}
		cursor = next
	}
}
