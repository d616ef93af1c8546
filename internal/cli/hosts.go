package cli

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

type hostsCommand struct {
	RedisFlags
	Job  string `arg:"" help:"Job to report on."`
	Host string `env:"FLEET_HOST" placeholder:"HOST" help:"This host, or that of a URL, alone, one fact a line: a report for its webmaster."`
	Sort string `env:"FLEET_SORT" placeholder:"BY" help:"requests, rate or waits, the greatest first (default: as Redis has them)."`
	JSON bool   `name:"json" env:"FLEET_JSON" help:"Print one JSON object a line; durations in milliseconds."`
}

// Help is what --help says besides.
func (*hostsCommand) Help() string {
	return `What a job did at each host, for its webmaster or for you: requests made, redirects and robots.txt included, and the
greatest rate seen, over ten seconds by the clock of Redis; how often and how long batches stood in the host's line;
what became of robots.txt and how many requests it forbade; Retry-After met and for how long it kept everybody away;
answers 429 and 503 without one; how often the host was set aside because it did not answer; the limits in force, and
the pace, which is the part of the rate that the host gets after an overload; and what it is doing now: free, visited,
in line, cooling or circuit open until a time, robots.txt unavailable.

Nothing is asked of Redis to count this. So requests to hosts without any limit are not counted, hosts without limits
where nothing was learnt are not listed, and a worker that is killed takes the counts of its last visits with it.
The figures are kept for 30 days.

Fields of --json: host; requests and max_rate (null: not counted); waits, waited_ms, waited_longest_ms; robots: status
(rules, none, no_answer, unavailable or unknown), since, fetches, disallowed; retry_after_met, retry_after_longest_ms,
retry_after_kept_ms (pauses that overlap count once); overloads, no_answer, circuit_opened; limits: rate, burst, conns,
pace; state (circuit_open, cooling, robots_unavailable, visited, in_line or free), until; visits and in_line, batches
of all jobs. Times are RFC 3339.

  fleet hosts spring --sort rate
  fleet hosts spring --host www.example.org
  fleet hosts spring --json | jq 'select(.retry_after_met > 0)'`
}

// Validate refuses orders that are none.
func (c *hostsCommand) Validate() error {
	switch hosts.ReportOrder(c.Sort) {
	case hosts.AsKept, hosts.ByRequests, hosts.ByRate, hosts.ByWaits:
		return nil
	}
	return fmt.Errorf("--sort: %q is none of requests, rate, waits", c.Sort)
}

// spellings are how reports may spell the host that somebody names, as a host or as a URL there: as a canonical URL has it,
// and, where nothing is known of that, without the final dot and, when no scheme was given, the port of https.
func spellings(given string) ([]string, error) {
	raw, bare := given, !strings.Contains(given, "://")
	if bare {
		raw = "http://" + given
	}
	u, err := canon.Parse(raw)
	if err == nil && bare && strings.ContainsAny(given, "/\\?#") {
		err = errors.New("it is neither a host nor a URL")
	}
	if err != nil { // which repeats no credentials
		return nil, usage("--host: %w: give a host like example.com or example.com:8080", err)
	}
	name, port := u.Host, ""
	if colon := strings.LastIndexByte(u.Host, ':'); colon > strings.LastIndexByte(u.Host, ']') {
		name, port = u.Host[:colon], u.Host[colon:]
	}
	if bare && port == ":443" {
		port = ""
	}
	return slices.Compact([]string{u.Host, name + port, strings.TrimSuffix(name, ".") + port}), nil
}

// Run prints a job's reports.
func (c *hostsCommand) Run(ctx context.Context, w IO) error {
	named := []string{""} // all
	if c.Host != "" {
		var err error
		if named, err = spellings(c.Host); err != nil {
			return err
		}
	}
	rdb, err := c.open(ctx, redisconn.Options{}, func(string) {})
	if err != nil {
		return err
	}
	defer rdb.Close()
	if _, err := ledger.New(rdb).Status(ctx, tasks.JobID(c.Job)); err != nil {
		return unknownJob(err, rdb)
	}
	told, out := 0, bufio.NewWriter(w.Stdout)
	for _, host := range named {
		o := hosts.ReportOptions{Host: host, Order: hosts.ReportOrder(c.Sort)}
		err = hosts.Reports(ctx, rdb, c.Job, o, func(r *hosts.Report) error {
			told++
			return c.print(out, r)
		})
		if !errors.Is(err, hosts.ErrNoReport) {
			break
		}
	}
	if errors.Is(err, hosts.ErrNoReport) {
		return fmt.Errorf("job %s: %w %s: no visit there has ended yet, or it has no limits and taught nothing", c.Job, err, named[len(named)-1])
	}
	if err == nil && told == 0 {
		fmt.Fprintf(w.Stderr, "job %s: nothing to report: no visit has ended yet, or no host has limits\n", c.Job)
	}
	return errors.Join(redisconn.Explain(err), out.Flush())
}

