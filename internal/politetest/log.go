package politetest

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Request is one request as the origin saw it. Times count from the origin's beginning.
type Request struct {
	Host   string // of the Host field
	Path   string
	Start  time.Duration // when it came
	End    time.Duration // when its answer was ready, or its visitor had gone; 0 while in service
	Status int           // of the answer, 0 while in service
	Broken bool          // the visitor went away before it had an answer
}

// Robots reports whether it asked for robots.txt.
func (r *Request) Robots() bool { return r.Path == robotsPath }

// Log is what an origin saw, in order of arrival.
type Log []Request

// Where returns the requests for which keep answers true.
func (l Log) Where(keep func(*Request) bool) Log {
	var kept Log
	for i := range l {
		if keep(&l[i]) {
			kept = append(kept, l[i])
		}
	}
	return kept
}

// Robots returns the requests for robots.txt.
func (l Log) Robots() Log { return l.Where((*Request).Robots) }

// Pages returns the requests for anything else.
func (l Log) Pages() Log { return l.Where(func(r *Request) bool { return !r.Robots() }) }

// Host returns the requests of one host.
func (l Log) Host(name string) Log { return l.Where(func(r *Request) bool { return r.Host == name }) }

// ByHost returns the requests of each host.
func (l Log) ByHost() map[string]Log {
	hosts := map[string]Log{}
	for _, r := range l {
		hosts[r.Host] = append(hosts[r.Host], r)
	}
	return hosts
}

// Between returns the requests that came in [from, to).
func (l Log) Between(from, to time.Duration) Log {
	return l.Where(func(r *Request) bool { return r.Start >= from && r.Start < to })
}

// Most is the greatest number of requests that came within any window [t, t+window), of all hosts in the log together,
// and when the first such window began.
func (l Log) Most(window time.Duration) (most int, at time.Duration) {
	starts := make([]time.Duration, len(l))
	for i, r := range l {
		starts[i] = r.Start
	}
	slices.Sort(starts)
	first := 0
	for i, t := range starts {
		for t-starts[first] >= window {
			first++
		}
		if n := i - first + 1; n > most {
			most, at = n, starts[first]
		}
	}
	return most, at
}

// InService is the greatest number of requests in service at once, of all hosts in the log together, and when that was
// so first. One that comes at the moment at which another ends follows it.
func (l Log) InService() (most int, at time.Duration) {
	type change struct {
		at time.Duration
		by int
	}
	var changes []change
	for _, r := range l {
		changes = append(changes, change{r.Start, +1})
		if r.Status != 0 {
			changes = append(changes, change{r.End, -1})
		}
	}
	slices.SortStableFunc(changes, func(a, b change) int { return cmp.Or(cmp.Compare(a.at, b.at), cmp.Compare(a.by, b.by)) })
	now := 0
	for _, c := range changes {
		if now += c.by; now > most {
			most, at = now, c.at
		}
	}
	return most, at
}

// Next is the first arrival at t or later; ok is false when there is none.
func (l Log) Next(t time.Duration) (first Request, ok bool) {
	for _, r := range l {
		if r.Start >= t && (!ok || r.Start < first.Start) {
			first, ok = r, true
		}
	}
	return first, ok
}

// Gap is the longest time between two arrivals that follow each other, and when it began; 0 for fewer than two.
func (l Log) Gap() (longest, at time.Duration) {
	starts := make([]time.Duration, len(l))
	for i, r := range l {
		starts[i] = r.Start
	}
	slices.Sort(starts)
	for i := 1; i < len(starts); i++ {
		if gap := starts[i] - starts[i-1]; gap > longest {
			longest, at = gap, starts[i-1]
		}
	}
	return longest, at
}

// Makespan is the time from the first arrival to the last end.
func (l Log) Makespan() time.Duration {
	if len(l) == 0 {
		return 0
	}
	first, last := l[0].Start, time.Duration(0)
	for _, r := range l {
		first, last = min(first, r.Start), max(last, r.Start, r.End)
	}
	return last - first
}

// Broken is how many requests' visitors went away.
func (l Log) Broken() int { return len(l.Where(func(r *Request) bool { return r.Broken })) }

// Limits are what each host is to see at most.
type Limits struct {
	Rate  float64 // requests per second, 0 = no limit
	Burst int
	Conns int // in service at once, 0 = no limit
}

// Within is how many requests may come within a window: rate·window + burst, rounded down.
func (l Limits) Within(window time.Duration) int {
	if l.Rate == 0 {
		return math.MaxInt
	}
	return int(math.Floor(l.Rate*window.Seconds()+1e-9)) + l.Burst
}

// Breaches says where hosts saw more than the limits allow, one sentence for each host and limit; none is good.
func (l Log) Breaches(limits Limits, window time.Duration) []string {
	var wrong []string
	hosts := l.ByHost()
	for _, name := range slices.Sorted(maps.Keys(hosts)) {
		if n, at := hosts[name].Most(window); n > limits.Within(window) {
			wrong = append(wrong, fmt.Sprintf("%s: %d requests within %s from %s on, want at most %d",
				name, n, window, at.Round(time.Millisecond), limits.Within(window)))
		}
		if n, at := hosts[name].InService(); limits.Conns > 0 && n > limits.Conns {
			wrong = append(wrong, fmt.Sprintf("%s: %d requests in service at %s, want at most %d",
				name, n, at.Round(time.Millisecond), limits.Conns))
		}
	}
	return wrong
}

// Worst is the most that any one host saw within a window, and in service.
func (l Log) Worst(window time.Duration) (within, inService int) {
	for _, host := range l.ByHost() {
		n, _ := host.Most(window)
		s, _ := host.InService()
		within, inService = max(within, n), max(inService, s)
	}
	return within, inService
}
