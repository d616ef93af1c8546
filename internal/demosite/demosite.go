// Package demosite is a small made-up web site on loopback, for showing what fetching looks like without a network.
//
// It promises a few hundred pages over several hosts, the same ones every time but for the port, among them slow,
// flaky, redirecting, missing and large ones, and that Expect says how each ends. It serves nothing but itself,
// listens on loopback only, and is no measure of speed.
package demosite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"
)

// Hosts is the number of hosts of the site.
const Hosts = 6

// Site is a running demo site.
type Site struct {
	hosts   []host
	unhook  func() bool    // forgets the context given to Start
	servers sync.WaitGroup // the accept loops, one a host
	serving sync.WaitGroup // requests being answered
	once    sync.Once
	closed  error // set by once

	mu      sync.Mutex
	closing bool // no more requests are added to serving
}

// host is one of the site's hosts: a listener, and what it serves.
type host struct {
	addr   netip.AddrPort
	name   string       // host and port as URLs have them
	server *http.Server // nil for a named host, whose requests come through the first host's server
	pages  []page
}

// Start serves the site until ctx ends or Close is called: on 127.0.0.1 to 127.0.0.6 with one port where the system
// has these addresses (Linux, Windows), else on as many ports of 127.0.0.1.
func Start(ctx context.Context) (*Site, error) {
	listeners, err := listen(ctx, Hosts)
	if err != nil {
		return nil, fmt.Errorf("start demo site: %w", err)
	}
	s := &Site{hosts: make([]host, len(listeners))}
	for i, l := range listeners {
		s.hosts[i].addr = l.Addr().(*net.TCPAddr).AddrPort()
		s.hosts[i].name = s.hosts[i].addr.String()
	}
	large, err := newLargeBody()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start demo site: %w", err), closeAll(listeners))
	}
	for i := range s.hosts {
		h := &s.hosts[i]
		h.pages = s.pagesOf(i, large)
		h.server = s.newServer(handler(h.pages))
	}
	s.serve(ctx, listeners)
	return s, nil
}

func (s *Site) newServer(h http.Handler) *http.Server {
	return &http.Server{Handler: s.count(h), ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
}

// serve starts the accept loops and hangs their end on ctx.
func (s *Site) serve(ctx context.Context, listeners []net.Listener) {
	for i, l := range listeners {
		s.servers.Go(func() { _ = s.hosts[i].server.Serve(l) }) // ends with ErrServerClosed, by Close
	}
	s.unhook = context.AfterFunc(ctx, func() { _ = s.stop() })
}

// Close stops the site, cutting off what is being answered, and waits until all of it has ended. It may be called
// again.
func (s *Site) Close() error {
	s.unhook()
	return s.stop()
}

func (s *Site) stop() error {
	s.once.Do(func() {
		s.mu.Lock()
		s.closing = true
		s.mu.Unlock()
		var errs []error
		for i := range s.hosts {
			if server := s.hosts[i].server; server != nil {
				errs = append(errs, server.Close())
			}
		}
		s.servers.Wait()
		s.serving.Wait()
		s.closed = errors.Join(errs...)
	})
	return s.closed
}

// URLs returns every page to fetch, each once, in an order that is always the same and takes the hosts in turn.
func (s *Site) URLs() []string {
	var urls []string
	for n := 0; ; n++ {
		before := len(urls)
		for i := range s.hosts {
			if n < len(s.hosts[i].pages) {
				urls = append(urls, s.url(i, s.hosts[i].pages[n].path))
			}
		}
		if len(urls) == before {
			return urls
		}
	}
}

// Prefixes returns the site's own addresses and no others, each once, as /32.
func (s *Site) Prefixes() []netip.Prefix {
	var prefixes []netip.Prefix
	seen := make(map[netip.Addr]bool)
	for _, h := range s.hosts {
		if addr := h.addr.Addr(); !seen[addr] {
			seen[addr] = true
			prefixes = append(prefixes, netip.PrefixFrom(addr, addr.BitLen()))
		}
	}
	return prefixes
}

// Expect returns how many of URLs end with which outcome, "ok" or "http_error", for a fetcher that follows redirects,
// tries again after 429 and 503, and accepts bodies of 8 MiB.
func (s *Site) Expect() map[string]int {
	outcomes := make(map[string]int)
	for _, h := range s.hosts {
		for _, p := range h.pages {
			outcomes[p.outcome]++
		}
	}
	return outcomes
}

func (s *Site) url(host int, path string) string {
	return "http://" + s.hosts[host].name + path
}

// count keeps track of requests being answered, so that stop can wait for them: http.Server.Close does not.
func (s *Site) count(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		if s.closing {
			s.mu.Unlock()
			panic(http.ErrAbortHandler) // the connection is closed already
		}
		s.serving.Add(1)
		s.mu.Unlock()
		defer s.serving.Done()
		next.ServeHTTP(w, r)
	})
}
