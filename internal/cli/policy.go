package cli

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// PolicyFlags are a job's policy. What is not given is left to the job, or to the defaults for a new one.
type PolicyFlags struct {
	Queue       *string         `group:"Policy" env:"FLEET_QUEUE" help:"Queue: critical, default or low (default: default)."`
	HostRate    *float64        `group:"Policy" env:"FLEET_HOST_RATE" help:"Requests per second to each host, 0 = no limit (default: 5)."`
	HostBurst   *int            `group:"Policy" env:"FLEET_HOST_BURST" help:"Requests that may go at once to a host after a pause (default: 1)."`
	HostConns   *int            `group:"Policy" env:"FLEET_HOST_CONNS" help:"Requests in service at once per host, 0 = no limit (default: 4)."`
	Retries     *int            `group:"Policy" env:"FLEET_RETRIES" help:"Attempts after the first (default: 4)."`
	Backoff     *string         `group:"Policy" env:"FLEET_BACKOFF" placeholder:"SPEC" help:"Wait between attempts (default: base=1s,factor=2,cap=5m,jitter=full; jitter is full, equal or none)."`
	RetryOn     *string         `group:"Policy" env:"FLEET_RETRY_ON" placeholder:"LIST" help:"Statuses and error classes to retry besides the usual, or not to: 404,-500,-reset."`
	Patience    *tasks.Duration `group:"Policy" env:"FLEET_PATIENCE" help:"How long a request may meet nothing but waits (429, 503, Retry-After), a host that does not answer, or a robots.txt that cannot be had (default: 2h)."`
	Timeout     *tasks.Duration `group:"Policy" env:"FLEET_TIMEOUT" help:"Longest wait for the headers, class header_timeout, and between two bytes of a body (default: 30s)."`
	MaxTime     *tasks.Duration `group:"Policy" env:"FLEET_MAX_TIME" help:"Longest time for a whole request; class total_timeout (default: 1h)."`
	MaxBody     *ByteSize       `group:"Policy" env:"FLEET_MAX_BODY" placeholder:"SIZE" help:"Largest body, as sent and as decoded (default: 1GiB)."`
	ResumeAbove *ByteSize       `group:"Policy" env:"FLEET_RESUME_ABOVE" placeholder:"SIZE" help:"A body at least this large whose transfer is cut goes on from where it was, if the server can; 0 = never (default: 8MiB)."`
	Method      *string         `group:"Policy" env:"FLEET_METHOD" help:"Method (default: GET). HEAD records the header of an answer, its Content-Length too, and no body."`
	Header      []string        `group:"Policy" env:"FLEET_HEADER" sep:"none" placeholder:"'K: V'" help:"Header field for every request; may be repeated. For User-Agent use --user-agent."`
	RequestFlags
	Robots    *string `group:"Policy" env:"FLEET_ROBOTS" help:"obey or ignore robots.txt (default: obey). What it does not allow is recorded as skipped, class robots."`
	UserAgent *string `group:"Policy" env:"FLEET_USER_AGENT" help:"User-Agent field (default: fetchfleet and its address)."`
	NoDedupe  bool    `group:"Policy" env:"FLEET_NO_DEDUPE" help:"Fetch a URL as often as the list has it; its lines are told apart by their number."`
	LimitFlags
	WantFlags
	ProtocolFlags
	AuthFlags
}

// Spec returns the policy with defaults for what was not given, and the flags that were given.
func (p *PolicyFlags) Spec() (spec tasks.Spec, given []string, err error) {
	spec = tasks.DefaultSpec()
	given = []string{}
	set(&spec.Queue, p.Queue, "--queue", &given)
	set(&spec.HostRate, p.HostRate, "--host-rate", &given)
	set(&spec.HostBurst, p.HostBurst, "--host-burst", &given)
	set(&spec.HostConns, p.HostConns, "--host-conns", &given)
	set(&spec.Retries, p.Retries, "--retries", &given)
	set(&spec.Patience, p.Patience, "--patience", &given)
	set(&spec.Timeout, p.Timeout, "--timeout", &given)
	set(&spec.MaxTime, p.MaxTime, "--max-time", &given)
	set(&spec.Method, p.Method, "--method", &given)
	set(&spec.Robots, p.Robots, "--robots", &given)
	set(&spec.UserAgent, p.UserAgent, "--user-agent", &given)
	set((*string)(&spec.RetryOn), p.RetryOn, "--retry-on", &given)
	set((*ByteSize)(&spec.MaxBody), p.MaxBody, "--max-body", &given)
	set((*ByteSize)(&spec.ResumeAbove), p.ResumeAbove, "--resume-above", &given)
	if p.ResumeAbove != nil && spec.ResumeAbove == 0 {
		spec.ResumeAbove = tasks.ResumeNever
	}
	if err := p.ProtocolFlags.apply(&spec, &given); err != nil {
		return spec, given, err
	}
	if p.NoDedupe {
		spec.NoDedupe = true
		given = append(given, "--no-dedupe")
	}
	if p.Backoff != nil {
		given = append(given, "--backoff")
		if spec.Backoff, err = tasks.ParseBackoff(*p.Backoff); err != nil {
			return spec, given, usage("--backoff: %w", err)
		}
	}
	if len(p.Header) > 0 {
		given = append(given, "--header")
		if spec.Header, err = parseHeaders(p.Header); err != nil {
			return spec, given, usage("%w", err)
		}
	}
	if err := p.LimitFlags.apply(&spec, &given); err != nil {
		return spec, given, err
	}
	if err := p.AuthFlags.apply(&spec, &given); err != nil {
		return spec, given, err
	}
	if err := p.WantFlags.apply(&spec, &given); err != nil {
		return spec, given, err
	}
	if spec.Method, err = lists.Method(spec.Method); err != nil {
		return spec, given, usage("--method %w", err)
	}
	if err := spec.Validate(); err != nil {
		return spec, given, usage("%w", err)
	}
	return spec, given, nil
}

func set[T any](field *T, value *T, name string, given *[]string) {
	if value != nil {
		*field = *value
		*given = append(*given, name)
	}
}

func parseHeaders(fields []string) (tasks.Header, error) {
	h := tasks.Header{}
	for _, field := range fields {
		name, value, ok := strings.Cut(field, ":")
		if !ok {
			return nil, fmt.Errorf("--header %q: write 'Name: value'", name)
		}
		name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
		if err := lists.CheckHeader(name, []string{value}); err != nil {
			return nil, fmt.Errorf("--header: %w", err)
		}
		h[name] = append(h[name], value)
	}
	return h, nil
}

// ByteSize is a number of bytes that people write as 512KiB, 20MB or 1GiB.
type ByteSize int64

var byteUnits = []struct {
	suffix string
	bytes  float64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1}, {"", 1},
}

// UnmarshalText reads a size.
func (b *ByteSize) UnmarshalText(text []byte) error {
	for _, unit := range byteUnits {
		number, ok := strings.CutSuffix(string(text), unit.suffix)
		if !ok {
			continue
		}
		n, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
		if err != nil || !(n >= 0 && n*unit.bytes <= math.MaxInt64/2) { // NaN neither
			break
		}
		*b = ByteSize(n * unit.bytes)
		return nil
	}
	return errors.New("write a size like 512KiB, 20MB or 1GiB")
}
