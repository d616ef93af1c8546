package fetch

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// counted serves HTTP/2 and counts connections; tune may change the server before it starts.
func counted(t testing.TB, h http.HandlerFunc, tune func(*httptest.Server)) (*Fetcher, *httptest.Server, *atomic.Int64) {
	t.Helper()
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = discardLog
	s.EnableHTTP2 = true
	s.Config.HTTP2 = &http.HTTP2Config{MaxConcurrentStreams: 250}
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	tune(s)
	s.StartTLS()
	t.Cleanup(s.Close)
	o := Options{TLSConfig: &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}
	return newFetcher(t, o), s, &opened
}

// crowd makes n exchanges, so many at once, and reports how many failed.
func crowd(t testing.TB, f *Fetcher, r *Request, n, atOnce int) {
	t.Helper()
	var wg sync.WaitGroup
	var next atomic.Int64
	for range atOnce {
		wg.Go(func() {
			for next.Add(1) <= int64(n) {
				if _, _, err := fetch(f, r); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func slowly(d time.Duration) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(d)
		io.WriteString(w, r.Proto)
	}
}

func TestAThousandRequestsShareTwoConnectionsOfHTTP2(t *testing.T) {
	f, s, opened := counted(t, slowly(20*time.Millisecond), func(*httptest.Server) {})
	crowd(t, f, &Request{URL: s.URL}, 1000, 100)
	if got := opened.Load(); got > 2 {
		t.Errorf("%d connections, want at most 2", got)
	}
	wantClosedGate(t, f)
}

func TestRequestsWithBodiesShareConnectionsToo(t *testing.T) {
	f, s, opened := counted(t, slowly(time.Millisecond), func(*httptest.Server) {})
	crowd(t, f, &Request{URL: s.URL, Method: "POST", Body: page64}, 200, 50)
	if got := opened.Load(); got > 2 {
		t.Errorf("%d connections, want at most 2", got)
	}
}

func TestPlainHTTP2SharesAConnection(t *testing.T) {
	var opened atomic.Int64
	s := httptest.NewUnstartedServer(slowly(5 * time.Millisecond))
	s.Config.Protocols = &http.Protocols{}
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			opened.Add(1)
		}
	}
	s.Start()
	t.Cleanup(s.Close)
	crowd(t, newFetcher(t, Options{}), &Request{URL: s.URL, HTTP: HTTP2}, 500, 100)
	if got := opened.Load(); got > 2 {
		t.Errorf("%d connections, want at most 2", got)
	}
}

// The server refuses streams beyond its limit, so a client that does not keep to it would see requests fail.
func TestStreamsKeepToTheServersLimit(t *testing.T) {
	const limit, atOnce = 10, 40
	var now, most atomic.Int64
	f, s, opened := counted(t, func(w http.ResponseWriter, r *http.Request) {
		for n := now.Add(1); n > most.Load(); {
			most.Store(n)
		}
		time.Sleep(5 * time.Millisecond)
		now.Add(-1)
	}, func(s *httptest.Server) { s.Config.HTTP2.MaxConcurrentStreams = limit })
	fetch(f, &Request{URL: s.URL}) // from here on its settings are known
	crowd(t, f, &Request{URL: s.URL}, 400, atOnce)
	t.Logf("%d connections, %d requests at once", opened.Load(), most.Load())
	if got := opened.Load(); got < atOnce/limit || got > 4*atOnce/limit {
		t.Errorf("%d connections for %d requests at once, %d to a connection", got, atOnce, limit)
	}
	if most.Load() <= limit {
		t.Errorf("%d requests at once: no second connection was used", most.Load())
	}
}

func TestHTTP1ConnectionsAreDialledSideBySide(t *testing.T) {
	const n = 20
	arrived := make(chan struct{}, n)
	release := make(chan struct{})
	f, s, opened := counted(t, func(http.ResponseWriter, *http.Request) {
		arrived <- struct{}{}
		<-release
	}, func(s *httptest.Server) { s.EnableHTTP2 = false })
	done := make(chan struct{})
	go func() {
		defer close(done)
		crowd(t, f, &Request{URL: s.URL}, n, n)
	}()
	for range n {
		<-arrived // all are there at once, on a connection each
	}
	close(release)
	<-done
	if got := opened.Load(); got != n {
		t.Errorf("%d connections for %d requests at once", got, n)
	}
}

func TestADialThatFailsKeepsNobodyFromTrying(t *testing.T) {
	addr := listen(t, func(c net.Conn) {}) // closes at once
	f := newFetcher(t, Options{})
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			_, _, err := fetch(f, &Request{URL: "https://" + addr})
			if ClassOf(err) != Reset {
				t.Errorf("%v, want class reset", err)
			}
		})
	}
	wg.Wait()
	wantClosedGate(t, f)
}

// Whoever began the only dial may be gone before it has ended.
func TestTheOthersAreServedWhenTheFirstGivesUp(t *testing.T) {
	hello := make(chan struct{})
	goOn := make(chan struct{})
	var once sync.Once
	f, s, opened := counted(t, slowly(0), func(s *httptest.Server) {
		s.TLS = &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) {
			once.Do(func() { close(hello) })
			<-goOn
			return nil, nil
		}}
	})
	ctx, cancel := context.WithCancel(context.Background())
	first := make(chan error)
	go func() {
		_, err := f.Do(ctx, &Request{URL: s.URL})
		first <- err
	}()
	<-hello
	cancel()
	wantClass(t, <-first, Canceled)
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if _, _, err := fetch(f, &Request{URL: s.URL}); err != nil {
				t.Error(err)
			}
		})
	}
	close(goOn)
	wg.Wait()
	if got := opened.Load(); got > 2 {
		t.Errorf("%d connections, want at most 2", got)
	}
}

func TestTheGateRemembersABoundedNumberOfPlaces(t *testing.T) {
	g := newGate(lane{})
	for i := range maxDoors + 100 {
		p := place{tls: true, addr: fmt.Sprint(i, ":443")}
		l, err := g.enter(context.Background(), p, leadTime)
		if l == nil || err != nil {
			t.Fatal(l, err)
		}
		g.connected(&conn{}, p, l, false)
	}
	if got := len(g.doors); got != maxDoors {
		t.Errorf("%d places are remembered, want %d", got, maxDoors)
	}
}

// wantClosedGate fails the test if a dial seems to be under way.
func wantClosedGate(t *testing.T, f *Fetcher) {
	t.Helper()
	g := f.lanes.plain.gate
	led := func() (n int) {
		g.mu.Lock()
		defer g.mu.Unlock()
		for _, d := range g.doors {
			if d.lead != nil {
				n++
			}
		}
		return n
	}
	for end := time.Now().Add(10 * time.Second); led() > 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("%d dials have no end", led())
		}
	}
}
