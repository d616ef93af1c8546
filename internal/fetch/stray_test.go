package fetch

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// net/http gives the connection of an answer without a body to whoever waits for one before the answer is handed over.
func TestAnswersWithoutABodyAreNobodyElses(t *testing.T) {
	var served atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		served.Add(1)
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	f := newFetcher(t, Options{Connections: Connections{MaxConnsPerHost: 4}}) // so that some wait
	const posts = 2000
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			for range posts / 16 {
				if _, _, err := fetch(f, &Request{Method: http.MethodPost, URL: s.URL, Body: []byte("x")}); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if served.Load() != posts {
		t.Errorf("%d requests came for %d", served.Load(), posts)
	}
}

func TestAProxyIsAskedForTheHostThatWasJudged(t *testing.T) {
	asked := make(chan string, 2)
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { asked <- r.RequestURI }))
	t.Cleanup(s.Close)
	o := Options{}
	o.Proxies = through(t, s.URL)
	f := newFetcher(t, o)
	for url, want := range map[string]string{
		"http://public.example/a?b=c": "http://public.example/a?b=c",
		"http://public.example":       "http://public.example/",
	} {
		resp, _, err := fetch(f, &Request{URL: url, Header: http.Header{"Host": {"169.254.169.254"}}})
		if err != nil {
			t.Fatal(err)
		}
		if got := <-asked; got != want {
			t.Errorf("the proxy was asked for %q, want %q", got, want)
		}
		if !strings.HasPrefix(resp.URL, "http://public.example") {
			t.Errorf("the answer is of %s", resp.URL)
		}
	}
}
