package demosite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
)

// StartNamed serves the site on one listener, which it closes, under host names that lead there: what is asked of
// another name is answered as the first. It serves until ctx ends or Close is called. Prefixes holds the listener's
// address only.
func StartNamed(ctx context.Context, listener net.Listener, names []string) (*Site, error) {
	if len(names) == 0 {
		return nil, errors.Join(errors.New("start demo site: no host names"), listener.Close())
	}
	large, err := newLargeBody()
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start demo site: %w", err), listener.Close())
	}
	addr := listener.Addr().(*net.TCPAddr).AddrPort()
	s := &Site{hosts: make([]host, len(names))}
	handlers := make(map[string]http.Handler, len(names))
	for i, name := range names {
		s.hosts[i].addr, s.hosts[i].name = addr, fmt.Sprintf("%s:%d", name, addr.Port())
	}
	for i := range s.hosts {
		s.hosts[i].pages = s.pagesOf(i, large)
		handlers[names[i]] = handler(s.hosts[i].pages)
	}
	s.hosts[0].server = s.newServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _, _ := strings.Cut(r.Host, ":")
		h, ok := handlers[name]
		if !ok {
			h = handlers[names[0]]
		}
		h.ServeHTTP(w, r)
	}))
	s.serve(ctx, []net.Listener{listener})
	return s, nil
}
