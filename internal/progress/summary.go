package progress

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"
)

// slowestShown is how many of the slowest hosts a summary names.
const slowestShown = 5

// Summary is what is told at the end of a run.
type Summary struct {
	Job        string
	State      string           // "ended", "interrupted"
	Accepted   int64            // requests of the job
	Open       int64            // of them not done yet
	Outcomes   map[string]int64 // those done, by outcome
	Classes    map[string]int64 // those not ok, by error class
	Duplicates int64            // lines that the job had already
	BadLines   int64            // lines that are no request
	Bytes      int64            // decoded bytes of bodies
	Earlier    int64            // of Outcomes, those of earlier runs
	Duration   time.Duration    // of this run
	Latency    *Latency         // of this run's exchanges; nil = not told
	Output     string           // where the results are
	Notes      []string         // sentences for people: how to go on, what held the run back
}

// SummaryOf begins a summary from the last snapshot of a run.
func SummaryOf(job string, last Snapshot, took time.Duration) Summary {
	return Summary{
		Job: job, State: last.State, Accepted: last.Accepted, Open: last.Open, Outcomes: last.Outcomes,
		Classes: last.Classes, Duplicates: last.Duplicates, BadLines: last.BadLines, Bytes: last.Bytes, Duration: took,
	}
}

// done is the number of requests done in this run.
func (s Summary) done() int64 {
	return max(Snapshot{Outcomes: s.Outcomes}.done()-s.Earlier, 0)
}

func (s Summary) perSecond() float64 {
	if s.Duration <= 0 {
		return 0
	}
	return float64(s.done()) / s.Duration.Seconds()
}

// WriteText writes the summary for people, in a few aligned lines.
func (s Summary) WriteText(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) {
		fmt.Fprintf(table, "%s\t%s\n", name, fmt.Sprintf(format, args...))
	}
	row("job", "%s, %s after %s", s.Job, cmp.Or(s.State, "stopped"), span(s.Duration))
	row("requests", "%s", s.requests())
	if outcomes := s.counts(sortedOutcomes(s.Outcomes), s.Outcomes); outcomes != "" {
		row("outcomes", "%s", outcomes)
	}
	if errors := s.counts(byCount(s.Classes), s.Classes); errors != "" {
		row("errors", "%s", errors)
	}
	row("speed", "%s, %s of bodies", speed(s.perSecond()), size(float64(s.Bytes)))
	if s.Latency != nil && s.Latency.Count() > 0 {
		row("latency", "p50 %s, p95 %s, p99 %s, max %s", latency(s.Latency.Quantile(.50)), latency(s.Latency.Quantile(.95)),
			latency(s.Latency.Quantile(.99)), latency(s.Latency.Max()))
		name := "slowest"
		for _, h := range s.Latency.Slowest(slowestShown) {
			row(name, "%s: mean %s, max %s, %s", h.Host, latency(h.Mean), latency(h.Max), plural(h.Requests, "request"))
			name = ""
		}
	}
	if s.Output != "" {
		row("output", "%s", s.Output)
	}
	for _, note := range s.Notes {
		row("note", "%s", note)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	return nil
}

// requests is the line on how many there were, and which lines made none.
func (s Summary) requests() string {
	text := count(s.Accepted) + " accepted"
	if s.Open > 0 {
		text += ", " + count(s.Open) + " still open"
	}
	if s.Duplicates > 0 {
		text += ", " + plural(s.Duplicates, "duplicate line")
	}
	if s.BadLines > 0 {
		text += ", " + plural(s.BadLines, "bad line")
	}
	return text
}

func (s Summary) counts(names []string, counts map[string]int64) string {
	var parts []string
	for _, name := range names {
		if counts[name] > 0 {
			parts = append(parts, count(counts[name])+" "+name)
		}
	}
	return strings.Join(parts, ", ")
}

// summaryJSON is the summary for machines. Its fields are only added to.
type summaryJSON struct {
	Job        string           `json:"job"`
	State      string           `json:"state"`
	Accepted   int64            `json:"accepted"`
	Open       int64            `json:"open"`
	Outcomes   map[string]int64 `json:"outcomes"`
	Errors     map[string]int64 `json:"errors"`
	Duplicates int64            `json:"duplicates"`
	BadLines   int64            `json:"bad_lines"`
	Bytes      int64            `json:"bytes"`
	Seconds    float64          `json:"duration_seconds"`
	PerSecond  float64          `json:"urls_per_second"`
	LatencyMS  *latencyJSON     `json:"latency_ms,omitempty"`
	Slowest    []hostJSON       `json:"slowest_hosts,omitempty"`
	Output     string           `json:"output,omitempty"`
	Notes      []string         `json:"notes,omitempty"`
}

type latencyJSON struct {
	P50 float64 `json:"p50"`
	P95 float64 `json:"p95"`
	P99 float64 `json:"p99"`
	Max float64 `json:"max"`
}

type hostJSON struct {
	Host     string  `json:"host"`
	Requests int64   `json:"requests"`
	MeanMS   float64 `json:"mean_ms"`
	MaxMS    float64 `json:"max_ms"`
}

// MarshalJSON writes the summary for machines: every count as a number, every time with its unit in its name. All
// outcomes are present, 0 included.
func (s Summary) MarshalJSON() ([]byte, error) {
	out := summaryJSON{
		Job: s.Job, State: s.State, Accepted: s.Accepted, Open: s.Open, Outcomes: map[string]int64{},
		Errors: map[string]int64{}, Duplicates: s.Duplicates, BadLines: s.BadLines, Bytes: s.Bytes,
		Seconds: rounded(s.Duration.Seconds()), PerSecond: rounded(s.perSecond()), Output: s.Output, Notes: s.Notes,
	}
	for _, outcome := range outcomes {
		out.Outcomes[outcome] = 0
	}
	for outcome, n := range s.Outcomes {
		out.Outcomes[outcome] = n
	}
	for _, class := range byCount(s.Classes) {
		out.Errors[class] = s.Classes[class]
	}
	if s.Latency != nil && s.Latency.Count() > 0 {
		out.LatencyMS = &latencyJSON{
			P50: millis(s.Latency.Quantile(.50)), P95: millis(s.Latency.Quantile(.95)),
			P99: millis(s.Latency.Quantile(.99)), Max: millis(s.Latency.Max()),
		}
		for _, h := range s.Latency.Slowest(slowestShown) {
			out.Slowest = append(out.Slowest, hostJSON{h.Host, h.Requests, millis(h.Mean), millis(h.Max)})
		}
	}
	return json.Marshal(out)
}

// WriteJSON writes the summary for machines as one line.
func (s Summary) WriteJSON(w io.Writer) error {
	if err := json.NewEncoder(w).Encode(s); err != nil {
		return fmt.Errorf("write summary: %w", err)
	}
	return nil
}

func millis(d time.Duration) float64 { return rounded(float64(d) / float64(time.Millisecond)) }

// rounded keeps three decimals.
func rounded(x float64) float64 { return math.Round(x*1000) / 1000 }
