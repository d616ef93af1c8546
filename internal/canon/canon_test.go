package canon

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// canonical URLs: each must come back as it is, and through the fast path.
var canonical = []struct{ claim, href, host string }{
	{"plain", "https://example.com/a/b.html", "example.com"},
	{"http", "http://example.com/", "example.com"},
	{"digits and hyphens", "https://a-1.2b.example/", "a-1.2b.example"},
	{"underscore in a host", "http://my_host.example_x/", "my_host.example_x"},
	{"port of its own", "http://example.com:8080/x", "example.com:8080"},
	{"https on port 80", "https://example.com:80/x", "example.com:80"},
	{"highest port", "https://example.com:65535/x", "example.com:65535"},
	{"IPv4", "http://127.0.0.1:9000/", "127.0.0.1:9000"},
	{"query", "https://a.example/p?q=1&r[]=%20{x}|`\\^", "a.example"},
	{"empty query", "https://a.example/p?", "a.example"},
	{"percent escapes stay as they are", "https://a.example/%41%zz%", "a.example"},
	{"dots inside segments", "https://a.example/.well-known/x..y/a.b", "a.example"},
	{"at sign in the path", "https://a.example/@user:x", "a.example"},
	{"double slashes", "https://a.example//x//", "a.example"},
}

func TestCanonicalURLsComeBackUnchanged(t *testing.T) {
	for _, tt := range canonical {
		t.Run(tt.claim, func(t *testing.T) {
			got, err := Parse(tt.href)
			if err != nil {
				t.Fatal(err)
			}
			want := URL{Href: tt.href, Host: tt.host, Scheme: tt.href[:strings.Index(tt.href, ":")]}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
			if _, ok := parseCanonical(tt.href); !ok {
				t.Error("took the long way")
			}
			if n := testing.AllocsPerRun(10, func() { _, _ = Parse(tt.href) }); n != 0 {
				t.Errorf("allocated %v times, want 0", n)
			}
		})
	}
}

