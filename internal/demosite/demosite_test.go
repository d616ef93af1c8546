package demosite

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) *Site {
	t.Helper()
	s, err := Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// client fetches like the real fetcher would, as far as the site is concerned.
func client(t *testing.T) *http.Client {
	tr := &http.Transport{MaxConnsPerHost: 8}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 20 * time.Second}
}

// answer is what a page came to.
type answer struct {
	outcome string
	retries int
	size    int
	final   string
}

// fetch asks until the answer is final, without waiting in between.
func fetch(t *testing.T, c *http.Client, target string) (a answer) {
	t.Helper()
	for ; a.retries < 3; a.retries++ {
		resp, err := c.Get(target)
		if err != nil {
			t.Error(err)
			return a
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Errorf("%s: %v", target, err)
		}
		a.size, a.final, a.outcome = int(n), resp.Request.URL.String(), httpError
		switch resp.StatusCode {
		case http.StatusOK:
			a.outcome = ok
			return a
		case http.StatusTooManyRequests, http.StatusServiceUnavailable:
			continue
		}
		return a
	}
	return a
}

func TestEveryPageEndsAsExpected(t *testing.T) {
	s, c := start(t), client(t)
	var (
		mu      sync.Mutex
		wg      sync.WaitGroup
		answers = make(map[string]answer)
	)
	for _, u := range s.URLs() {
		wg.Go(func() {
			a := fetch(t, c, u)
			mu.Lock()
			defer mu.Unlock()
			answers[u] = a
		})
	}
	wg.Wait()
	got := make(map[string]int)
	var retries, elsewhere, large int
	for u, a := range answers {
		got[a.outcome]++
		retries += a.retries
		if hostOf(u) != hostOf(a.final) {
			elsewhere++
		}
		if a.size >= largeSize {
			large++
		}
	}
	if d := cmp.Diff(s.Expect(), got); d != "" {
		t.Error(d)
	}
	if want := Hosts*flakyPages + 1; retries != want {
		t.Errorf("%d retries, want %d", retries, want)
	}
	if want := 2 * Hosts; elsewhere != want || large != want {
		t.Errorf("%d pages ended on another host and %d were large, want %d of each", elsewhere, large, want)
	}
}

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return err.Error()
	}
	return u.Host
}

func TestURLsAreManyDistinctAndTakeTheHostsInTurn(t *testing.T) {
	s := start(t)
	urls := s.URLs()
	if d := cmp.Diff(urls, s.URLs()); d != "" {
		t.Errorf("another order: %s", d)
	}
	if len(urls) < 280 || len(urls) > 320 {
		t.Errorf("%d URLs, want about 300", len(urls))
	}
	seen, hosts := make(map[string]bool), make(map[string]int)
	for i, u := range urls {
		if seen[u] {
			t.Errorf("%s twice", u)
		}
		seen[u] = true
		hosts[hostOf(u)]++
		if i > 0 && hostOf(u) == hostOf(urls[i-1]) {
			t.Errorf("%s follows another page of its host", u)
		}
	}
	if len(hosts) != Hosts {
		t.Errorf("hosts %v, want %d", hosts, Hosts)
	}
	total := 0
	for _, n := range s.Expect() {
		total += n
	}
	if total != len(urls) {
		t.Errorf("Expect counts %d pages, want %d", total, len(urls))
	}
	// At 20 requests/s: pages, one hop for most redirects, and retries, all at the busiest host.
	if most := hosts[hostOf(urls[0])] + 2*4 + flakyPages + 1; most > 14*20 {
		t.Errorf("%d requests to one host take longer than 14 s at 20/s", most)
	}
}

func TestPrefixesAreTheSitesOwnAddresses(t *testing.T) {
	s := start(t)
	addresses := make(map[netip.Addr]bool)
	for _, u := range s.URLs() {
		addresses[netip.MustParseAddrPort(hostOf(u)).Addr()] = true
	}
	got := s.Prefixes()
	if len(got) != len(addresses) {
		t.Errorf("prefixes %v for addresses %v", got, addresses)
	}
	for _, p := range got {
		if p.Bits() != 32 || !addresses[p.Addr()] || !p.Addr().IsLoopback() {
			t.Errorf("prefix %v is not an address of the site", p)
		}
	}
	if runtime.GOOS == "linux" && len(got) != Hosts {
		t.Errorf("%d addresses on Linux, want %d", len(got), Hosts)
	}
}

func TestGzipIsServedToThoseWhoAcceptIt(t *testing.T) {
	s := start(t)
	tr := &http.Transport{DisableCompression: true}
	defer tr.CloseIdleConnections()
	for accept, want := range map[string]string{"gzip, br": "gzip", "": "", "br": ""} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.url(0, "/large/readings.csv.gzip"), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", accept)
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, resp.Body)
		if err := errors.Join(err, resp.Body.Close()); err != nil {
			t.Error(err)
		}
		if got := resp.Header.Get("Content-Encoding"); got != want || n != resp.ContentLength || (want == "") != (n >= largeSize) {
			t.Errorf("accepting %q: encoding %q and %d bytes of %d", accept, got, n, resp.ContentLength)
		}
	}
}

func TestRetryAfterIsSentOnce(t *testing.T) {
	s, c := start(t), client(t)
	for i, want := range []string{"1", ""} {
		resp, err := c.Get(s.url(0, "/busy"))
		if err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if got := resp.Header.Get("Retry-After"); got != want {
			t.Errorf("request %d: Retry-After %q, want %q", i+1, got, want)
		}
	}
}

func TestTheEndOfTheContextStopsTheSite(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s, err := Start(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	s.servers.Wait()
	if err := errors.Join(s.Close(), s.Close()); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", hostOf(s.URLs()[0])); err == nil {
		t.Error("still listening", c.Close())
	}
}

func TestCloseCutsOffWhatIsBeingAnswered(t *testing.T) {
	listeners, err := listen(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	entered, left := make(chan struct{}), make(chan struct{})
	s := &Site{hosts: make([]host, 1)}
	s.hosts[0].name = listeners[0].Addr().String()
	s.hosts[0].server = s.newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(entered)
		delay(time.Hour, http.NotFound)(w, r)
		close(left)
	}))
	s.serve(t.Context(), listeners)
	ended := make(chan error)
	go func() {
		resp, err := client(t).Get(s.url(0, "/"))
		if err == nil {
			err = errors.Join(errors.New(resp.Status), resp.Body.Close())
		}
		ended <- err
	}()
	<-entered
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	select {
	case <-left:
	default:
		t.Error("Close returned while a request was being answered")
	}
	if err := <-ended; err == nil || strings.HasPrefix(err.Error(), "200") {
		t.Errorf("the client got %v, want a broken connection", err)
	}
}

func TestListenFallsBackToOneAddress(t *testing.T) {
	listeners, err := listenOneAddress(t.Context(), Hosts)
	if err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]bool)
	for _, l := range listeners {
		seen[l.Addr().String()] = true
	}
	if err := closeAll(listeners); err != nil || len(seen) != Hosts {
		t.Errorf("%v, %v; want %d ports", seen, err, Hosts)
	}
}
