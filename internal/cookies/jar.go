package cookies

import (
	"cmp"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// Jar holds the cookies of one visit. It is safe for use by many goroutines.
type Jar struct {
	mu      sync.Mutex
	cookies map[string]*Cookie // by key
	changed map[string]bool
}

// NewJar returns a jar with the cookies that earlier visits left.
func NewJar(kept []Cookie) *Jar {
	j := &Jar{cookies: map[string]*Cookie{}, changed: map[string]bool{}}
	j.Take(kept)
	return j
}

// Take brings in what others have kept meanwhile. Of two values of a cookie the one set later stays.
func (j *Jar) Take(kept []Cookie) {
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range kept {
		c := &kept[i]
		if old := j.cookies[c.Key()]; old == nil || old.At < c.At {
			j.cookies[c.Key()] = c
			delete(j.changed, c.Key())
		}
	}
}

// Learn takes the cookies that an answer to a request to u sets.
func (j *Jar) Learn(u *url.URL, answer http.Header, now time.Time) {
	set := Set(u, answer, now)
	if len(set) == 0 {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for i := range set {
		c := &set[i]
		old := j.cookies[c.Key()]
		if old != nil {
			if old.Secure && u.Scheme != "https" { // who listens on the way must not replace it (RFC 6265bis, section 5.7)
				continue
			}
			c.Created = old.Created
		}
		j.cookies[c.Key()], j.changed[c.Key()] = c, true
		j.bound(c.Domain)
	}
}

// bound drops the oldest cookies of a domain that has too many.
func (j *Jar) bound(domain string) {
	var of []*Cookie
	for _, c := range j.cookies {
		if c.Domain == domain {
			of = append(of, c)
		}
	}
	if len(of) <= MaxCookies {
		return
	}
	slices.SortFunc(of, func(a, b *Cookie) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Key(), b.Key())) })
	for _, c := range of[:len(of)-MaxCookies] {
		delete(j.cookies, c.Key())
		delete(j.changed, c.Key())
	}
}

// Field is the value of the Cookie field of a request to u, "" = none. own is the field that the request brings: what it
// names and the jar does not goes along.
func (j *Jar) Field(u *url.URL, own []string, now time.Time) string {
	j.mu.Lock()
	defer j.mu.Unlock()
	var goes []*Cookie
	named := map[string]bool{}
	for _, c := range j.cookies {
		if c.goesTo(u, now) {
			goes = append(goes, c)
			named[c.Name] = true
		}
	}
	inOrder(goes)
	var pairs []string
	for _, c := range goes {
		pairs = append(pairs, c.Name+"="+c.Value)
	}
	for _, field := range own {
		for pair := range strings.SplitSeq(field, ";") {
			pair = strings.TrimSpace(pair)
			name, _, _ := strings.Cut(pair, "=")
			if pair != "" && !named[name] {
				pairs = append(pairs, pair)
			}
		}
	}
	return strings.Join(pairs, "; ")
}

// Changed are the cookies that were set since it was last asked, those that were removed among them.
func (j *Jar) Changed() []Cookie {
	j.mu.Lock()
	defer j.mu.Unlock()
	var out []Cookie
	for key := range j.changed {
		out = append(out, *j.cookies[key])
	}
	clear(j.changed)
	slices.SortFunc(out, func(a, b Cookie) int { return cmp.Compare(a.Key(), b.Key()) })
	return out
}
