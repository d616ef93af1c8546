package cookies_test

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/cookies"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func parse(t *testing.T, text string) *url.URL {
	t.Helper()
	u, err := url.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func setCookie(lines ...string) http.Header { return http.Header{"Set-Cookie": lines} }

func TestACookieGoesWhereItsAttributesAllow(t *testing.T) {
	for claim, c := range map[string]struct {
		from, set, to string
		sent          bool
	}{
		"to the same host":                          {"http://a.example.com/", "k=v", "http://a.example.com/x", true},
		"to another port":                           {"http://a.example.com:81/", "k=v", "http://a.example.com/x", true},
		"not to a host below":                       {"http://example.com/", "k=v", "http://a.example.com/", false},
		"to a host below with Domain":               {"http://a.example.com/", "k=v; Domain=example.com", "http://b.example.com/", true},
		"with a dot before the domain":              {"http://a.example.com/", "k=v; Domain=.Example.COM", "http://b.example.com/", true},
		"not to a name that only ends alike":        {"http://example.com/", "k=v; Domain=example.com", "http://badexample.com/", false},
		"not for another domain":                    {"http://a.example.com/", "k=v; Domain=b.example.com", "http://b.example.com/", false},
		"not for a name below":                      {"http://example.com/", "k=v; Domain=a.example.com", "http://a.example.com/", false},
		"not for a public suffix":                   {"http://a.co.uk/", "k=v; Domain=co.uk", "http://a.co.uk/", false},
		"not for all of com":                        {"http://a.com/", "k=v; Domain=com", "http://b.com/", false},
		"of a public suffix to itself":              {"http://github.io/", "k=v; Domain=github.io", "http://github.io/", true},
		"of a public suffix not to those below":     {"http://github.io/", "k=v; Domain=github.io", "http://a.github.io/", false},
		"of an address to itself":                   {"http://127.0.0.1/", "k=v; Domain=127.0.0.1", "http://127.0.0.1/", true},
		"of an address not to part of it":           {"http://127.0.0.1/", "k=v; Domain=0.0.1", "http://127.0.0.1/", false},
		"of IPv6":                                   {"http://[::1]:80/", "k=v", "http://[::1]/", true},
		"below its path":                            {"http://h/", "k=v; Path=/a", "http://h/a/b", true},
		"to its path":                               {"http://h/", "k=v; Path=/a", "http://h/a", true},
		"not to a path that begins alike":           {"http://h/", "k=v; Path=/a", "http://h/ab", false},
		"not above its path":                        {"http://h/", "k=v; Path=/a/", "http://h/a", false},
		"without a path to the folder of what set":  {"http://h/a/b", "k=v", "http://h/a/c", true},
		"without a path not to the folder above":    {"http://h/a/b", "k=v", "http://h/c", false},
		"secure over TLS":                           {"https://h/", "k=v; Secure", "https://h/", true},
		"secure not in the clear":                   {"https://h/", "k=v; Secure", "http://h/", false},
		"secure not set in the clear":               {"http://h/", "k=v; Secure", "https://h/", false},
		"before it expires":                         {"http://h/", "k=v; Max-Age=1", "http://h/", true},
		"not after it has expired":                  {"http://h/", "k=v; Expires=Thu, 01 Jan 2026 00:00:00 GMT", "http://h/", false},
		"by Max-Age rather than Expires":            {"http://h/", "k=v; Max-Age=9; Expires=Thu, 01 Jan 1970 00:00:00 GMT", "http://h/", true},
		"not with Max-Age 0":                        {"http://h/", "k=v; Max-Age=0", "http://h/", false},
		"with a very long life":                     {"http://h/", "k=v; Max-Age=9223372036854775807", "http://h/", true},
		"not with more than 4 KiB":                  {"http://h/", "k=" + strings.Repeat("v", 4<<10), "http://h/", false},
		"with the prefix of a host, as it promises": {"https://h/", "__Host-k=v; Secure; Path=/", "https://h/", true},
		"not with a prefix that it does not keep":   {"https://h/", "__Host-k=v; Secure; Path=/a", "https://h/a", false},
		"not with __Secure- and without Secure":     {"https://h/", "__Secure-k=v", "https://h/", false},
		"not without a name":                        {"http://h/", "=v", "http://h/", false},
		"with a name that ends in a dot":            {"http://h.example.com./", "k=v; Domain=example.com.", "http://example.com/", true},
	} {
		t.Run(claim, func(t *testing.T) {
			j := cookies.NewJar(nil)
			j.Learn(parse(t, c.from), setCookie(c.set), now)
			field := j.Field(parse(t, c.to), nil, now)
			if sent := field != ""; sent != c.sent {
				t.Errorf("sent %q", field)
			}
			for _, k := range j.Changed() { // and what is sent is found again where it is looked for
				if field != "" && !slices.Contains(cookies.Domains(parse(t, c.to)), k.Domain) {
					t.Errorf("the cookie of %s is not among those of %v", k.Domain, cookies.Domains(parse(t, c.to)))
				}
			}
		})
	}
}

