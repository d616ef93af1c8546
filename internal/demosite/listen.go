package demosite

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
)

// tries is how many ports are tried for one that is free on all addresses.
const tries = 20

// listen opens n loopback listeners: 127.0.0.1 to 127.0.0.n on one port, or else n ports of 127.0.0.1.
func listen(ctx context.Context, n int) ([]net.Listener, error) {
	for range tries {
		listeners, err := listenOnePort(ctx, n)
		if err == nil {
			return listeners, nil
		}
		if len(listeners) == 0 {
			return nil, err // not even the first
		}
		if err := closeAll(listeners); err != nil {
			return nil, err
		}
		if len(listeners) == 1 {
			break // only 127.0.0.1 is there: so it is on macOS
		}
	}
	return listenOneAddress(ctx, n)
}

// listenOnePort returns what it could open, and an error if that is less than n.
func listenOnePort(ctx context.Context, n int) (listeners []net.Listener, err error) {
	var config net.ListenConfig
	port := 0
	for i := range n {
		l, err := config.Listen(ctx, "tcp4", net.JoinHostPort(fmt.Sprintf("127.0.0.%d", i+1), strconv.Itoa(port)))
		if err != nil {
			return listeners, err
		}
		listeners = append(listeners, l)
		port = l.Addr().(*net.TCPAddr).Port
	}
	return listeners, nil
}

func listenOneAddress(ctx context.Context, n int) ([]net.Listener, error) {
	var config net.ListenConfig
	var listeners []net.Listener
	for range n {
		l, err := config.Listen(ctx, "tcp4", "127.0.0.1:0")
		if err != nil {
			return nil, errors.Join(err, closeAll(listeners))
		}
		listeners = append(listeners, l)
	}
	return listeners, nil
}

func closeAll(listeners []net.Listener) error {
	var errs []error
	for _, l := range listeners {
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}
