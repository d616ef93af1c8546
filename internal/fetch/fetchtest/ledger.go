package fetchtest

import (
	"net/http"
	"sync"
	"time"
)

// Seen is one request as it reached the origin.
type Seen struct {
	Time      time.Time
	Host      string // the Host header, "127.0.0.1:PORT"
	Method    string
	URI       string // path and query as sent
	UserAgent string
}

// ledger remembers what the origin was asked.
type ledger struct {
	countsOnly bool

	mu     sync.Mutex
	seen   []Seen
	counts map[string]int
	total  int
	now    map[string]int // in service, by host
	peak   map[string]int
}

func (l *ledger) init() {
	l.counts, l.now, l.peak = map[string]int{}, map[string]int{}, map[string]int{}
}

func (l *ledger) arrive(r *http.Request) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.total++
	l.counts[r.RequestURI]++
	l.now[r.Host]++
	l.peak[r.Host] = max(l.peak[r.Host], l.now[r.Host])
	if !l.countsOnly {
		l.seen = append(l.seen, Seen{time.Now(), r.Host, r.Method, r.RequestURI, r.UserAgent()})
	}
}

func (l *ledger) leave(host string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.now[host]--
}

// Requests returns every request so far, in order of arrival; none with CountsOnly.
func (l *ledger) Requests() []Seen {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]Seen(nil), l.seen...)
}

// Count returns how often uri, path and query as sent, was requested at any host.
func (l *ledger) Count(uri string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.counts[uri]
}

// Counts returns the number of requests by path and query.
func (l *ledger) Counts() map[string]int {
	l.mu.Lock()
	defer l.mu.Unlock()
	counts := make(map[string]int, len(l.counts))
	for uri, n := range l.counts {
		counts[uri] = n
	}
	return counts
}

// Total returns the number of requests so far.
func (l *ledger) Total() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.total
}

// InService returns how many requests of host ("127.0.0.1:PORT") are being answered now.
func (l *ledger) InService(host string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.now[host]
}

// Peak returns the most requests of host that were being answered at one time.
func (l *ledger) Peak(host string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.peak[host]
}

// MostWithin returns the most requests of host that arrived within any window
// of the given length: what a rate limit has to answer for. CountsOnly knows none.
func (l *ledger) MostWithin(host string, window time.Duration) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	var times []time.Time
	most := 0
	for _, s := range l.seen {
		if s.Host != host {
			continue
		}
		times = append(times, s.Time)
		for s.Time.Sub(times[0]) >= window {
			times = times[1:]
		}
		most = max(most, len(times))
	}
	return most
}

// Forget empties the ledger, as if nothing had been asked; requests in service
// keep counting as such.
func (l *ledger) Forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.seen, l.total = nil, 0
	clear(l.counts)
	clear(l.peak)
	for host, n := range l.now {
		l.peak[host] = n
	}
}
