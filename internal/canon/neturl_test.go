package canon

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
)

func TestNetURLSendsWhatHrefSays(t *testing.T) {
	seen := make(chan *http.Request, 1)
	// An absolute request target is as good as its path (RFC 9112 section 3.2.2).
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { seen <- r }))
	defer srv.Close()
	for _, target := range []string{
		"/", "/a/b?c=d", "/?", "/a?", "/a%20b", "/%41%2f", "/a|b[c]", "/a:b@c;d,e", "/x?%27&|`{}\\^[]", "//x//y", "//x|y", "/x//y?//", "/?a?b",
	} {
		u, err := Parse(srv.URL + target)
		if err != nil {
			t.Fatal(err)
		}
		req := (&http.Request{Method: http.MethodGet, URL: u.NetURL()}).WithContext(t.Context())
		resp, err := srv.Client().Do(req)
		if err != nil {
			t.Errorf("%s: %v", target, err)
			continue
		}
		_ = resp.Body.Close()
		r := <-seen
		if got := strings.TrimPrefix(r.RequestURI, srv.URL); got != target || r.Host != u.Host {
			t.Errorf("sent %q to %q, want %q to %q", got, r.Host, target, u.Host)
		}
	}
}

func TestNetURLTakesWhatNetURLRefuses(t *testing.T) {
	u, err := Parse("http://a.example/%zz?%")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := url.Parse(u.Href); err == nil {
		t.Fatal("net/url takes it after all: NetURL is no longer needed for it")
	}
	if n := u.NetURL(); n.RequestURI() != "/%zz?%" || n.Host != "a.example" || n.Scheme != "http" {
		t.Errorf("NetURL = %#v", n)
	}
}
