package fetch

import (
	"crypto/tls"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

var discardLog = log.New(io.Discard, "", 0)

func newHTTP2(t *testing.T, h http.HandlerFunc, o Options) (*Fetcher, string) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = discardLog
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	o.TLSConfig = &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	return newFetcher(t, o), s.URL
}

func TestHTTP2IsSpokenWhereOffered(t *testing.T) {
	f, url := newHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Proto)
	}, Options{})
	for i := range 2 {
		res, body, err := fetch(f, &Request{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		if res.Protocol != "HTTP/2.0" || string(body) != "HTTP/2.0" {
			t.Errorf("Protocol %s, the server saw %s", res.Protocol, body)
		}
		if want := strings.TrimPrefix(url, "https://"); res.RemoteAddr != want {
			t.Errorf("RemoteAddr %q, want %q", res.RemoteAddr, want)
		}
		if shook := res.Timings().TLS > 0; shook != (i == 0) {
			t.Errorf("exchange %d has timings %+v", i, res.Timings())
		}
	}
}

func TestHTTP2FailuresHaveTheirClass(t *testing.T) {
	f, url := newHTTP2(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/headers-large":
			for range 20 {
				w.Header().Add("X-Large", strings.Repeat("x", 1<<10))
			}
			return
		case "/cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
			http.NewResponseController(w).Flush()
		case "/hang":
			<-r.Context().Done()
		}
		panic(http.ErrAbortHandler)
	}, Options{MaxHeaderBytes: 8 << 10})
	for path, want := range map[string]Class{
		"/reset":         Reset,
		"/cut":           BodyCut,
		"/headers-large": HeaderTooLarge,
		"/hang":          HeaderTimeout,
	} {
		_, _, err := fetch(f, &Request{URL: url + path, Method: "POST", Timeout: 4 * soon})
		if got := ClassOf(err); got != want {
			t.Errorf("%s: class %s (%v), want %s", path, got, err, want)
		}
	}
}
