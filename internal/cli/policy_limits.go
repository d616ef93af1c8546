package cli

import (
	"errors"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// LimitFlags are the bounds of a job's exchanges.
type LimitFlags struct {
	ConnectTimeout *tasks.Duration `group:"Policy" env:"FLEET_CONNECT_TIMEOUT" help:"Longest time to look a name up and connect; class connect_timeout (default: 10s)."`
	TLSTimeout     *tasks.Duration `group:"Policy" name:"tls-timeout" env:"FLEET_TLS_TIMEOUT" help:"Longest TLS handshake; class tls_timeout (default: 10s)."`
	IdleTimeout    *tasks.Duration `group:"Policy" env:"FLEET_IDLE_TIMEOUT" help:"Longest pause between two bytes of a body; class idle_timeout (default: that of --timeout)."`
	MethodTimeout  []string        `group:"Policy" env:"FLEET_METHOD_TIMEOUT" placeholder:"METHOD=TIME" help:"--timeout for requests of one method, such as POST=60s; may be repeated."`
	MinSpeed       *Speed          `group:"Policy" env:"FLEET_MIN_SPEED" placeholder:"SIZE" help:"Least bytes per second of a body, as sent, while it is waited for: 10KiB; class min_speed. 0 = none (default: 0)."`
	MinSpeedTime   *tasks.Duration `group:"Policy" env:"FLEET_MIN_SPEED_TIME" help:"Over how long --min-speed is measured (default: 30s)."`
	MaxRatio       *int64          `group:"Policy" env:"FLEET_MAX_RATIO" help:"How many times larger than what was sent a body above 1MiB may decode to; class decode_ratio. 0 = no limit (default: 1000)."`
	MaxRedirects   *int            `group:"Policy" env:"FLEET_MAX_REDIRECTS" help:"Redirects that are followed, 0 to 100; 0 = a redirect is recorded as the answer (default: 20)."`
	MaxURL         *ByteSize       `group:"Policy" name:"max-url" env:"FLEET_MAX_URL" placeholder:"SIZE" help:"Longest URL, of a line or a redirect (default and most: 8KiB)."`
}

func (f *LimitFlags) apply(spec *tasks.Spec, given *[]string) (err error) {
	set(&spec.ConnectTimeout, f.ConnectTimeout, "--connect-timeout", given)
	set(&spec.TLSTimeout, f.TLSTimeout, "--tls-timeout", given)
	set(&spec.IdleTimeout, f.IdleTimeout, "--idle-timeout", given)
	set((*Speed)(&spec.MinSpeed), f.MinSpeed, "--min-speed", given)
	set(&spec.MinSpeedTime, f.MinSpeedTime, "--min-speed-time", given)
	set(&spec.MaxRatio, f.MaxRatio, "--max-ratio", given)
	if f.ConnectTimeout != nil && *f.ConnectTimeout <= 0 || f.TLSTimeout != nil && *f.TLSTimeout <= 0 ||
		f.IdleTimeout != nil && *f.IdleTimeout <= 0 || f.MinSpeedTime != nil && *f.MinSpeedTime <= 0 {
		return usage("--connect-timeout, --tls-timeout, --idle-timeout, --min-speed-time: must be above 0")
	}
	switch {
	case f.MaxRatio != nil && *f.MaxRatio < 0:
		return usage("--max-ratio %d: 1 or more, or 0 for no limit", *f.MaxRatio)
	case f.MaxRatio != nil && *f.MaxRatio == 0:
		spec.MaxRatio = tasks.NoMaxRatio
	}
	if f.MaxRedirects != nil {
		spec.MaxRedirects = f.MaxRedirects
		*given = append(*given, "--max-redirects")
	}
	if f.MaxURL != nil {
		if spec.MaxURL = int(*f.MaxURL); *f.MaxURL < 1 || *f.MaxURL > tasks.MaxURLLength {
			return usage("--max-url %d: 1 to %d bytes", *f.MaxURL, tasks.MaxURLLength)
		}
		*given = append(*given, "--max-url")
	}
	if len(f.MethodTimeout) > 0 {
		*given = append(*given, "--method-timeout")
		if spec.MethodTimeouts, err = tasks.ParseMethodTimeouts(f.MethodTimeout); err != nil {
			return usage("%w", err)
		}
	}
	return nil
}

// WantFlags say which answers a job is after.
type WantFlags struct {
	Accept []string `group:"Policy" env:"FLEET_ACCEPT" placeholder:"TYPE" help:"Types of bodies that are wanted, such as text/html or image/*: sent as Accept, and a 2xx answer of another type is recorded as skipped, class content_type, without its body."`
	Range  *string  `group:"Policy" env:"FLEET_RANGE" placeholder:"FIRST-LAST" help:"Ask for a part of each body: 0-1023, 500- or -500 (the last 500 bytes). A 206 is ok; the body is as sent, and not resumed."`
}

func (f *WantFlags) apply(spec *tasks.Spec, given *[]string) (err error) {
	if len(f.Accept) > 0 {
		*given = append(*given, "--accept")
		if spec.Accept, err = tasks.ParseMediaRanges(strings.Join(f.Accept, ",")); err != nil {
			return usage("--accept: %w", err)
		}
	}
	if f.Range != nil {
		*given = append(*given, "--range")
		if spec.Range, err = tasks.ParseByteRange(*f.Range); err != nil {
			return usage("--range: %w", err)
		}
	}
	return nil
}

// Speed is bytes per second: a size, with "/s" after it or not.
type Speed int64

// UnmarshalText reads a speed.
func (s *Speed) UnmarshalText(text []byte) error {
	size, _ := strings.CutSuffix(strings.TrimSpace(string(text)), "/s")
	var b ByteSize
	if b.UnmarshalText([]byte(size)) != nil {
		return errors.New("write a speed like 500, 10KiB or 1MB/s")
	}
	*s = Speed(b)
	return nil
}
