package fetch

import (
	"crypto/tls"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func answered(status int, location string) *Response {
	res := &Response{Status: status, Header: http.Header{}}
	if location != "" {
		res.Header.Set("Location", location)
	}
	return res
}

func TestLocationsAreResolvedAsBrowsersDo(t *testing.T) {
	const from = "http://example.test:8080/a/b?q=1"
	for location, want := range map[string]string{
		"/x":                              "http://example.test:8080/x",
		"c":                               "http://example.test:8080/a/c",
		"../c":                            "http://example.test:8080/c",
		"?r=2":                            "http://example.test:8080/a/b?r=2",
		"//other.test/x":                  "http://other.test/x",
		"https://other.test":              "https://other.test/",
		"HTTPS://OTHER.test:443/x#frag":   "https://other.test/x",
		"#only":                           "http://example.test:8080/a/b?q=1",
		" /x ":                            "http://example.test:8080/x",
		"/a b":                            "http://example.test:8080/a%20b",
		"/100%":                           "http://example.test:8080/100%",
		"/ü":                              "http://example.test:8080/%C3%BC",
		`\\other.test\x`:                  "http://other.test/x",
		"http://2130706433/":              "http://127.0.0.1/",
		"http://user:secret@other.test/x": "http://other.test/x",
		"http://bücher.test/":             "http://xn--bcher-kva.test/",
		"//user@example.test:8080/x":      "http://example.test:8080/x",
	} {
		next, ok, err := Redirect(&Request{URL: from}, answered(302, location))
		if !ok || err != nil {
			t.Errorf("%q: ok %v, error %v", location, ok, err)
			continue
		}
		if next.URL != want {
			t.Errorf("%q leads to %s, want %s", location, next.URL, want)
		}
	}
}

func TestRedirectsThatLeadNowhere(t *testing.T) {
	r := &Request{URL: "http://example.test/"}
	for _, location := range []string{"ftp://a/", "javascript:alert(1)", "data:,x", "http://", "http://a:99999/", "http://a:0/", "http://[::1/", "mailto:a@b", "http://exa mple/"} {
		next, ok, err := Redirect(r, answered(302, location))
		if ok || ClassOf(err) != RedirectInvalid {
			t.Errorf("%q: %v, ok %v, error %v, want redirect_invalid", location, next, ok, err)
		}
	}
	for claim, res := range map[string]*Response{
		"a status that is none": answered(200, "/x"),
		"not modified":          answered(304, "/x"),
		"multiple choices":      answered(300, "/x"),
		"a created resource":    answered(201, "/x"),
		"a missing Location":    answered(302, ""),
		"a Location of spaces":  answered(302, "  "),
	} {
		if next, ok, err := Redirect(r, res); next != nil || ok || err != nil {
			t.Errorf("%s: %v, %v, %v, want a final answer", claim, next, ok, err)
		}
	}
}

func TestMethodAndBodyAfterARedirect(t *testing.T) {
	for _, c := range []struct {
		method string
		status int
		want   string
	}{
		{"", 301, "GET"}, {"GET", 302, "GET"}, {"HEAD", 301, "HEAD"}, {"HEAD", 303, "HEAD"},
		{"POST", 301, "GET"}, {"POST", 302, "GET"}, {"POST", 303, "GET"},
		{"PUT", 301, "PUT"}, {"PUT", 302, "PUT"}, {"PUT", 303, "GET"}, {"DELETE", 303, "GET"},
		{"POST", 307, "POST"}, {"POST", 308, "POST"}, {"PATCH", 308, "PATCH"},
	} {
		r := &Request{
			Method: c.method, URL: "http://example.test/", Body: []byte("x"),
			Header: http.Header{"Content-Type": {"a/b"}, "content-language": {"en"}, "Accept": {"c/d"}},
		}
		next, ok, err := Redirect(r, answered(c.status, "/y"))
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		if next.Method != c.want {
			t.Errorf("%d turns %q into %s, want %s", c.status, c.method, next.Method, c.want)
		}
		keeps := c.want == r.method()
		if got := len(next.Body) > 0; got != keeps {
			t.Errorf("%d after %q keeps the body: %v, want %v", c.status, c.method, got, keeps)
		}
		if got := len(next.Header) == 3; got != keeps || next.Header.Get("Accept") == "" {
			t.Errorf("%d after %q leaves the headers %v", c.status, c.method, next.Header)
		}
		if len(r.Header) != 3 || r.Body == nil {
			t.Errorf("%d after %q changed the first request", c.status, c.method)
		}
	}
}

func TestSecretsStayWithTheirOrigin(t *testing.T) {
	secrets := http.Header{
		"Authorization": {"a"}, "cookie": {"b"}, "Proxy-Authorization": {"c"}, "Host": {"virtual.test"},
		"X-Plain": {"d"},
	}
	for location, keeps := range map[string]bool{
		"/x":                       true,
		"http://example.test:80/x": true,
		"http://EXAMPLE.test/x":    true,
		"https://example.test/x":   false,
		"http://example.test:81/x": false,
		"http://sub.example.test/": false,
		"http://other.test/":       false,
	} {
		next, _, err := Redirect(&Request{URL: "http://example.test/", Header: secrets}, answered(307, location))
		if err != nil {
			t.Fatal(err)
		}
		want := http.Header{"X-Plain": {"d"}}
		if keeps {
			want = secrets
		}
		if diff := cmp.Diff(want, next.Header); diff != "" {
			t.Errorf("%s, -want +got:\n%s", location, diff)
		}
	}
	next, _, err := Redirect(&Request{URL: "https://example.test/", Header: secrets}, answered(302, "http://example.test/"))
	if err != nil || len(next.Header) != 1 {
		t.Errorf("from https to http: headers %v, error %v", next.Header, err)
	}
}

func TestCredentialsOfAURLStayWithTheirOrigin(t *testing.T) {
	r := &Request{URL: "http://user:pass@example.test/"}
	next, _, _ := Redirect(r, answered(302, "/x"))
	if got, want := next.Header.Get("Authorization"), "Basic dXNlcjpwYXNz"; got != want {
		t.Errorf("same origin: Authorization %q, want %q", got, want)
	}
	next, _, _ = Redirect(r, answered(302, "http://other.test/x"))
	if len(next.Header) != 0 {
		t.Errorf("another origin: headers %v", next.Header)
	}
}

func FuzzRedirect(f *testing.F) {
	for _, s := range []string{"/x", "//a", "http://a:b@c/", "%", "?\x00", "\xff", "http://[::1]:8/", "/\t/x", "http://a%41/", "/%zz ?é", "//%zz/", "..//%zz"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, location string) {
		r := &Request{URL: "http://example.test/a?b", Header: header("Cookie", "secret")}
		next, ok, err := Redirect(r, answered(302, location))
		if err != nil {
			if ok || ClassOf(err) != RedirectInvalid {
				t.Fatalf("%q: ok %v, error %v", location, ok, err)
			}
			return
		}
		if !ok {
			return
		}
		u, err := parseTarget(next.URL)
		if err != nil {
			t.Fatalf("%q leads to %q, which cannot be sent: %v", location, next.URL, err)
		}
		if u.User != nil || strings.Contains(next.URL, "#") {
			t.Fatalf("%q leads to %q", location, next.URL)
		}
		if line := u.RequestURI(); strings.ContainsAny(line, " \r\n\t\x00") || line == "" {
			t.Fatalf("%q gives the request line %q", location, line)
		}
		same := u.Scheme == "http" && strings.TrimSuffix(u.Host, ":80") == "example.test"
		if kept := next.Header.Get("Cookie") != ""; kept != same {
			t.Fatalf("%q leads to %q with cookie %v", location, next.URL, kept)
		}
	})
}

