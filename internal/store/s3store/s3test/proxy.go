package s3test

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// Fault is what a Proxy does to one exchange.
type Fault int

// The faults.
const (
	None       Fault = iota
	Busy             // 503, as S3 says it: SlowDown
	Cut              // the connection is cut before the request reaches the server
	LoseAnswer       // the server does what it is asked, and the connection is cut instead of the answer
	CutAnswer        // the connection is cut after half of the answer's body
	Hang             // nothing is answered until the test ends
)

// Call is what a Proxy tells of one exchange.
type Call struct {
	Method string
	Key    string // object, without the bucket; "" for calls to the bucket
	Query  url.Values
	Header http.Header
}

// Proxy stands between clients and a server, counts calls and spoils those that a test chooses. Its methods may be
// called from any goroutine.
type Proxy struct {
	server  *httptest.Server
	through *httputil.ReverseProxy
	done    chan struct{}

	mu     sync.Mutex
	choose func(Call) Fault
	calls  map[string]int
	delay  time.Duration
}

// NewProxy starts a proxy to a server. It ends with the test.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	p := &Proxy{calls: make(map[string]int), done: make(chan struct{})}
	p.through = &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { // the Host field stays: it is signed
			r.SetURL(&url.URL{Scheme: "http", Host: target})
			r.Out.Host = r.In.Host
		},
		Transport:    transport(t),
		ErrorHandler: func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) },
	}
	p.server = httptest.NewServer(http.HandlerFunc(p.serve))
	t.Cleanup(func() {
		close(p.done)
		p.server.CloseClientConnections()
		p.server.Close()
	})
	return p
}

// transport is one whose connections end with the test.
func transport(t testing.TB) *http.Transport {
	tr := &http.Transport{DisableCompression: true, MaxIdleConnsPerHost: 64}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// Addr returns the proxy's HOST:PORT.
func (p *Proxy) Addr() string { return p.server.Listener.Addr().(*net.TCPAddr).String() }

// Spoil sets what decides each call's fault from now on; nil spoils none.
func (p *Proxy) Spoil(choose func(Call) Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.choose = choose
}

// Delay makes each call reach the server d later.
func (p *Proxy) Delay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Calls returns how many calls of each method came since Reset.
func (p *Proxy) Calls() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[string]int, len(p.calls))
	for method, n := range p.calls {
		out[method] = n
	}
	return out
}

// Total returns how many calls came since Reset.
func (p *Proxy) Total() (n int) {
	for _, calls := range p.Calls() {
		n += calls
	}
	return n
}

// Reset begins counting anew.
func (p *Proxy) Reset() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.calls)
}

func (p *Proxy) serve(w http.ResponseWriter, r *http.Request) {
	switch fault, delay := p.fault(r); fault {
	case Busy:
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/xml")
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>")
	case Cut:
		panic(http.ErrAbortHandler)
	case LoseAnswer:
		p.through.ServeHTTP(httptest.NewRecorder(), r)
		panic(http.ErrAbortHandler)
	case CutAnswer:
		answer := httptest.NewRecorder()
		p.through.ServeHTTP(answer, r)
		for name, values := range answer.Header() {
			w.Header()[name] = values
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes()[:answer.Body.Len()/2])
		panic(http.ErrAbortHandler)
	case Hang:
		select {
		case <-p.done:
		case <-r.Context().Done():
		}
		panic(http.ErrAbortHandler)
	default:
		time.Sleep(delay)
		p.through.ServeHTTP(w, r)
	}
}

// fault counts a call and chooses what becomes of it.
func (p *Proxy) fault(r *http.Request) (Fault, time.Duration) {
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	p.mu.Lock()
	p.calls[r.Method]++
	choose, delay := p.choose, p.delay
	p.mu.Unlock()
	if choose == nil {
		return None, delay
	}
	return choose(Call{Method: r.Method, Key: key, Query: r.URL.Query(), Header: r.Header}), delay
}