func TestCookiesOfTheRequestGoAlongUnlessTheServerHasSetThemAnew(t *testing.T) {
	j := cookies.NewJar(nil)
	u := parse(t, "http://h/a/b")
	j.Learn(u, setCookie("one=1; Path=/", `two="2"`), now)
	j.Learn(u, setCookie("three=3; Path=/"), now.Add(time.Second))
	got := j.Field(u, []string{"own=0; one=old", "last=9"}, now)
	if want := `two="2"; one=1; three=3; own=0; last=9`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestWhatAnAnswerRemovesIsTold(t *testing.T) {
	u := parse(t, "http://h/")
	old := cookies.Cookie{Name: "k", Value: "v", Domain: "h", HostOnly: true, Path: "/", At: 1, Created: 1}
	j := cookies.NewJar([]cookies.Cookie{old})
	if got := j.Field(u, nil, now); got != "k=v" || len(j.Changed()) != 0 {
		t.Fatalf("%q, changed %v", got, j.Changed())
	}
	j.Learn(u, setCookie("k=; Max-Age=0"), now)
	want := old
	want.Value, want.Expires, want.At = "", now.UnixMilli(), now.UnixMilli()
	if diff := cmp.Diff([]cookies.Cookie{want}, j.Changed()); len(j.Changed()) != 0 || diff != "" || j.Field(u, nil, now) != "" {
		t.Errorf("sent %q, changed:\n%s", j.Field(u, nil, now), diff)
	}
}

func TestWhatOthersKeptMeanwhileIsTakenUnlessItIsOlder(t *testing.T) {
	u := parse(t, "http://h/")
	j := cookies.NewJar(nil)
	j.Learn(u, setCookie("a=mine; Path=/", "b=mine; Path=/"), now)
	other := func(name string, at int64) cookies.Cookie {
		return cookies.Cookie{Name: name, Value: "other", Domain: "h", HostOnly: true, Path: "/", At: at, Created: at}
	}
	j.Take([]cookies.Cookie{other("a", now.UnixMilli()+1), other("b", now.UnixMilli()-1)})
	if got := j.Field(u, nil, now); got != "b=mine; a=other" {
		t.Errorf("sent %s", got)
	}
	if changed := j.Changed(); len(changed) != 1 || changed[0].Name != "b" {
		t.Errorf("changed %v", changed)
	}
}

func TestASecureCookieIsNotReplacedInTheClear(t *testing.T) {
	j := cookies.NewJar(nil)
	j.Learn(parse(t, "https://h/"), setCookie("k=good; Secure"), now)
	j.Learn(parse(t, "http://h/"), setCookie("k=bad"), now)
	if got := j.Field(parse(t, "https://h/"), nil, now); got != "k=good" {
		t.Error(got)
	}
}

func TestAJarKeepsTheNewestOfADomain(t *testing.T) {
	j := cookies.NewJar(nil)
	u := parse(t, "http://h/")
	for i := range 2 * cookies.MaxCookies {
		j.Learn(u, setCookie(fmt.Sprintf("k%03d=v", i)), now.Add(time.Duration(i)*time.Millisecond))
	}
	field := j.Field(u, nil, now)
	if n := strings.Count(field, "="); n != cookies.MaxCookies || !strings.HasSuffix(field, "k127=v") || strings.Contains(field, "k000") {
		t.Errorf("%d cookies: %s", n, field)
	}
	if n := len(j.Changed()); n != cookies.MaxCookies {
		t.Errorf("%d changed", n)
	}
}

// Whatever a server says, a cookie is for the host or a domain above it, and its value opens no second field.
func FuzzSetCookie(f *testing.F) {
	for _, seed := range []string{"k=v", "k=v; Domain=example.com", "k=v; Path=/a;b", "k=v; Domain=com", `k="a;b"`, "k=v; Max-Age=-99999999999999", "k=v; Expires=x", "k=a\r\nX: y"} {
		f.Add(seed, "http://a.example.com/x/y")
	}
	f.Fuzz(func(t *testing.T, line, target string) {
		u, err := url.Parse(target)
		if err != nil || u.Host == "" {
			return
		}
		j := cookies.NewJar(nil)
		j.Learn(u, setCookie(line), now)
		if field := j.Field(u, nil, now); strings.ContainsAny(field, "\r\n\x00") {
			t.Errorf("%q of %q makes the field %q", line, target, field)
		}
		for _, c := range j.Changed() {
			if !slices.Contains(cookies.Domains(u), c.Domain) {
				t.Errorf("%q at %q is for %q", line, target, c.Domain)
			}
		}
	})
}
