package tasks

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Backoff says how long to wait before a request is tried again: Base·Factor^(n-1) for the n-th wait, at most Cap,
// then spread by Jitter.
type Backoff struct {
	Base   Duration `json:"base"`
	Factor float64  `json:"factor"` // at least 1
	Cap    Duration `json:"cap"`
	// Jitter is "full" (anything from 0 to the wait), "equal" (from half of it) or "none".
	Jitter string `json:"jitter"`
}

// DefaultBackoff is 1 s doubling up to 5 min, with full jitter.
var DefaultBackoff = Backoff{Base: Duration(time.Second), Factor: 2, Cap: Duration(5 * time.Minute), Jitter: "full"}

// String writes the form that ParseBackoff reads.
func (b Backoff) String() string {
	return fmt.Sprintf("base=%s,factor=%s,cap=%s,jitter=%s", b.Base, strconv.FormatFloat(b.Factor, 'g', -1, 64), b.Cap, b.Jitter)
}

// ParseBackoff reads "base=1s,factor=2,cap=5m,jitter=full"; what is left out keeps its default.
func ParseBackoff(s string) (Backoff, error) {
	b := DefaultBackoff
	for part := range strings.SplitSeq(s, ",") {
		name, value, ok := strings.Cut(strings.TrimSpace(part), "=")
		if !ok {
			return b, fmt.Errorf("backoff %q: write base=1s,factor=2,cap=5m,jitter=full", s)
		}
		if err := b.set(name, value); err != nil {
			return b, fmt.Errorf("backoff %q: %w", s, err)
		}
	}
	return b, b.validate()
}

func (b *Backoff) set(name, value string) (err error) {
	switch name {
	case "base":
		return b.Base.UnmarshalText([]byte(value))
	case "cap":
		return b.Cap.UnmarshalText([]byte(value))
	case "factor":
		b.Factor, err = strconv.ParseFloat(value, 64)
		return err
	case "jitter":
		b.Jitter = value
		return nil
	}
	return fmt.Errorf("unknown part %q: base, factor, cap and jitter are known", name)
}

func (b Backoff) validate() error {
	switch {
	case b.Base <= 0, b.Cap < b.Base:
		return fmt.Errorf("backoff %s: base must be above 0 and not above cap", b)
	case !(b.Factor >= 1) || math.IsInf(b.Factor, 0):
		return fmt.Errorf("backoff %s: factor must be at least 1", b)
	case b.Jitter != "full" && b.Jitter != "equal" && b.Jitter != "none":
		return fmt.Errorf("backoff %s: jitter is full, equal or none", b)
	}
	return nil
}

// Delay returns the n-th wait, n from 1. random is in [0,1).
func (b Backoff) Delay(n int, random float64) time.Duration {
	d := float64(b.Base) * math.Pow(b.Factor, float64(max(n, 1)-1))
	d = min(d, float64(b.Cap)) // also where the power overflowed to infinity
	switch b.Jitter {
	case "full":
		d *= random
	case "equal":
		d *= 0.5 + random/2
	}
	if d >= math.MaxInt64 { // only with a cap of centuries
		return time.Duration(b.Cap)
	}
	return time.Duration(d)
}
