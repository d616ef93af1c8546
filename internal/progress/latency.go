package progress

import (
	"math"
	"slices"
	"sync"
	"time"
)

// The histogram has buckets that grow by a constant factor, so that the middle of a bucket is at most 4 % off any
// value in it, from 10 µs to three hours. Values beyond either end count as that end.
const (
	relativeError = 0.04
	growth        = (1 + relativeError) / (1 - relativeError)
	leastLatency  = 10 * time.Microsecond
	buckets       = 262 // log(3 h / 10 µs) / log(growth)
)

// mostHosts is how many hosts have figures of their own; about 150 bytes each.
const mostHosts = 10_000

// Latency collects the times of exchanges, over all and by host, in bounded memory. The zero value is ready; all
// methods may be called from any goroutine.
type Latency struct {
	mu     sync.Mutex
	counts [buckets]uint64
	n      uint64
	sum    time.Duration
	max    time.Duration
	hosts  map[string]*hostTimes
}

// hostTimes are the figures of one host.
type hostTimes struct {
	n        int64
	sum, max time.Duration
}

func (h *hostTimes) mean() time.Duration { return h.sum / time.Duration(max(h.n, 1)) }

// HostLatency is what is told of one host.
type HostLatency struct {
	Host      string
	Requests  int64
	Mean, Max time.Duration
}

// Observe takes the time of one exchange with a host.
func (l *Latency) Observe(host string, d time.Duration) {
	d = max(d, 0)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.counts[bucket(d)]++
	l.n++
	l.sum += d
	l.max = max(l.max, d)
	h := l.hosts[host]
	if h == nil {
		h = l.admit(host)
	}
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

// admit makes room for a host. Among a few taken by chance the quickest is forgotten, so the slow ones stay.
func (l *Latency) admit(host string) *hostTimes {
	if l.hosts == nil {
		l.hosts = map[string]*hostTimes{}
	}
	if len(l.hosts) >= mostHosts {
		quickest, looked := "", 0
		for name, h := range l.hosts { // in no order
			if looked == 0 || h.mean() < l.hosts[quickest].mean() {
				quickest = name
			}
			if looked++; looked == 8 {
				break
			}
		}
		delete(l.hosts, quickest)
	}
	h := &hostTimes{}
	l.hosts[host] = h
	return h
}

// Count returns how many exchanges were observed.
func (l *Latency) Count() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return int64(l.n)
}

// Quantile returns the time that a share q of the exchanges, from 0 to 1, did not exceed, at most 4 % off. 0 when
// nothing was observed.
func (l *Latency) Quantile(q float64) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.n == 0 {
		return 0
	}
	rank := uint64(math.Ceil(min(max(q, 0), 1) * float64(l.n)))
	var seen uint64
	for i, n := range l.counts {
		if seen += n; n > 0 && seen >= rank {
			return min(middle(i), l.max)
		}
	}
	return l.max
}

// Max returns the longest time observed, exactly.
func (l *Latency) Max() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.max
}

// Slowest returns the n hosts with the longest mean time, the slowest first.
func (l *Latency) Slowest(n int) []HostLatency {
	l.mu.Lock()
	defer l.mu.Unlock()
	all := make([]HostLatency, 0, len(l.hosts))
	for host, h := range l.hosts {
		all = append(all, HostLatency{Host: host, Requests: h.n, Mean: h.mean(), Max: h.max})
	}
	slices.SortFunc(all, func(a, b HostLatency) int {
		if a.Mean != b.Mean {
			return int(min(max(b.Mean-a.Mean, -1), 1))
		}
		if a.Host < b.Host {
			return -1
		}
		return 1
	})
	return all[:min(n, len(all))]
}

// bucket returns the bucket of a time.
func bucket(d time.Duration) int {
	if d <= leastLatency {
		return 0
	}
	return min(int(math.Log(float64(d)/float64(leastLatency))/math.Log(growth)), buckets-1)
}

// middle returns the value of a bucket that is equally far, in proportion, from both its ends.
func middle(i int) time.Duration {
	return time.Duration(float64(leastLatency) * math.Pow(growth, float64(i)) * 2 * growth / (1 + growth))
}