func TestParseCanonicalises(t *testing.T) {
	for _, tt := range []struct{ claim, raw, href, host string }{
		{"an empty path becomes a slash", "http://a.example", "http://a.example/", "a.example"},
		{"an empty path before a query", "http://a.example?x", "http://a.example/?x", "a.example"},
		{"the fragment goes", "http://a.example/x?y#z\xff", "http://a.example/x?y", "a.example"},
		{"the fragment goes after a bare host", "http://a.example#z", "http://a.example/", "a.example"},
		{"host and scheme in lower case, path as it is", "HTTP://A.Example/Path", "http://a.example/Path", "a.example"},
		{"a default port goes", "http://a.example:80/", "http://a.example/", "a.example"},
		{"a default port goes from https", "https://a.example:443", "https://a.example/", "a.example"},
		{"leading zeros of a port go", "http://a.example:0081/", "http://a.example:81/", "a.example:81"},
		{"an empty port goes", "http://a.example:/", "http://a.example/", "a.example"},
		{"dot segments", "http://a.example/x/./y/../z", "http://a.example/x/z", "a.example"},
		{"dot segments at the end", "http://a.example/x/..", "http://a.example/", "a.example"},
		{"encoded dot segments", "http://a.example/x/%2e%2E/y/.%2e/z", "http://a.example/z", "a.example"},
		{"backslashes", `http:\\a.example\x\y`, "http://a.example/x/y", "a.example"},
		{"missing slashes", "http:a.example/x", "http://a.example/x", "a.example"},
		{"too many slashes", "http:////a.example/x", "http://a.example/x", "a.example"},
		{"space around, tabs and newlines inside", " \thttp://a.exa\tmple/x\ny ", "http://a.example/xy", "a.example"},
		{"space in the path", "http://a.example/x y", "http://a.example/x%20y", "a.example"},
		{"what a path encodes", "http://a.example/\"<>`{}^\x7f", "http://a.example/%22%3C%3E%60%7B%7D%5E%7F", "a.example"},
		{"what a query encodes", "http://a.example/?\"<>' ü", "http://a.example/?%22%3C%3E%27%20%C3%BC", "a.example"},
		{"non-ASCII path", "http://a.example/ü", "http://a.example/%C3%BC", "a.example"},
		{"non-ASCII host", "http://bücher.example/", "http://xn--bcher-kva.example/", "xn--bcher-kva.example"},
		{"punycode host", "http://xn--bcher-kva.example/", "http://xn--bcher-kva.example/", "xn--bcher-kva.example"},
		{"percent-encoded host", "http://ex%61mple.com/", "http://example.com/", "example.com"},
		{"full-width host", "http://ｅｘ．example/", "http://ex.example/", "ex.example"},
		{"trailing dot stays", "http://a.example./", "http://a.example./", "a.example."},
		{"IPv4 as one number", "http://2130706433/", "http://127.0.0.1/", "127.0.0.1"},
		{"IPv4 in octal and hex", "http://0177.0.0.0x1/", "http://127.0.0.1/", "127.0.0.1"},
		{"IPv4 with parts missing", "http://127.1/", "http://127.0.0.1/", "127.0.0.1"},
		{"IPv4 with a trailing dot", "http://127.0.0.1./", "http://127.0.0.1/", "127.0.0.1"},
		{"IPv6", "http://[0:0::0:1]:8080/", "http://[::1]:8080/", "[::1]:8080"},
		{"IPv6, default port", "https://[2001:DB8::1]:443/", "https://[2001:db8::1]/", "[2001:db8::1]"},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			got, err := Parse(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			want := URL{Href: tt.href, Host: tt.host, Scheme: tt.href[:strings.Index(tt.href, ":")]}
			if d := cmp.Diff(want, got); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestParseRefuses(t *testing.T) {
	for _, tt := range []struct {
		claim, raw string
		want       error
		text       string // part of the message
	}{
		{"another scheme", "ftp://example.com/x", ErrScheme, `scheme "ftp" is not fetched: only http and https`},
		{"a mail address", "mailto:a@example.com", ErrScheme, `"mailto"`},
		{"a script", "javascript:alert(1)", ErrScheme, `"javascript"`},
		{"no scheme", "example.com/x", ErrNoScheme, "example.com/x has no scheme: write https://example.com/x"},
		{"no scheme but a port", "example.com:8080/x", ErrNoScheme, "write https://example.com:8080/x"},
		{"no scheme but slashes", "//example.com/x", ErrNoScheme, "write https://example.com/x"},
		{"a path", "/x", ErrNoScheme, "no host"},
		{"control characters are quoted in the message", "x\x1b[2J", ErrNoScheme, `"x\x1b[2J"`},
		{"empty", "", ErrInvalid, "empty"},
		{"only space", " \t ", ErrInvalid, "empty"},
		{"no host", "http://", ErrNoHost, ""},
		{"no host but a path", "https:///", ErrNoHost, ""},
		{"no host but a port", "http://:80/", ErrNoHost, ""},
		{"a space in the host", "http://a b/", ErrInvalid, "forbidden domain code point"},
		{"a port too high", "http://a.example:65536/", ErrInvalid, "port"},
		{"a port of letters", "http://a.example:x/", ErrInvalid, "port"},
		{"IPv4 out of range", "http://256.0.0.1/", ErrInvalid, "IPv4"},
		{"IPv4 with five parts", "http://1.2.3.4.5/", ErrInvalid, "IPv4"},
		{"IPv6 without its bracket", "http://[::1/", ErrInvalid, "IPv6"},
		{"bad punycode", "http://xn--a/", ErrInvalid, ""},
		{"not UTF-8", "http://a.example/caf\xe9", ErrInvalid, "not UTF-8"},
		{"too long", "http://a.example/" + strings.Repeat("x", MaxLength), ErrTooLong, "8 KiB"},
		{"too long once encoded", "http://a.example/" + strings.Repeat("ü", MaxLength/3), ErrTooLong, "8 KiB"},
		{"too long by its slash", "http://" + strings.Repeat("x.", MaxLength/2-4) + "x", ErrTooLong, "8 KiB"},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			got, err := Parse(tt.raw)
			if !errors.Is(err, tt.want) {
				t.Fatalf("Parse = %+v, %v; want %v", got, err, tt.want)
			}
			if !strings.Contains(err.Error(), tt.text) {
				t.Errorf("message %q, want %q in it", err, tt.text)
			}
			if len(err.Error()) > 3*shown {
				t.Errorf("message of %d bytes", len(err.Error()))
			}
		})
	}
}

func TestCredentialsAreRefusedAndNeverRepeated(t *testing.T) {
	for _, raw := range []string{
		"http://user:hunter2@a.example/",
		"https://hunter2@a.example/",
		"https://a@b:hunter2@a.example/x",
		`http:\\hunter2:x@a.example`,
		"ht\ntp://hunter2:x@a.example/",
		"http://user:hunter2@[::bad/",
		"http://user:hunter2@/",
		"user:hunter2@a.example/",
		"us_er:hunter2@a.example/",
		"ftp://user:hunter2@a.example/",
		"http://user:hunter2@a.example/\xff",
	} {
		got, err := Parse(raw)
		if err == nil {
			t.Fatalf("Parse(%q) = %+v, want an error", raw, got)
		}
		if strings.Contains(err.Error(), "hunter2") {
			t.Errorf("Parse(%q) repeats the password: %v", raw, err)
		}
	}
	if _, err := Parse("http://user:pw@a.example/"); !errors.Is(err, ErrCredentials) {
		t.Errorf("err = %v, want ErrCredentials", err)
	}
}

func TestResolve(t *testing.T) {
	base := URL{Href: "https://a.example/x/y?q", Host: "a.example", Scheme: "https"}
	for _, tt := range []struct {
		claim, ref, want string
		err              error
	}{
		{"whole URL", "http://b.example/", "http://b.example/", nil},
		{"another host, same scheme", "//b.example", "https://b.example/", nil},
		{"from the root", "/z", "https://a.example/z", nil},
		{"relative", "../z?r#f", "https://a.example/z?r", nil},
		{"the same", "", "https://a.example/x/y?q", nil},
		{"another scheme", "ftp://b.example/", "", ErrScheme},
		{"credentials", "//u:p@b.example/", "", ErrCredentials},
		{"no host", "https://", "", ErrNoHost},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			got, err := Resolve(base, tt.ref)
			if got.Href != tt.want || !errors.Is(err, tt.err) {
				t.Errorf("Resolve = %q, %v; want %q, %v", got.Href, err, tt.want, tt.err)
			}
		})
	}
}

func ExampleParse() {
	u, err := Parse("HTTPS://Example.com:443/a/../b?q=1#top")
	fmt.Println(u.Href, u.Host, err)
	_, err = Parse("example.com/x")
	fmt.Println(err)
	// Output:
	// https://example.com/b?q=1 example.com <nil>
	// example.com/x has no scheme: write https://example.com/x
}
