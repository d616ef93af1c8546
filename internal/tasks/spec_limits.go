package tasks

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Limits are the bounds of a job's exchanges beside Timeout, MaxTime and MaxBody. The zero value says what each did before
// it could be said.
type Limits struct {
	ConnectTimeout Duration `json:"connect_timeout,omitempty"` // name and connection; 0 = DefaultConnectTimeout
	TLSTimeout     Duration `json:"tls_timeout,omitempty"`     // the handshake; 0 = DefaultConnectTimeout
	IdleTimeout    Duration `json:"idle_timeout,omitempty"`    // between bytes of a body; 0 = that of the headers
	// MethodTimeouts are for requests of a method what Timeout is for the others.
	MethodTimeouts map[string]Duration `json:"method_timeouts,omitempty"`
	MinSpeed       int64               `json:"min_speed,omitempty"`      // bytes/s, as sent; 0 = none
	MinSpeedTime   Duration            `json:"min_speed_time,omitempty"` // over so long; 0 = DefaultMinSpeedTime
	MaxRatio       int64               `json:"max_ratio,omitempty"`      // decoded to sent; 0 = DefaultMaxRatio, NoMaxRatio = none
	MaxRedirects   *int                `json:"max_redirects,omitempty"`  // 0 = a redirect is the answer; nil = DefaultMaxRedirects
	MaxURL         int                 `json:"max_url,omitempty"`        // bytes, of a line or a redirect; 0 = MaxURLLength
}

// What is in effect where Limits say nothing.
const (
	DefaultConnectTimeout = 10 * time.Second
	DefaultMinSpeedTime   = 30 * time.Second
	DefaultMaxRatio       = 1000
	// DefaultMaxRedirects is how many redirects browsers follow (Fetch standard, 4.4 HTTP-redirect fetch).
	DefaultMaxRedirects = 20
	// MaxURLLength is the longest URL there is (canon.MaxLength, which this package does not know; a test of the commands
	// compares them).
	MaxURLLength = 8 << 10
	// NoMaxRatio is a Limits.MaxRatio.
	NoMaxRatio = -1

	maxRedirects = 100
)

// Redirects is how many redirects are followed.
func (l *Limits) Redirects() int {
	if l.MaxRedirects == nil {
		return DefaultMaxRedirects
	}
	return *l.MaxRedirects
}

// URLLimit is the length in bytes beyond which a URL is not asked for.
func (l *Limits) URLLimit() int { return cmp.Or(l.MaxURL, MaxURLLength) }

// Ratio is the largest ratio of a decoded body to what was sent, 0 = no limit.
func (l *Limits) Ratio() int64 { return max(0, cmp.Or(l.MaxRatio, DefaultMaxRatio)) }

func (l *Limits) used() bool {
	return l.ConnectTimeout != 0 || l.TLSTimeout != 0 || l.IdleTimeout != 0 || len(l.MethodTimeouts) > 0 || l.MinSpeed != 0 ||
		l.MinSpeedTime != 0 || l.MaxRatio != 0 || l.MaxRedirects != nil || l.MaxURL != 0
}

func (l *Limits) validate() error {
	for _, d := range []struct {
		flag string
		is   Duration
	}{
		{"--connect-timeout", l.ConnectTimeout}, {"--tls-timeout", l.TLSTimeout}, {"--idle-timeout", l.IdleTimeout},
		{"--min-speed-time", l.MinSpeedTime},
	} {
		if d.is < 0 || d.is > 0 && d.is < Duration(time.Millisecond) {
			return fmt.Errorf("%s %s: at least 1ms", d.flag, d.is)
		}
	}
	for _, method := range slices.Sorted(maps.Keys(l.MethodTimeouts)) {
		if d := l.MethodTimeouts[method]; !isToken(method) || d < Duration(time.Millisecond) {
			return fmt.Errorf("--method-timeout %.60q=%s: write METHOD=DURATION, at least 1ms, like POST=60s", method, d)
		}
	}
	switch {
	case l.MinSpeed < 0:
		return fmt.Errorf("--min-speed %d: bytes per second, or 0 for none", l.MinSpeed)
	case l.MaxRatio < NoMaxRatio:
		return fmt.Errorf("--max-ratio %d: 1 or more, or 0 for no limit", l.MaxRatio)
	case l.MaxRedirects != nil && (*l.MaxRedirects < 0 || *l.MaxRedirects > maxRedirects):
		return fmt.Errorf("--max-redirects %d: 0 to %d", *l.MaxRedirects, maxRedirects)
	case l.MaxURL < 0 || l.MaxURL > MaxURLLength:
		return fmt.Errorf("--max-url %d: 1 to %d bytes", l.MaxURL, MaxURLLength)
	}
	return nil
}

func (l *Limits) fields() map[string]string {
	idle := "as --timeout"
	if l.IdleTimeout > 0 {
		idle = l.IdleTimeout.String()
	}
	methods := make([]string, 0, len(l.MethodTimeouts))
	for _, method := range slices.Sorted(maps.Keys(l.MethodTimeouts)) {
		methods = append(methods, method+"="+l.MethodTimeouts[method].String())
	}
	return map[string]string{
		"--connect-timeout": cmp.Or(l.ConnectTimeout, Duration(DefaultConnectTimeout)).String(),
		"--tls-timeout":     cmp.Or(l.TLSTimeout, Duration(DefaultConnectTimeout)).String(),
		"--idle-timeout":    idle, "--method-timeout": orNone(strings.Join(methods, ",")),
		"--min-speed":      fmt.Sprint(l.MinSpeed),
		"--min-speed-time": cmp.Or(l.MinSpeedTime, Duration(DefaultMinSpeedTime)).String(),
		"--max-ratio":      fmt.Sprint(l.Ratio()), "--max-redirects": fmt.Sprint(l.Redirects()),
		"--max-url": fmt.Sprint(l.URLLimit()),
	}
}

// ParseMethodTimeouts reads what --method-timeout takes: METHOD=DURATION, the last of a method wins.
func ParseMethodTimeouts(texts []string) (map[string]Duration, error) {
	timeouts := map[string]Duration{}
	for _, text := range texts {
		method, value, ok := strings.Cut(text, "=")
		d, err := time.ParseDuration(strings.TrimSpace(value))
		if method = strings.ToUpper(strings.TrimSpace(method)); !ok || err != nil || !isToken(method) || d < time.Millisecond {
			return nil, fmt.Errorf("--method-timeout %.60q: write METHOD=DURATION, at least 1ms, like POST=60s", text)
		}
		timeouts[method] = Duration(d)
	}
	return timeouts, nil
}