func FuzzParseTarget(f *testing.F) {
	for _, s := range []string{"http://a/%", "http://a//%zz", "http://a/%zz?b c#d", "https://u:p@a:1/%\xff"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		u, err := parseTarget(text)
		if err != nil {
			return
		}
		if line := u.RequestURI(); strings.ContainsAny(line, " \r\n\x00") {
			t.Fatalf("%q gives the request line %q", text, line)
		}
		u.User = nil
		plain := plainURL(u)
		again, err := parseTarget(plain)
		if err != nil {
			if _, std := url.Parse(text); std != nil || strings.Contains(u.Host, "%") {
				return // net/url prints some hosts that it does not read
			}
			t.Fatalf("%q is %q, which cannot be parsed: %v", text, plain, err)
		}
		if got := plainURL(again); got != plain {
			t.Fatalf("%q is %q is %q", text, plain, got)
		}
	})
}

func TestAClientCertificateStaysAtItsOrigin(t *testing.T) {
	for location, keeps := range map[string]bool{"/there": true, "https://h.example/there": true, "https://other.example/": false, "http://h.example/": false} {
		r := &Request{URL: "https://h.example/", Certificate: &tls.Certificate{}}
		next, ok, err := Redirect(r, &Response{Status: 302, Header: http.Header{"Location": {location}}})
		if !ok || err != nil || (next.Certificate != nil) != keeps {
			t.Errorf("%s: kept %t (%t, %v), want %t", location, next.Certificate != nil, ok, err, keeps)
		}
	}
}
