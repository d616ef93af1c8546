package hosts

import (
	"context"
	"time"
)

// span is how long the spans are in which the report counts requests: the greatest rate is that of a whole one.
const span = 10 * time.Second

// Span is how many exchanges were begun in one span of ten seconds.
type Span struct {
	Number int64 // since 1970, by the clock of the source
	Count  int
}

// Refusal is how many requests of a job were not sent to a host because its robots.txt does not allow them.
type Refusal struct {
	Job, Host string
	Count     int
}

// spanAt is the number of the span in which a local time lies.
func (t Times) spanAt(at time.Time) int64 {
	us := at.UnixMicro()
	if !t.read.IsZero() {
		us = t.now + at.Sub(t.read).Microseconds()
	}
	return us / span.Microseconds()
}

// note counts an exchange for the report. Without limits most visits are none that the source hears of, and counting the
// others would mislead. The caller holds v.mu.
func (v *visit) note(at time.Time) {
	if v.grant == nil || v.ask.Limits.Unlimited() {
		return
	}
	n := v.times.spanAt(at)
	if last := len(v.began) - 1; last >= 0 && v.began[last].Number == n {
		v.began[last].Count++
		return
	}
	v.began = append(v.began, Span{Number: n, Count: 1})
}

// tell takes what was noted: a call to the source is about to carry it. The caller holds v.mu.
func (v *visit) tell() []Span {
	began := v.began
	v.began = nil
	return began
}

// refusals are those that wait for a call to the source, by job and host.
type refusals map[[2]string]int

// refusalLimit is how many hosts one call tells of.
const refusalLimit = 500

// Refused notes for the report that n requests of a job were not sent because robots.txt does not allow them. It makes no
// call: a look at the hosts that are due, which Run takes anyway, carries it within seconds.
func (f *Fleet) Refused(job, host string, n int) {
	f.keepRefused([]Refusal{{Job: job, Host: host, Count: n}})
}

func (f *Fleet) keepRefused(list []Refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.refused == nil {
		f.refused = refusals{}
	}
	for _, r := range list {
		if r.Count > 0 {
			f.refused[[2]string{r.Job, r.Host}] += r.Count
		}
	}
}

// takeRefused takes as many as one call may carry.
func (f *Fleet) takeRefused() (list []Refusal) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for key, n := range f.refused {
		if len(list) == refusalLimit {
			break
		}
		list = append(list, Refusal{Job: key[0], Host: key[1], Count: n})
		delete(f.refused, key)
	}
	return list
}

// tellRefused tells the rest when the worker stops.
func (f *Fleet) tellRefused() {
	ctx, cancel := context.WithTimeout(context.Background(), step)
	defer cancel()
	for {
		list := f.takeRefused()
		if len(list) == 0 {
			return
		}
		if _, err := f.source.Sweep(ctx, list...); err != nil {
			return // the figures are short of these
		}
	}
}
