package canon

import (
	"strings"
	"testing"
)

var seeds = []string{
	"http://a", "https://example.com/a/b?c=d#e", "http://1.2.3.4/", "http://a.0x1/", "http://a.1/", "http://a.-1/",
	"http://01.2.3.4/", "http://a..b/", "http://a.b./", "http://-/", "http://_/", "http://xn--a/", "http://a.xn--b/",
	"http://a:080/", "http://a:80/", "https://a:443/", "http://a:65536/", "http://a:/", "http://a/.", "http://a/..?",
	"http://a/%2e/", "http://a/.%2E", "http://a/%", "http://a/?'", "http://a/?\\^`{}", "http://a/\x7f", "http://a/#\xff",
	"http://[::1]:80/", "http:\\\\a\\..\\", "HTTP://A/", "http://u:p@a/", "http://+1/", "http://a.+1/", "http://a--b/",
	"http://1e2.e/", "http://a.1_/", "http://ab--c.de/", "http://%41/", "http://a b/", "http://ß/", "http://a\u00ad/",
}

// FuzzFastPathAgrees holds the fast path to the standard's parser: whatever it claims to be canonical is.
func FuzzFastPathAgrees(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, ok := parseCanonical(s)
		if !ok {
			return
		}
		u, err := standard.Parse(s)
		if err != nil {
			t.Fatalf("%q: fast says %+v, the standard says %v", s, got, err)
		}
		want := URL{Href: u.Href(true), Host: u.Host(), Scheme: u.Scheme()}
		if got != want || u.Username() != "" || u.Password() != "" {
			t.Fatalf("%q: fast says %+v, the standard says %+v", s, got, want)
		}
	})
}

// FuzzParseIsIdempotent checks that a canonical URL is its own canonical form, and the promises about its fields.
func FuzzParseIsIdempotent(f *testing.F) {
	for _, s := range seeds {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(u.Href); err != nil || again != u {
			t.Fatalf("Parse(%q) = %+v; again: %+v, %v", s, u, again, err)
		}
		prefix := u.Scheme + "://" + u.Host + "/"
		if !strings.HasPrefix(u.Href, prefix) {
			t.Fatalf("Href %q does not begin with %q", u.Href, prefix)
		}
		if u.Host == "" || strings.ContainsAny(u.Host, "@/ ") || len(u.Href) > MaxLength || strings.Contains(u.Href, "#") {
			t.Fatalf("%+v", u)
		}
		for i := range len(u.Href) {
			if c := u.Href[i]; c <= ' ' || c >= 0x7f {
				t.Fatalf("Href %q holds byte %#x", u.Href, c)
			}
		}
	})
}

// 70 bytes each.
const (
	benchCanonical = "https://www.example.com/articles/2024/05/a-title-of-some-length?id=123"
	benchOther     = "https://WWW.example.com/articles/2024/05/a-title-of-some-length?id=123"
)

func BenchmarkParse(b *testing.B) {
	for _, bb := range []struct{ name, raw string }{
		{"canonical", benchCanonical}, {"bare-host", "https://www.example.com"}, {"other", benchOther},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := Parse(bb.raw); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
