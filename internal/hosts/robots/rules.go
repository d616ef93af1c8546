package robots

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// Rules is what a file asks of one user agent. The zero Rules, and nil, allow everything and ask for no delay.
type Rules struct {
	// plain holds the patterns without special characters, which match what they are a prefix of; true allows.
	plain map[string]bool
	// lengths of the keys of plain, each once, longest first.
	lengths []int
	// wild holds the other patterns, by falling weight, and of equal ones those that allow first.
	wild []pattern
	// delay is the longest Crawl-delay, nil where there is none.
	delay *time.Duration
}

// merge makes the rules of groups into one set (RFC 9309 2.2.1).
func merge(groups []group) *Rules {
	r := &Rules{plain: map[string]bool{}}
	for _, g := range groups {
		r.delay = longer(r.delay, g.delay)
		for _, line := range g.rules {
			r.add(compile(line))
		}
	}
	lengths := map[int]bool{}
	for path := range r.plain {
		if !lengths[len(path)] {
			lengths[len(path)] = true
			r.lengths = append(r.lengths, len(path))
		}
	}
	slices.SortFunc(r.lengths, func(a, b int) int { return b - a })
	slices.SortStableFunc(r.wild, func(a, b pattern) int {
		return cmp.Or(cmp.Compare(b.weight, a.weight), compareAllow(a, b))
	})
	return r
}

// compareAllow puts a pattern that allows before one that does not.
func compareAllow(a, b pattern) int {
	switch {
	case a.allow == b.allow:
		return 0
	case a.allow:
		return -1
	}
	return 1
}

func (r *Rules) add(p pattern) {
	switch {
	case p.never():
	case p.plain():
		r.plain[p.prefix] = r.plain[p.prefix] || p.allow
	default:
		r.wild = append(r.wild, p)
	}
}

// CrawlDelay returns the wait between two requests that the file asks for, 0 to MaxCrawlDelay; false where it asks for none.
// The field is no part of RFC 9309; where several lines concern the agent, the longest wait counts.
func (r *Rules) CrawlDelay() (time.Duration, bool) {
	if r == nil || r.delay == nil {
		return 0, false
	}
	return *r.delay, true
}

// Allowed reports whether target may be fetched: the path and query of an address as they stand in the request line ("/a?b"),
// without fragment and with dot segments resolved. A target that does not begin with "/" is read as if it did.
//
// The rule whose pattern has the most octets decides, allow before disallow among equal ones; where none matches the target is
// allowed, and /robots.txt always is (RFC 9309 2.2.2). Octets are counted after percent-encoding has been made alike.
func (r *Rules) Allowed(target string) bool {
	if r == nil || len(r.plain) == 0 && len(r.wild) == 0 {
		return true
	}
	t := makeSubject(target)
	if t.path == "/robots.txt" {
		return true
	}
	weight, allow := r.longestPlain(t)
	for i := range r.wild {
		w := &r.wild[i]
		if w.weight < weight {
			break
		}
		if w.matches(t) {
			return w.allow || allow && w.weight == weight
		}
	}
	return allow
}

// longestPlain returns the octets of the longest plain pattern that t begins with, and whether it allows; 0, true for none.
// A file has few lengths, at most about a thousand: the sum of different ones cannot exceed its size.
func (r *Rules) longestPlain(t subject) (weight int, allow bool) {
	for _, n := range r.lengths {
		if n > len(t.split) {
			continue
		}
		if allow, ok := r.plain[t.split[:n]]; ok {
			return n, allow
		}
	}
	return 0, true
}

// subject is a target made ready to be matched.
type subject struct {
	path  string // as normalize leaves it
	split string // the same as splitQuery leaves it
}

func makeSubject(target string) subject {
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	path := normalize(target, false)
	return subject{path: path, split: splitQuery(path)}
}
