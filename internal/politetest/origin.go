// Package politetest measures politeness where it counts: at the origin.
//
// An Origin is many hosts on loopback addresses and one port. It promises to note of every request when it came and
// when its answer was ready, by a clock that never jumps; a Log says what limits these times kept. What a host answers
// is scripted by the test and may change while it is visited. It is made for tests and benchmarks and nothing else.
package politetest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

// robotsPath is where a host has its rules (RFC 9309 section 2.3).
const robotsPath = "/robots.txt"

// Options describe an origin.
type Options struct {
	// Hosts is how many hosts it has, 1 to 50,000; 0 is 1.
	Hosts int
	// Subnet is the second number of their addresses, 127.SUBNET.y.z, 1 to 254; 0 is 1. Origins that run side by side
	// need none of their own, as each has its own port.
	Subnet int
}

// Answer is what a host answers. The zero value is a page with status 200, at once.
type Answer struct {
	Status     int           // 0 = 200
	RetryAfter string        // the field's value, "" = no such field
	Location   string        // the same
	Delay      time.Duration // from the arrival to the answer; a visitor that goes away ends it
	Body       string        // "" = a page of its own for each path
}

// Origin is a running server. Its methods are safe for concurrent use.
type Origin struct {
	server http.Server
	began  time.Time
	hosts  []*host
	byName map[string]*host

	ctx     context.Context // ends with Close; answers that wait watch it
	cancel  context.CancelFunc
	serving sync.WaitGroup

	mu  sync.Mutex // guards what follows, and all hosts
	log []*Request
}

// host is one of the origin's hosts.
type host struct {
	name   string // "127.1.0.1:PORT"
	pages  int    // requested so far
	conns  int    // connections open
	answer func(n int) Answer
	robots Answer
}

// New starts an origin. All pages of all hosts answer 200, and their robots.txt 404, which allows everything.
func New(options Options) (*Origin, error) {
	options.Hosts, options.Subnet = max(options.Hosts, 1), max(options.Subnet, 1)
	listeners, err := listen(options)
	if err != nil {
		return nil, err
	}
	o := &Origin{began: time.Now(), byName: map[string]*host{}}
	o.ctx, o.cancel = context.WithCancel(context.Background())
	o.server.Handler = http.HandlerFunc(o.serve)
	o.server.ConnState = o.connected
	for _, l := range listeners {
		h := &host{name: l.Addr().String(), answer: func(int) Answer { return Answer{} }, robots: Answer{Status: http.StatusNotFound}}
		o.hosts = append(o.hosts, h)
		o.byName[h.name] = h
	}
	for _, l := range listeners {
		o.serving.Go(func() { _ = o.server.Serve(l) }) // ends with Close, which is its only error
	}
	return o, nil
}

// Close stops the origin, breaks off what it is serving, and waits for both. Its Log stays.
func (o *Origin) Close() {
	o.cancel()
	_ = o.server.Close() // nothing that was listened to is left to lose
	o.serving.Wait()
}

// Hosts is how many hosts there are.
func (o *Origin) Hosts() int { return len(o.hosts) }

// Host returns the name of the i-th host, from 0: "127.1.0.1:PORT", as URLs, limits and the log have it.
func (o *Origin) Host(i int) string { return o.hosts[i].name }

// URL returns the address of a path, which begins with a slash, at the i-th host.
func (o *Origin) URL(i int, path string) string { return "http://" + o.hosts[i].name + path }

// Answer scripts the pages of the i-th host from now on. answer is told how many pages of the host were requested
// before, by anybody, and must not call the origin.
func (o *Origin) Answer(i int, answer func(n int) Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hosts[i].answer = answer
}

// Robots scripts the robots.txt of the i-th host from now on.
func (o *Origin) Robots(i int, answer Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.hosts[i].robots = answer
}

// Pages is how many pages of the i-th host were requested so far.
func (o *Origin) Pages(i int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.hosts[i].pages
}

// Connections is how many connections to the i-th host are open now, idle ones included.
func (o *Origin) Connections(i int) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.hosts[i].conns
}

// Now is the time since the origin began: that of the log.
func (o *Origin) Now() time.Duration { return time.Since(o.began) }

// Log returns all requests so far in the order in which they came.
func (o *Origin) Log() Log {
	o.mu.Lock()
	defer o.mu.Unlock()
	log := make(Log, len(o.log))
	for i, r := range o.log {
		log[i] = *r
	}
	return log
}

func (o *Origin) serve(w http.ResponseWriter, r *http.Request) {
	request, answer := o.arrive(r)
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	defer context.AfterFunc(o.ctx, cancel)()
	waited := wait(ctx, answer.Delay)
	o.leave(request, answer.Status, !waited) // before the answer goes: whoever has it is no longer in service
	if !waited {
		panic(http.ErrAbortHandler)
	}
	if answer.RetryAfter != "" {
		w.Header().Set("Retry-After", answer.RetryAfter)
	}
	if answer.Location != "" {
		w.Header().Set("Location", answer.Location)
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(answer.Body)))
	w.WriteHeader(answer.Status)
	_, _ = io.WriteString(w, answer.Body) // a visitor that is gone has its request in the log
}

// arrive notes a request and says how to answer it.
func (o *Origin) arrive(r *http.Request) (*Request, Answer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	request := &Request{Host: r.Host, Path: r.URL.Path, Start: o.Now()}
	o.log = append(o.log, request)
	h := o.byName[r.Host]
	var a Answer
	switch {
	case h == nil:
		a.Status = http.StatusMisdirectedRequest
	case request.Robots():
		a = h.robots
	default:
		a = h.answer(h.pages)
		h.pages++
	}
	if a.Status == 0 {
		a.Status = http.StatusOK
	}
	if a.Body == "" && !request.Robots() {
		a.Body = request.Host + request.Path + "\n" + strings.Repeat("One visitor at a time. ", 40)
	}
	return request, a
}

func (o *Origin) leave(r *Request, status int, broken bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	r.End, r.Status, r.Broken = o.Now(), status, broken
}

func (o *Origin) connected(c net.Conn, state http.ConnState) {
	o.mu.Lock()
	defer o.mu.Unlock()
	h := o.byName[c.LocalAddr().String()]
	switch {
	case h == nil:
	case state == http.StateNew:
		h.conns++
	case state == http.StateClosed || state == http.StateHijacked:
		h.conns--
	}
}

// wait reports whether the time passed before the context ended.
func wait(ctx context.Context, d time.Duration) bool {
	if d <= 0 {
		return true
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// tries is how many ports are tried for one that is free on all addresses.
const tries = 20

// listen listens on 127.SUBNET.0.1 and those after it. It takes addresses that end in 1 to 250.
func listen(options Options) (listeners []net.Listener, err error) {
	for range tries {
		listeners, err = nil, nil
		port := "0"
		for i := 0; i < options.Hosts && err == nil; i++ {
			var l net.Listener
			address := fmt.Sprintf("127.%d.%d.%d", options.Subnet, i/250, 1+i%250)
			if l, err = net.Listen("tcp4", net.JoinHostPort(address, port)); err == nil {
				listeners = append(listeners, l)
				_, port, err = net.SplitHostPort(l.Addr().String())
			}
		}
		if err == nil {
			return listeners, nil
		}
		for _, l := range listeners {
			_ = l.Close() // another port is tried
		}
	}
	return nil, fmt.Errorf("politetest: listen on %d hosts of 127.%d.0.0/16: %w", options.Hosts, options.Subnet, err)
}