func (c *hostsCommand) print(w io.Writer, r *hosts.Report) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(r)
	}
	facts := hostFacts(r)
	if c.Host == "" {
		_, err := fmt.Fprintf(w, "%s: %s\n", r.Host, strings.Join(facts, "; "))
		return err
	}
	_, err := fmt.Fprintf(w, "What job %s did at host %s:\n  %s\n", c.Job, r.Host, strings.Join(facts, "\n  "))
	return err
}

// hostFacts say what there is to say of a host; what did not happen is left out.
func hostFacts(r *hosts.Report) []string {
	facts := []string{"requests not counted (no limits)"}
	if r.Requests != nil {
		facts[0] = fmt.Sprintf("%s, at most %s a second", plural(*r.Requests, "request"), rateFact(*r.MaxRate))
	}
	facts = append(facts, "limits "+limitsFact(r.Limits))
	if r.Waits > 0 {
		facts = append(facts, fmt.Sprintf("batches in line %s, %s in all, %s at most", plural(r.Waits, "time"), ms(r.Waited), ms(r.WaitedMost)))
	}
	facts = append(facts, robotsFact(r.Robots))
	if r.RetryAfterMet > 0 {
		facts = append(facts, fmt.Sprintf("Retry-After met %s, kept for %s in all, %s at most",
			plural(r.RetryAfterMet, "time"), ms(r.RetryAfterKept), ms(r.RetryAfterLongest)))
	}
	if r.Overloads > 0 {
		facts = append(facts, plural(r.Overloads, "answer")+" 429 or 503 without Retry-After")
	}
	if r.NoAnswer > 0 {
		facts = append(facts, plural(r.NoAnswer, "request")+" without an answer")
	}
	if r.CircuitOpened > 0 {
		facts = append(facts, "set aside "+plural(r.CircuitOpened, "time"))
	}
	return append(facts, "now "+stateFact(r))
}

// rateFact prints a rate with one decimal, and one too small for that with one digit that is not 0.
func rateFact(perSecond float64) string {
	if perSecond > 0 && perSecond < 0.1 {
		return strconv.FormatFloat(perSecond, 'f', max(1, int(math.Ceil(-math.Log10(perSecond)))), 64)
	}
	return fmt.Sprintf("%.1f", perSecond)
}

func limitsFact(l hosts.LimitsReport) string {
	if l.Rate == 0 && l.Conns == 0 {
		if l.Pace > 0 && l.Pace < 1 { // a rate that it gets will be this part of it
			return fmt.Sprintf("none, slowed to %.2g of any rate", l.Pace)
		}
		return "none"
	}
	var parts []string
	if l.Rate > 0 {
		parts = append(parts, fmt.Sprintf("%.3g a second", l.Rate), fmt.Sprintf("burst %d", l.Burst))
	}
	if l.Conns > 0 {
		parts = append(parts, fmt.Sprintf("%d in service", l.Conns))
	}
	if l.Pace < 1 {
		parts = append(parts, fmt.Sprintf("slowed to %.2g of that", l.Pace))
	}
	return strings.Join(parts, ", ")
}

// robotsFacts are the words for what is known of a robots.txt.
var robotsFacts = map[hosts.RobotsStatus]string{
	hosts.RobotsUnknown: "not asked for", hosts.RobotsRules: "obeyed", hosts.RobotsNone: "there is none",
	hosts.RobotsNoAnswer: "no answer", hosts.RobotsUnavailable: "unavailable, nothing is fetched",
}

func robotsFact(r hosts.RobotsReport) string {
	text := "robots.txt " + cmp.Or(robotsFacts[r.Status], string(r.Status))
	if r.Since != nil {
		text += " (" + r.Since.Format(time.RFC3339) + ")"
	}
	if r.Fetches > 0 {
		text += ", fetched " + plural(r.Fetches, "time")
	}
	if r.Disallowed > 0 {
		text += ", " + plural(r.Disallowed, "request") + " not sent for it"
	}
	return text
}

// stateFacts are the words for what a host is doing; for visits and its line their numbers are.
var stateFacts = map[hosts.HostState]string{
	hosts.HostCircuitOpen: "circuit open", hosts.HostCooling: "cooling", hosts.HostRobotsUnavailable: "robots.txt unavailable",
	hosts.HostFree: "free",
}

func stateFact(r *hosts.Report) string {
	var parts []string
	if text := stateFacts[r.State]; text != "" {
		parts = append(parts, text)
	}
	if r.Until != nil {
		parts[0] += " until " + r.Until.Format(time.RFC3339)
	}
	if r.Visits > 0 {
		parts = append(parts, "visited by "+batches(r.Visits))
	}
	if r.InLine > 0 {
		parts = append(parts, "in line: "+batches(r.InLine))
	}
	return strings.Join(parts, ", ")
}

func batches(n int64) string {
	if n == 1 {
		return "1 batch"
	}
	return fmt.Sprintf("%d batches", n)
}

func plural(n int64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// ms prints milliseconds as people read them.
func ms(n int64) string {
	d := time.Duration(n) * time.Millisecond
	if d > 10*time.Second {
		d = d.Round(time.Second)
	}
	return d.String()
}
