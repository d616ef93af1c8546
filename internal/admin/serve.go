package admin

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"
)

// drainLimit is how long answers under way may take once the process stops; nothing here takes longer on its own.
const drainLimit = 3 * time.Second

// Listen opens the address of --listen: HOST:PORT, port 0 for any free one. Its errors say what to do.
func Listen(addr string) (net.Listener, error) {
	listener, err := new(net.ListenConfig).Listen(context.Background(), "tcp", addr)
	switch {
	case err == nil:
		return listener, nil
	case isInUse(err):
		return nil, fmt.Errorf("--listen %s: address already in use: choose another with --listen, or port 0", addr)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("--listen %s: not permitted: choose a port above 1023: %w", addr, err)
	}
	return nil, fmt.Errorf("--listen %s: want HOST:PORT of this machine: %w", addr, err)
}

// isInUse looks at the text as well, because Windows has a number of its own.
func isInUse(err error) bool {
	return errors.Is(err, syscall.EADDRINUSE) || strings.Contains(err.Error(), "Only one usage of each socket address")
}

// Serve listens on addr and serves until ctx is done; see ServeOn.
func Serve(ctx context.Context, addr string, handler http.Handler) error {
	listener, err := Listen(addr)
	if err != nil {
		return err
	}
	return ServeOn(ctx, listener, handler)
}

// ServeOn serves on a listener, which it closes, until ctx is done. Then answers under way get a moment to end. It
// returns nil when it was stopped by ctx, and only after all its goroutines have ended.
func ServeOn(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       30 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    64 << 10,
	}
	if h, ok := handler.(*Handler); ok {
		h.listening(listener.Addr())
	}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	case <-ctx.Done():
	}
	drain, cancel := context.WithTimeout(context.WithoutCancel(ctx), drainLimit)
	defer cancel()
	if err := server.Shutdown(drain); err != nil {
		_ = server.Close() // whoever still reads has had its time
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}
