package fetch

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// crowded is a server that holds requests until they are released, and knows how many connections it has had at once.
type crowded struct {
	*httptest.Server
	arrived    chan struct{}
	release    chan struct{}
	open, most atomic.Int64
}

func newCrowded(t *testing.T, http2 bool) *crowded {
	t.Helper()
	s := &crowded{arrived: make(chan struct{}, 1000), release: make(chan struct{})}
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/held" {
			s.arrived <- struct{}{}
			<-s.release
		}
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			n := s.open.Add(1)
			for m := s.most.Load(); n > m && !s.most.CompareAndSwap(m, n); m = s.most.Load() {
			}
		case http.StateClosed:
			s.open.Add(-1)
		}
	}
	s.Config.ErrorLog = discardLog
	if s.EnableHTTP2 = http2; http2 {
		s.StartTLS()
	} else {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

// many makes n requests at once and returns their errors once all have ended.
func many(f *Fetcher, n int, url string) func() []error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { _, _, errs[i] = fetch(f, &Request{URL: url}) })
	}
	return func() []error { all.Wait(); return errs }
}

func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not seen within 10 s: %s", what)
		}
	}
}

func TestConnectionsAreLimited(t *testing.T) {
	for claim, c := range map[string]Connections{
		"per host":                {MaxConnsPerHost: 3},
		"in all":                  {MaxConns: 3},
		"both, the lower decides": {MaxConns: 5, MaxConnsPerHost: 3},
	} {
		t.Run(claim, func(t *testing.T) {
			s := newCrowded(t, false)
			f := newFetcher(t, Options{Connections: c})
			end := many(f, 20, s.URL+"/held")
			for range 3 {
				<-s.arrived
			}
			await(t, "17 wait", func() bool { return f.Stats().Waiting == 17 })
			close(s.release)
			for _, err := range end() {
				if err != nil {
					t.Error(err)
				}
			}
			if n := s.most.Load(); n > 3 {
				t.Errorf("%d connections at once, want 3 at most", n)
			}
			if st := f.Stats(); st.Waiting != 0 || st.Waits == 0 || st.WaitTime == 0 || st.Open > 3 || st.Opened+st.Reused != 20 {
				t.Errorf("stats %+v", st)
			}
		})
	}
}

func TestIdleConnectionsMakeRoomForOtherHosts(t *testing.T) {
	a, b := newCrowded(t, false), newCrowded(t, false)
	f := newFetcher(t, Options{Connections: Connections{MaxConns: 2}})
	for range 3 {
		for _, url := range []string{a.URL, b.URL, strings.Replace(a.URL, "127.0.0.1", "localhost", 1)} {
			if _, _, err := fetch(f, &Request{URL: url}); err != nil {
				t.Fatal(err)
			}
			if n := f.Stats().Open; n > 2 {
				t.Fatalf("%d open, want 2 at most", n)
			}
		}
	}
	// And one that comes to rest while another host waits.
	end := many(f, 2, a.URL+"/held")
	<-a.arrived
	<-a.arrived
	other := many(f, 1, b.URL)
	await(t, "the other host waits", func() bool { return f.Stats().Waiting == 1 })
	close(a.release)
	for _, err := range append(end(), other()...) {
		if err != nil {
			t.Error(err)
		}
	}
}

func TestHTTP2NeedsNoSlotForEachRequest(t *testing.T) {
	s := newCrowded(t, true)
	pool := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	f := newFetcher(t, Options{TLSConfig: &tls.Config{RootCAs: pool}, Connections: Connections{MaxConnsPerHost: 1}})
	end := many(f, 20, s.URL+"/held")
	for range 20 {
		<-s.arrived // all at once over one connection
	}
	await(t, "no dial waits for what nobody needs", func() bool { return f.Stats().Waiting == 0 })
	close(s.release)
	for _, err := range end() {
		if err != nil {
			t.Error(err)
		}
	}
	if n := s.most.Load(); n != 1 {
		t.Errorf("%d connections, want 1", n)
	}
}

func TestWaitsForAConnectionHaveTheirEnd(t *testing.T) {
	s := newCrowded(t, false)
	f := newFetcher(t, Options{ConnectTimeout: 4 * soon, Connections: Connections{MaxConns: 1, MaxWaiting: 1}})
	end := many(f, 1, s.URL+"/held")
	<-s.arrived
	second := many(f, 1, s.URL)
	await(t, "one waits", func() bool { return f.Stats().Waiting == 1 })
	_, _, err := fetch(f, &Request{URL: s.URL})
	wantClass(t, err, PoolTimeout)
	if !strings.Contains(err.Error(), "--max-waiting") {
		t.Errorf("%v: want it refused at once", err)
	}
	wantClass(t, second()[0], PoolTimeout)
	close(s.release)
	if err := end()[0]; err != nil {
		t.Error(err)
	}
	if _, _, err := fetch(f, &Request{URL: s.URL}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

func TestSlotsOfDialsThatFailComeBack(t *testing.T) {
	silentTLS := listen(t, func(net.Conn) {})
	s := newCrowded(t, false)
	f := newFetcher(t, Options{ConnectTimeout: time.Second, Connections: Connections{MaxConns: 1, MaxConnsPerHost: 1}})
	for _, url := range []string{"http://" + freePort(t), "https://" + silentTLS, "http://10.0.0.1"} {
		if _, _, err := fetch(f, &Request{URL: url}); err == nil {
			t.Fatalf("%s answers", url)
		}
	}
	if _, _, err := fetch(f, &Request{URL: s.URL}); err != nil {
		t.Error(err)
	}
}

func TestAnOldConnectionIsNotUsedAgain(t *testing.T) {
	for claim, lifetime := range map[string]time.Duration{"over its lifetime as it comes to rest": time.Nanosecond, "or as it is picked up": 2 * soon} {
		t.Run(claim, func(t *testing.T) {
			s := newTallied(t, protocols["HTTP/1.1"])
			f := newFetcher(t, Options{Connections: Connections{ConnLifetime: lifetime}})
			for range 3 {
				if _, _, err := fetch(f, &Request{URL: s.URL}); err != nil {
					t.Fatal(err)
				}
				time.Sleep(lifetime + time.Millisecond) // nothing but time makes it old
			}
			if st := f.Stats(); st.Opened != 3 || st.Reused != 0 {
				t.Errorf("%d opened, %d reused, want 3 and none", st.Opened, st.Reused)
			}
			s.wantClosed(t, 2)
		})
	}
}
