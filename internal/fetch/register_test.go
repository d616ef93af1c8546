package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// tallied is a server that answers with the request's body, or a page of 64 KiB, and tells when a connection is closed.
type tallied struct {
	*httptest.Server
	requests, opened atomic.Int64
	closed           chan struct{}
}

// protocols are the ways to reach a tallied server.
var protocols = map[string]func(*tallied){
	"HTTP/1.1":          func(s *tallied) { s.Start() },
	"HTTP/1.1 over TLS": func(s *tallied) { s.StartTLS() },
	"HTTP/2":            func(s *tallied) { s.EnableHTTP2 = true; s.StartTLS() },
}

func newTallied(t testing.TB, start func(*tallied)) *tallied {
	t.Helper()
	s := &tallied{closed: make(chan struct{}, 1<<20)}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(s.serve))
	s.Config.ErrorLog = discardLog
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			s.opened.Add(1)
		case http.StateClosed:
			s.closed <- struct{}{}
		}
	}
	start(s)
	t.Cleanup(s.Close)
	return s
}

func (s *tallied) serve(w http.ResponseWriter, r *http.Request) {
	s.requests.Add(1)
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	if len(body) == 0 {
		body = page64
	}
	w.Write(body)
}

var page64 = bytes.Repeat([]byte("0123456789abcdef"), 4<<10)

func (s *tallied) fetcher(t testing.TB) *Fetcher {
	t.Helper()
	o := Options{}
	if s.TLS != nil {
		o.TLSConfig = &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}
	}
	return newFetcher(t, o)
}

func (s *tallied) host() string { return hostOf(s.URL) }

func hostOf(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		panic(err)
	}
	return u.Host
}

// wantClosed waits until the server has seen n more connections closed.
func (s *tallied) wantClosed(t *testing.T, n int) {
	t.Helper()
	for i := range n {
		select {
		case <-s.closed:
		case <-time.After(10 * time.Second):
			t.Fatalf("%d connections closed, want %d", i, n)
		}
	}
}

// registered counts the connections that f knows to be open at host.
func registered(f *Fetcher, host string) (n int) {
	f.register.mu.Lock()
	defer f.register.mu.Unlock()
	for _, p := range places(host) {
		if h := f.register.hosts[p]; h != nil {
			n += len(h.conns)
		}
	}
	return n
}

func get(t *testing.T, f *Fetcher, url string) {
	t.Helper()
	if _, body, err := fetch(f, &Request{URL: url}); err != nil || !bytes.Equal(body, page64) {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
}

// eachProtocol runs a test over every protocol.
func eachProtocol(t *testing.T, test func(t *testing.T, s *tallied, f *Fetcher)) {
	for name, start := range protocols {
		t.Run(name, func(t *testing.T) {
			s := newTallied(t, start)
			test(t, s, s.fetcher(t))
		})
	}
}

func TestCloseIdleClosesTheIdleConnectionsOfOneHost(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *tallied, f *Fetcher) {
		other := newOrigin(t)
		get(t, f, s.URL)
		if _, _, err := fetch(f, &Request{URL: other.URL("/page/x")}); err != nil {
			t.Fatal(err)
		}
		f.CloseIdle("192.0.2.1")
		f.CloseIdle(other.Addr() + "0")
		if got := registered(f, s.host()); got != 1 {
			t.Fatalf("%d connections are open before, want 1", got)
		}
		f.CloseIdle(s.host())
		s.wantClosed(t, 1)
		if got := registered(f, s.host()); got != 0 {
			t.Errorf("%d connections are known after their end", got)
		}
		if got := registered(f, other.Addr()); got != 1 {
			t.Errorf("%d connections to another host are open, want 1", got)
		}
		get(t, f, s.URL) // on a new one
		if got := s.opened.Load(); got != 2 {
			t.Errorf("%d connections made, want 2", got)
		}
	})
}

func TestCloseIdleLeavesAloneWhatIsInUse(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *tallied, f *Fetcher) {
		res, err := f.Do(context.Background(), &Request{URL: s.URL})
		if err != nil {
			t.Fatal(err)
		}
		half := make([]byte, len(page64)/2)
		if _, err := io.ReadFull(res.Body, half); err != nil {
			t.Fatal(err)
		}
		f.CloseIdle(s.host())
		rest, err := io.ReadAll(res.Body)
		if got := append(half, rest...); err != nil || !bytes.Equal(got, page64) {
			t.Fatalf("%d bytes, %v", len(got), err)
		}
		if got := registered(f, s.host()); got != 1 {
			t.Errorf("%d connections are open, want 1", got)
		}
		f.CloseIdle(s.host())
		s.wantClosed(t, 1)
	})
}

// net/http's pool hands out a connection that was chosen to be closed until it notices.
func TestAnExchangeThatPicksUpADoomedConnectionGetsAnother(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *tallied, f *Fetcher) {
		for i, r := range []*Request{{URL: s.URL}, {URL: s.URL, Method: "POST", Body: page64}, {URL: s.URL, Method: "POST"}} {
			get(t, f, s.URL)
			for _, p := range places(s.host()) {
				f.register.doom(p) // and no Close: as if CloseIdle had only come this far
			}
			before := s.requests.Load()
			if _, body, err := fetch(f, r); err != nil || !bytes.Equal(body, page64) {
				t.Fatalf("request %d: %d bytes, %v", i, len(body), err)
			}
			if got := s.requests.Load() - before; got != 1 {
				t.Errorf("request %d arrived %d times", i, got)
			}
			s.wantClosed(t, 1)
		}
	})
}

