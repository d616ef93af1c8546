package hosts

import (
	"strconv"
	"time"
)

const (
	horizon = 7 * time.Second // between the first and the last send time given out at once; the scripts have the same
	leases  = 64              // send times given out at once, at most
)

// terms are what holds at a host now.
type terms struct {
	every time.Duration // between two send times, 0 = none are needed
	burst int           // at least 1
	conns int           // 0 = no limit
}

// strictest puts the limits of all jobs with work at a host together. A burst is one of a rate: a job without a rate has no
// say in it.
func strictest(jobs []Limits) Limits {
	var out Limits
	for _, l := range jobs {
		out.Rate = stricter(out.Rate, l.Rate)
		if l.Rate > 0 {
			out.Burst = int(stricter(float64(out.Burst), float64(l.Burst)))
		}
		out.Conns = int(stricter(float64(out.Conns), float64(l.Conns)))
	}
	out.Burst = max(out.Burst, 1)
	return out
}

// termsAt are the limits of a host that is taken slow times slower than they say, at least 1. What is added keeps windows
// within the limit although requests do not take equally long to arrive. A host that is taken slower gets no bursts, and
// one without a rate no more than 20 requests a second.
func termsAt(l Limits, slow float64) terms {
	t := terms{burst: l.Burst, conns: l.Conns}
	switch {
	case l.Rate > 0:
		t.every = time.Duration(1.018 * float64(time.Second) / l.Rate * slow)
	case slow > 1:
		t.every = time.Duration(float64(time.Second) / 20 * slow)
	}
	if slow > 1 {
		t.burst = 1
	}
	return t
}

// bucket is a token bucket (GCRA): tat is when the last send time given out is paid for.
type bucket struct{ tat time.Time }

// next is the next send time, no earlier than that.
func (b *bucket) next(t terms, earliest time.Time) time.Time {
	if t.every > 0 {
		if at := b.tat.Add(-time.Duration(t.burst-1) * t.every); at.After(earliest) {
			return at
		}
	}
	return earliest
}

// lease gives out up to n send times. The first is no later than far from now, the others no later than horizon after it.
func (b *bucket) lease(t terms, n int, now, earliest time.Time) (at []time.Time) {
	limit := now.Add(far)
	for t.every > 0 && len(at) < min(n, leases) {
		next := b.next(t, earliest)
		if next.After(limit) {
			break
		}
		at = append(at, next)
		if len(at) == 1 {
			limit = next.Add(horizon)
		}
		b.tat = later(next, b.tat).Add(t.every)
	}
	return at
}

// mark stands for the state of the bucket.
func (b *bucket) mark() string { return strconv.FormatInt(b.tat.UnixNano(), 10) }

// giveBack takes the last n send times back, if nobody has leased after them.
func (b *bucket) giveBack(n int, every time.Duration, mark string) {
	if n > 0 && b.mark() == mark {
		b.tat = b.tat.Add(-time.Duration(n) * every)
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
