package filestore

import (
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashDir); dir != "" {
		os.Exit(crashChild(dir))
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	for _, sync := range []string{SyncBatch, SyncOff} {
		t.Run("sync "+sync, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				dir := t.TempDir()
				reopen := func() store.Store { return openTest(t, dir, Options{Sync: sync, Worker: "w1"}) }
				return reopen(), reopen
			})
		})
	}
}

func openTest(t *testing.T, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