// One worker leaves its connection idle between any two exchanges; with eight, one of HTTP/2 hardly ever is.
func TestNoExchangeIsHurtByCloseIdle(t *testing.T) {
	eachProtocol(t, func(t *testing.T, s *tallied, f *Fetcher) {
		for _, workers := range []int{1, 8} {
			const exchanges = 200
			arrived, opened := s.requests.Load(), s.opened.Load()
			stop := keepClosing(f, s.host())
			var wg sync.WaitGroup
			for i := range workers {
				wg.Go(func() {
					for j := i; j < exchanges; j += workers {
						if err := echo(f, s.URL, j); err != nil {
							t.Errorf("exchange %d: %v", j, err)
						}
					}
				})
			}
			wg.Wait()
			stop()
			if got := s.requests.Load() - arrived; got != exchanges {
				t.Errorf("%d requests arrived, want %d", got, exchanges)
			}
			t.Logf("%d workers: %d connections for %d requests", workers, s.opened.Load()-opened, exchanges)
		}
		f.Close()
		wantForgotten(t, f)
	})
}

// keepClosing calls CloseIdle again and again until stop, which waits for its end.
func keepClosing(f *Fetcher, host string) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			f.CloseIdle(host)
			runtime.Gosched()
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

// echo makes one exchange of a kind that i decides, and checks its answer.
func echo(f *Fetcher, url string, i int) error {
	r := &Request{URL: url}
	want := page64
	if i%2 == 0 {
		want = []byte(strings.Repeat(fmt.Sprint(i, " "), 1+i%5000))
		r.Method, r.Body = "POST", want
	}
	if i%7 == 3 { // leaves its body unread
		res, err := f.Do(context.Background(), r)
		if err == nil {
			err = res.Body.Close()
		}
		return err
	}
	_, got, err := fetch(f, r)
	if err == nil && !bytes.Equal(got, want) {
		err = fmt.Errorf("%d bytes, not the %d sent", len(got), len(want))
	}
	return err
}

// wantForgotten waits until nothing is registered: connections that were being made come and go by themselves.
func wantForgotten(t *testing.T, f *Fetcher) {
	t.Helper()
	known := func() int {
		f.register.mu.Lock()
		defer f.register.mu.Unlock()
		return len(f.register.hosts)
	}
	for end := time.Now().Add(10 * time.Second); known() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d hosts are still registered", known())
		}
	}
}

func TestFailedAndCancelledExchangesLeaveNothingRegistered(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	dead := freePort(t)
	for range 20 {
		for _, path := range []string{"/cut", "/reset", "/malformed", "/reset?send=5", "/status/204", "/page/x"} {
			fetch(f, &Request{URL: o.URL(path)})
		}
		fetch(f, &Request{URL: o.URL("/hang"), Timeout: time.Millisecond})
		fetch(f, &Request{URL: "http://" + dead + "/"})
		fetch(f, &Request{URL: "https://" + o.Addr() + "/"})
		fetch(f, &Request{URL: "no URL"})
	}
	f.CloseIdle(o.Addr())
	wantForgotten(t, f)
}

func TestANewConnectionBelongsToThoseWhoWaitForOne(t *testing.T) {
	r := newRegister(limits{})
	p := place{addr: "x.test:80"}
	add := func() *conn {
		c := &conn{Conn: nil, register: r}
		r.add(c, p, c)
		return c
	}
	x, y := &exchange{}, &exchange{}
	r.wait(x, p)
	c := add()
	if got := r.doom(p); len(got) != 0 {
		t.Error("doomed before the exchange that waits could take it")
	}
	if !r.take(x, c) {
		t.Error("not usable")
	}
	r.wait(y, p)
	r.leave(x)
	if got := r.doom(p); len(got) != 1 || got[0] != c {
		t.Errorf("doomed %v, want the one that was used before", got)
	}
	if r.take(y, c) {
		t.Error("usable although doomed")
	}
	spare := add()
	if got := r.doom(p); len(got) != 1 || got[0] != spare {
		t.Errorf("doomed %v, want the one for which nobody waits", got)
	}
	r.remove(c)
	r.remove(c)
	r.remove(spare)
	if len(r.hosts) != 0 {
		t.Errorf("%v is still registered", r.hosts)
	}
}

func TestAHostIsDialledAtItsSchemesPorts(t *testing.T) {
	for host, want := range map[string][]place{
		"x.test":      {{false, "x.test:80"}, {true, "x.test:443"}},
		"x.test:8080": {{false, "x.test:8080"}, {true, "x.test:8080"}},
		"x.test:80":   {{true, "x.test:80"}},
		"x.test:443":  {{false, "x.test:443"}},
		"[::1]":       {{false, "[::1]:80"}, {true, "[::1]:443"}},
		"[::1]:81":    {{false, "[::1]:81"}, {true, "[::1]:81"}},
	} {
		if diff := cmp.Diff(want, places(host), cmp.AllowUnexported(place{})); diff != "" {
			t.Errorf("%s: -want +got:\n%s", host, diff)
		}
	}
}

// What an exchange over one connection pays for being known: waiting, taking, leaving.
func BenchmarkRegister(b *testing.B) {
	r := newRegister(limits{})
	p := place{tls: true, addr: "www.example.org:443"}
	c := &conn{register: r}
	r.add(c, p, c)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		x := &exchange{}
		for pb.Next() {
			r.wait(x, p)
			r.take(x, c)
			r.leave(x)
		}
	})
}
