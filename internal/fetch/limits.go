package fetch

import (
	"cmp"
	"context"
	"time"
)

// Limits bound one exchange beside its Timeout, MaxTime and MaxBody. The zero value means what each field says.
type Limits struct {
	// ConnectTimeout bounds name lookup and connecting together; 0 means Options.ConnectTimeout.
	ConnectTimeout time.Duration
	// TLSTimeout bounds the TLS handshake; 0 means Options.TLSTimeout.
	TLSTimeout time.Duration
	// IdleTimeout bounds each wait for more of the body; 0 means Request.Timeout.
	IdleTimeout time.Duration
	// MinSpeed is how many bytes of the body, as sent, have to come per second, over each MinSpeedTime of waiting for
	// them; 0 means no least speed.
	MinSpeed int64
	// MinSpeedTime is over how long MinSpeed is measured; 0 means 30 s.
	MinSpeedTime time.Duration
	// MaxRatio is how many times larger than what was sent a body may decode to, once it is above 1 MiB; 0 means
	// DefaultMaxRatio, NoMaxRatio that there is no limit.
	MaxRatio int64
}

const (
	// DefaultMaxRatio is above what pages, logs and tables reach (20 to 300) and just below what gzip makes of zeros,
	// 1,032, which is what bombs are made of.
	DefaultMaxRatio = 1000
	// NoMaxRatio is a Limits.MaxRatio.
	NoMaxRatio = -1

	defaultMinSpeedTime = 30 * time.Second
)

// ratio is the limit as the decoders take it, which call none 0.
func (l *Limits) ratio() int64 { return max(0, cmp.Or(l.MaxRatio, DefaultMaxRatio)) }

// dialLimits is the key of *Limits in an exchange's context. net/http takes from it, for the dial, the values and not the
// end. Each exchange that finds no idle connection dials one, under its own limits; which of them gets it first is open,
// and a dial that fails by its limit fails nobody else's exchange.
type dialLimits struct{}

// withLimits puts the dialer's limits into ctx, where there are any: the hot path has none.
func (l *Limits) withLimits(ctx context.Context) context.Context {
	if l.ConnectTimeout <= 0 && l.TLSTimeout <= 0 {
		return ctx
	}
	return context.WithValue(ctx, dialLimits{}, l)
}

// connectLimit is the bound on connecting for whom ctx belongs to.
func connectLimit(ctx context.Context, usual time.Duration) time.Duration {
	if l, ok := ctx.Value(dialLimits{}).(*Limits); ok && l.ConnectTimeout > 0 {
		return l.ConnectTimeout
	}
	return usual
}

// tlsLimit is the bound on the handshake for whom ctx belongs to.
func tlsLimit(ctx context.Context, usual time.Duration) time.Duration {
	if l, ok := ctx.Value(dialLimits{}).(*Limits); ok && l.TLSTimeout > 0 {
		return l.TLSTimeout
	}
	return usual
}

// speed is a least speed being watched: quota bytes have to come in each span of waiting for them. A span ends as its
// quota is there, so that a fast beginning is no credit for later. Its clock stands while nobody reads: a store that
// takes its time is not the server's fault.
type speed struct {
	quota  int64 // bytes; 0 = none is watched
	span   time.Duration
	n      int64         // bytes of the span under way
	waited time.Duration // for them
	since  time.Duration // when the read under way began, as elapsed time of the exchange
}

func newSpeed(l *Limits) speed {
	if l.MinSpeed <= 0 {
		return speed{}
	}
	span := cmp.Or(l.MinSpeedTime, defaultMinSpeedTime)
	quota := max(1, float64(l.MinSpeed)*span.Seconds())
	return speed{quota: int64(min(quota, 1<<62)), span: span}
}

// left begins a read and says how long it may take.
func (s *speed) left(now time.Duration) time.Duration {
	s.since = now
	return s.span - s.waited
}

// took ends a read that brought n bytes, and reports whether they came in time.
func (s *speed) took(n int, now time.Duration) bool {
	s.n += int64(n)
	if s.waited += now - s.since; s.waited < s.span && s.n < s.quota {
		return true
	}
	ok := s.n >= s.quota
	s.n, s.waited = 0, 0
	return ok
}
