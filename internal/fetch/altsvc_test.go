package fetch

import (
	"fmt"
	"net/url"
	"testing"
	"time"
)

func TestAlternativesAreReadAsTheyAreMeant(t *testing.T) {
	for _, c := range []struct {
		claim, field string
		want         string
		age          time.Duration
	}{
		{"a port", `h3=":443"`, "443", defaultMaxAge},
		{"with its age", `h3=":8443"; ma=60`, "8443", time.Minute},
		{"an age in quotes, and other parameters", `h3=":443"; persist=1; MA="60"`, "443", time.Minute},
		{"the first of several", `h2=":444", h3=":445"; ma=5, h3=":446"`, "445", 5 * time.Second},
		{"its own host", `h3="x.test:443"`, "443", defaultMaxAge},
		{"its own host, spelt otherwise", `h3="X.Test:443"`, "443", defaultMaxAge},
		{"another host is left alone", `h3="evil.test:443"`, "", 0},
		{"but what follows it is not", `h3="evil.test:443", h3=":444"`, "444", defaultMaxAge},
		{"clear", `clear`, "", 0},
		{"drafts are something else", `h3-29=":443"`, "", 0},
		{"too old at once", `h3=":443"; ma=0`, "443", 0},
		{"an age that is none", `h3=":443"; ma=soon`, "443", 0},
		{"an age beyond all bounds", `h3=":443"; ma=2147483647`, "443", maxMaxAge},
		{"a comma in quotes", `h3="a,b:443", h3=":5"`, "5", defaultMaxAge},
		{"an escape", `h3="\:443"`, "443", defaultMaxAge},
		{"no port", `h3="x.test"`, "", 0},
		{"a port that is none", `h3=":0"`, "", 0},
		{"a port too large", `h3=":65536"`, "", 0},
		{"an open quote", `h3=":443`, "", 0},
		{"nothing", ``, "", 0},
	} {
		port, age := parseAltSvc([]string{c.field}, "x.test")
		if port != c.want || age != c.age {
			t.Errorf("%s: port %q for %v, want %q for %v", c.claim, port, age, c.want, c.age)
		}
	}
}

func FuzzAltSvc(f *testing.F) {
	f.Add(`h3=":443"; ma=60, h2="a:1"`)
	f.Add(`h3="\"`)
	f.Fuzz(func(t *testing.T, field string) {
		port, age := parseAltSvc([]string{field}, "x.test")
		if age < 0 || age > maxMaxAge {
			t.Errorf("%q holds for %v", field, age)
		}
		if port != "" {
			if _, err := url.Parse("https://x.test:" + port); err != nil || len(port) > 5 {
				t.Errorf("%q has port %q", field, port)
			}
		}
	})
}

func TestAlternativesAreRememberedAsLongAsTheyHold(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAlternatives()
	u := &url.URL{Scheme: "https", Host: "[::1]"}
	o := originOf(lane{}, u)
	want := func(claim, addr string) {
		t.Helper()
		if got := a.of(o, now); got != addr {
			t.Errorf("%s: %q, want %q", claim, got, addr)
		}
	}
	want("unknown", "")
	a.learn(o, u, []string{`h3=":8443"; ma=3600`}, now)
	want("learnt", "[::1]:8443")
	if got := a.of(originOf(lane{insecure: true}, u), now); got != "" {
		t.Errorf("another lane knows %q", got)
	}
	a.learn(o, u, nil, now)
	want("an answer that says nothing changes nothing", "[::1]:8443")
	a.shun(o, now)
	want("shunned", "")
	a.learn(o, u, []string{`h3=":8443"; ma=3600`}, now)
	want("shunned although named again", "")
	now = now.Add(shunTime)
	want("shunned long enough", "[::1]:8443")
	a.learn(o, u, []string{"clear"}, now)
	want("cleared", "")
	a.learn(o, u, []string{`h3=":8443"; ma=60`}, now)
	now = now.Add(time.Minute + 1)
	want("expired", "")
	for i := range maxAlternatives + 50 {
		u := &url.URL{Scheme: "https", Host: fmt.Sprint("h", i, ".test")}
		a.learn(originOf(lane{}, u), u, []string{`h3=":443"`}, now)
	}
	if got := len(a.known); got > maxAlternatives {
		t.Errorf("%d are remembered, want at most %d", got, maxAlternatives)
	}
}
