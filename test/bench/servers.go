package main

import (
	"context"
	"fmt"
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
)

// host is what the helpers that start servers for tests want of a test: here they serve benchmarks.
type host struct {
	testing.TB
	dir      string
	cleanups []func()
}

// failure is what a helper gives up with.
type failure struct{ text string }

// Helper does nothing: there are no lines to name.
func (h *host) Helper() {}

// Fatalf gives up.
func (h *host) Fatalf(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

// Fatal gives up.
func (h *host) Fatal(args ...any) { panic(failure{fmt.Sprint(args...)}) }

// Skip gives up, too: a benchmark has nothing to show without its server.
func (h *host) Skip(args ...any) { panic(failure{fmt.Sprint(args...)}) }

// Skipf gives up.
func (h *host) Skipf(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

// Errorf gives up.
func (h *host) Errorf(format string, args ...any) { panic(failure{fmt.Sprintf(format, args...)}) }

// Logf says nothing.
func (h *host) Logf(string, ...any) {}

// Name is that of the program.
func (h *host) Name() string { return "bench" }

// TempDir makes a folder that goes with the lab's.
func (h *host) TempDir() string {
	dir, err := os.MkdirTemp(h.dir, "server-")
	if err != nil {
		panic(failure{err.Error()})
	}
	return dir
}

// Setenv sets a variable for good.
func (h *host) Setenv(name, value string) { _ = os.Setenv(name, value) }

// Context never ends.
func (h *host) Context() context.Context { return context.Background() }

// Cleanup is called as the lab closes.
func (h *host) Cleanup(f func()) { h.cleanups = append(h.cleanups, f) }

// close ends what was started, the last first.
func (h *host) close() {
	for i := len(h.cleanups) - 1; i >= 0; i-- {
		h.cleanups[i]()
	}
	h.cleanups = nil
}

// serve starts a server by way of its test helper and returns the URL of an empty store there.
func (l *lab) serve(start func(testing.TB) string) (url string, err error) {
	if err := os.Chmod(l.dir, 0o755); err != nil { // PostgreSQL does not run as root, and its user must get there
		return "", err
	}
	defer func() {
		if f, ok := recover().(failure); ok {
			err = fmt.Errorf("%s", f.text)
		}
	}()
	l.host.dir = l.dir
	return start(&l.host), nil
}

func (l *lab) startS3() (string, error) {
	return l.serve(func(t testing.TB) string { return s3test.Start(t).URL("bench") })
}

func (l *lab) startPostgres() (string, error) {
	return l.serve(func(t testing.TB) string { return pgtest.Start(t, pgtest.Durable()).Database(t) })
}
