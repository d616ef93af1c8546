// Package fetchtest is the other side of a fetch: a web server on loopback that
// misbehaves on request, and remembers what it was asked.
//
// What a path does is written in the path itself (see Origin), so that separate
// worker processes can use one origin without talking to the test that owns it.
// It speaks plain HTTP/1.1 and is not meant for anything but tests and demos.
package fetchtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// Origin is a running server. All of these paths are always there:
//
//	/page/ANY?size=N          Page("/page/ANY", N); 2 KiB without size
//	/status/CODE              that status
//	/flaky/N/ID               503 for the first N requests of this path, then 200
//	/retry-after/SECONDS/ID   429 with Retry-After once, then 200
//	/always429?retry-after=S  429 every time
//	/slow?ms=N                headers after N ms
//	/drip?bytes=N&ms=M        N bytes of body, M ms before each
//	/hang                     no answer until the client or the origin goes
//	/cut?announce=N&send=M    a Content-Length of N, M bytes, then the end;
//	                          announce=chunked ends a chunked body early
//	/reset?send=N             a TCP reset; with send after N bytes of a body
//	/malformed?in=chunk       no HTTP; with in=chunk a body with a bad chunk
//	/redirect?to=URL&code=N   302, or N
//	/loop                     a redirect to itself
//	/gzip /br /zstd /deflate  a page, so encoded; ?size=N, ?raw=1 for deflate without zlib
//	/bomb?mb=N&coding=C       N MiB of zeros (64) encoded as C (gzip)
//	/large?mb=N&chunked=1     N MiB, streamed
//	/resumable?kb=N&every=M   N KiB, known by an ETag, asked for in ranges; each answer breaks off after M KiB;
//	                          seed=S other bytes, by=date|nothing Last-Modified instead, or neither
//	/headers                  the request's headers as JSON
//	/echo                     method, host, uri, headers and body as JSON
//	/versioned/ID?by=V        a page with ETag and Last-Modified, and 304 to whom they come back;
//	                          by=weak, etag, modified or none: other validators
//	/change/ID                makes the next version of that page
//	/bodies                   how many bodies of versioned pages were sent
//
// Its methods are safe for concurrent use.
type Origin struct {
	ledger
	server http.Server
	port   string
	ctx    context.Context // ends with Close; handlers that wait watch it
	cancel context.CancelFunc

	serving sync.WaitGroup
	sent    atomic.Int64 // bytes of bodies, by /resumable

	mu     sync.Mutex
	hosts  map[string]bool             // addresses listened on
	custom map[string]http.HandlerFunc // by path
	tries  map[string]int              // by path, for those that change their mind
}

// Option configures an Origin.
type Option func(*Origin)

// CountsOnly keeps no Seen of each request, only counts: for benchmarks.
func CountsOnly() Option { return func(o *Origin) { o.countsOnly = true } }

// NewOrigin starts an origin on a free port of 127.0.0.1. It panics when there
// is none.
func NewOrigin(opts ...Option) *Origin {
	o := &Origin{
		hosts:  map[string]bool{},
		custom: map[string]http.HandlerFunc{},
		tries:  map[string]int{},
	}
	o.ledger.init()
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.server.Handler = http.HandlerFunc(o.serve)
	for _, opt := range opts {
		opt(o)
	}
	o.port = "0"
	if err := o.listen("127.0.0.1"); err != nil {
		panic("fetchtest: " + err.Error())
	}
	return o
}

// Close stops the origin, breaks off what it is serving, and waits for both.
func (o *Origin) Close() {
	o.mu.Lock()
	o.cancel()
	o.mu.Unlock()
	o.server.Close()
	o.serving.Wait()
}

// URL returns the address of path at the first host: "http://127.0.0.1:PORT" + path.
func (o *Origin) URL(path string) string { return "http://127.0.0.1:" + o.port + path }

// Addr returns "127.0.0.1:PORT".
func (o *Origin) Addr() string { return "127.0.0.1:" + o.port }

// Host returns "http://127.0.0.N:PORT", for N from 1 to 254; the port is the
// same for all. The origin listens there from the first call on. It panics when
// it cannot: macOS has only 127.0.0.1 unless others are configured.
func (o *Origin) Host(n int) string {
	ip := fmt.Sprintf("127.0.0.%d", n)
	if err := o.listen(ip); err != nil {
		panic("fetchtest: " + err.Error())
	}
	return "http://" + ip + ":" + o.port
}

// Handle lets handler answer path, which is compared whole and without the
// query. It takes precedence over the built-in paths.
func (o *Origin) Handle(path string, handler http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.custom[path] = handler
}

func (o *Origin) listen(ip string) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.hosts[ip] {
		return nil
	}
	l, err := net.Listen("tcp4", net.JoinHostPort(ip, o.port))
	if err != nil {
		return fmt.Errorf("listen on %s: %w", ip, err)
	}
	o.hosts[ip] = true
	_, o.port, _ = net.SplitHostPort(l.Addr().String())
	o.serving.Go(func() { o.server.Serve(l) }) // ends with Close, which is its only error
	return nil
}

func (o *Origin) serve(w http.ResponseWriter, r *http.Request) {
	if !o.begin() {
		panic(http.ErrAbortHandler)
	}
	defer o.serving.Done()
	o.arrive(r)
	defer o.leave(r.Host)
	o.handler(r.URL.Path)(w, r)
}

// begin counts a request as being served, unless the origin is closing.
func (o *Origin) begin() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.ctx.Err() != nil {
		return false
	}
	o.serving.Add(1)
	return true
}

func (o *Origin) handler(path string) http.HandlerFunc {
	o.mu.Lock()
	defer o.mu.Unlock()
	if h := o.custom[path]; h != nil {
		return h
	}
	if h := builtin[firstSegment(path)]; h != nil {
		return func(w http.ResponseWriter, r *http.Request) { h(o, w, r) }
	}
	return http.NotFound
}

// tried returns how often path was tried so far.
func (o *Origin) tried(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.tries[path]
}

// try returns how often path was tried before.
func (o *Origin) try(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.tries[path]
	o.tries[path]++
	return n
}
