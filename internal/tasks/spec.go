package tasks

import (
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// SpecVersion is the newest spec that this code understands. A worker takes no batch of a job whose spec is newer.
// What a spec is written as is Version's to say.
const SpecVersion = 2

// Spec is the policy of a job: stored once, in effect for all of its requests.
type Spec struct {
	V         int      `json:"v"`
	Queue     string   `json:"queue"`
	HostRate  float64  `json:"host_rate"`  // requests/s per host, 0 = no limit
	HostBurst int      `json:"host_burst"` // requests that may go at once after a pause, at least 1
	HostConns int      `json:"host_conns"` // requests in service at once per host, 0 = no limit
	Retries   int      `json:"retries"`    // attempts after the first
	Backoff   Backoff  `json:"backoff"`
	RetryOn   RetryOn  `json:"retry_on,omitempty"`
	Patience  Duration `json:"patience"` // how long a request may meet nothing but waits
	Timeout   Duration `json:"timeout"`  // to the headers, and between bytes
	MaxTime   Duration `json:"max_time"` // a whole request
	MaxBody   int64    `json:"max_body"` // bytes, as sent and as decoded
	Method    string   `json:"method"`
	Header    Header   `json:"header,omitempty"`
	Data      []byte   `json:"data,omitempty"` // body of every request that brings none
	Robots    string   `json:"robots"`         // "obey" or "ignore"
	UserAgent string   `json:"user_agent,omitempty"`
	NoDedupe  bool     `json:"no_dedupe,omitempty"`
	// ResumeAbove is the size in bytes from which on a body whose transfer is cut goes on from where it was;
	// 0 = DefaultResumeAbove, ResumeNever = none does.
	ResumeAbove int64 `json:"resume_above,omitempty"`
	// Since is the earlier job whose answers requests refer to, "" = none; SinceStore is the identity of the store that
	// has them. A worker whose store is another fetches anew.
	Since      JobID  `json:"since,omitempty"`
	SinceStore string `json:"since_store,omitempty"`

	// The topics of version 2.
	Limits
	Wants
	ProtocolSpec
	AuthSpec
}

// The special values of Spec.ResumeAbove.
const (
	DefaultResumeAbove = 8 << 20
	ResumeNever        = -1
)

// Resumes reports whether a body of so many bytes goes on from where it was when its transfer is cut.
func (s *Spec) Resumes(length int64) bool {
	return s.ResumeAbove != ResumeNever && length >= cmp.Or(s.ResumeAbove, DefaultResumeAbove)
}

// The bounds of a rate, in requests per second beside 0. They are those of the fleet's rules (hosts/rules), which this package
// does not know; a test of the commands compares them.
const (
	minHostRate = 1e-5
	maxHostRate = 1e6
)

// DefaultSpec is what a job gets that says nothing.
func DefaultSpec() Spec {
	return Spec{
		V: 1, Queue: "default",
		HostRate: 5, HostBurst: 1, HostConns: 4,
		Retries: 4, Backoff: DefaultBackoff, Patience: Duration(2 * time.Hour),
		Timeout: Duration(30 * time.Second), MaxTime: Duration(time.Hour), MaxBody: 1 << 30,
		Method: "GET", Robots: "obey",
	}
}

// Validate names the first field that cannot be.
func (s Spec) Validate() error {
	switch {
	case !slices.Contains(Queues, s.Queue) && !isRunQueue(s.Queue):
		return fmt.Errorf("--queue %q: the queues are %s", s.Queue, strings.Join(Queues, ", "))
	case s.HostRate != 0 && !(s.HostRate >= minHostRate && s.HostRate <= maxHostRate): // NaN neither
		return fmt.Errorf("--host-rate %v: a rate is requests per second, 0.00001 to 1000000, or 0 for no limit", s.HostRate)
	case s.HostBurst < 1:
		return fmt.Errorf("--host-burst %d: at least 1", s.HostBurst)
	case s.HostConns < 0:
		return fmt.Errorf("--host-conns %d: 0 (no limit) or more", s.HostConns)
	case s.Retries < 0 || s.Retries > 1000:
		return fmt.Errorf("--retries %d: 0 to 1000", s.Retries)
	case s.Patience <= 0, s.Timeout <= 0, s.MaxTime <= 0:
		return fmt.Errorf("--patience %s, --timeout %s, --max-time %s: must be above 0", s.Patience, s.Timeout, s.MaxTime)
	case s.MaxBody <= 0:
		return fmt.Errorf("--max-body %d: must be above 0", s.MaxBody)
	case s.ResumeAbove < ResumeNever:
		return fmt.Errorf("--resume-above %d: 0 (never) or more", s.ResumeAbove)
	case s.Robots != "obey" && s.Robots != "ignore":
		return fmt.Errorf("--robots %q: obey or ignore", s.Robots)
	}
	if s.Since != "" {
		if err := s.Since.Validate(); err != nil {
			return fmt.Errorf("--since: %w", err)
		}
	}
	if _, err := s.RetryOn.Compile(); err != nil {
		return err
	}
	if err := s.Backoff.validate(); err != nil {
		return err
	}
	if err := s.validateHead(); err != nil {
		return err
	}
	return s.validateTopics()
}

// runQueue begins the name of a queue that one process keeps for itself.
const runQueue = "run-"

// RunQueue is the queue of a job that is run by one process beside others on the same Redis: no other worker takes its
// batches, and that process takes nobody else's.
func RunQueue(job JobID) string { return runQueue + string(job) }

func isRunQueue(queue string) bool {
	job, ok := strings.CutPrefix(queue, runQueue)
	return ok && JobID(job).Validate() == nil
}

// ParseSpec reads a stored spec. One that is newer than SpecVersion is an error that says so.
func ParseSpec(data []byte) (Spec, error) {
	var head struct {
		V int `json:"v"`
	}
	if err := json.Unmarshal(data, &head); err != nil {
		return Spec{}, fmt.Errorf("read job spec: %w", err)
	}
	if head.V > SpecVersion {
		return Spec{}, &NewerSpecError{Version: head.V}
	}
	s := DefaultSpec()
	if err := json.Unmarshal(data, &s); err != nil {
		return Spec{}, fmt.Errorf("read job spec: %w", err)
	}
	return s, nil
}

// NewerSpecError says that a job was made by a newer fetchfleet.
type NewerSpecError struct{ Version int }

// Error names both versions and the cure.
func (e *NewerSpecError) Error() string {
	return fmt.Sprintf("the job's spec has version %d, this fetchfleet understands up to %d: upgrade it", e.Version, SpecVersion)
}

// Difference names the fields, by flag, in which a spec differs from the one that its job has; only those in given are
// compared, all if nil.
func (s Spec) Difference(job Spec, given []string) []string {
	has := job.fields()
	var names []string
	for name, value := range s.fields() {
		if (given == nil || slices.Contains(given, name)) && value != has[name] {
			names = append(names, fmt.Sprintf("%s (the job has %s, not %s)", name, has[name], value))
		}
	}
	slices.Sort(names)
	return names
}

// fields maps each policy flag to the value it has.
func (s Spec) fields() map[string]string {
	header := []byte("none")
	if len(s.Header) > 0 {
		header, _ = json.Marshal(s.Header)
	}
	fields := map[string]string{
		"--queue": s.Queue, "--host-rate": fmt.Sprint(s.HostRate), "--host-burst": fmt.Sprint(s.HostBurst),
		"--host-conns": fmt.Sprint(s.HostConns), "--retries": fmt.Sprint(s.Retries), "--backoff": s.Backoff.String(),
		"--retry-on": orNone(string(s.RetryOn)), "--patience": s.Patience.String(), "--timeout": s.Timeout.String(),
		"--max-time": s.MaxTime.String(), "--max-body": fmt.Sprint(s.MaxBody), "--method": s.Method,
		"--header": string(header), "--data": shortData(s.Data), "--robots": s.Robots,
		"--user-agent": orNone(s.UserAgent), "--no-dedupe": fmt.Sprint(s.NoDedupe),
		"--resume-above": fmt.Sprint(max(0, cmp.Or(s.ResumeAbove, DefaultResumeAbove))),
		"--since":        orNone(string(s.Since)),
	}
	for _, t := range s.topics() {
		maps.Copy(fields, t.fields())
	}
	return fields
}

// shortData is a body for a message, a digest where it is long.
func shortData(data []byte) string {
	if len(data) <= 200 {
		return fmt.Sprintf("%q", data)
	}
	return fmt.Sprintf("%d bytes with sha256 %.16x", len(data), sha256.Sum256(data))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
