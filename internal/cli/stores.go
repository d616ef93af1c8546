package cli

import (
	"context"
	"os/signal"
	"syscall"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/open"
	"github.com/fetchfleet/fetchfleet/internal/store/several"
)

// storeURLs takes the values of --store apart: each may name several. An empty one, as an empty environment variable
// gives, is none.
func storeURLs(values []string) []string {
	var urls []string
	for _, v := range values {
		for _, url := range open.Split(v) {
			if url != "" {
				urls = append(urls, url)
			}
		}
	}
	return urls
}

// checkStores refuses what no store can be opened by.
func checkStores(urls []string) error {
	if err := open.CheckURLs(urls); err != nil {
		return usage("--store: %w", err)
	}
	return nil
}

// openStore opens the store that a command reads.
func openStore(ctx context.Context, url string) (store.Store, error) {
	if err := open.Check(url); err != nil {
		return nil, usage("--store: %w", err)
	}
	return open.Open(ctx, url, open.Options{MustExist: true})
}

// openStores opens a member's stores.
func (m *member) openStores(ctx context.Context) (store.Store, error) {
	if open.WritesStdout(m.stores) {
		// Without this the end of a reader is the end of the process. With it the write fails, and the worker stops in
		// order: it can do nothing more for a reader that is gone, and another process can.
		signal.Ignore(syscall.SIGPIPE)
	}
	note := func(err error) { m.log.Warn().Err(err).Msg("a copy is not as in the first store") }
	return open.Several(ctx, m.stores, open.Options{
		Sync: m.Sync, Worker: m.name, Stdout: m.stdout, Gone: m.end, Note: note,
		Names: m.Names, DedupeIndex: m.DedupeIndex, Software: "fetchfleet/" + Version(),
	})
}

// kept is the store that decides, and that is read from.
func (m *member) kept() store.Store { return several.First(m.store) }

// copies names the stores that get the same as the first.
func (m *member) copies() []string {
	if s, ok := m.store.(interface{ Copies() []string }); ok {
		return s.Copies()
	}
	return nil
}

// copyMissing brings the copies of a job to where the first store is: what a run that was killed had not copied is not
// delivered again where its queue died with it.
func (m *member) copyMissing(ctx context.Context, job string) error {
	if s, ok := m.store.(interface {
		CopyMissing(ctx context.Context, job string) error
	}); ok {
		return s.CopyMissing(ctx, job)
	}
	return nil
}
