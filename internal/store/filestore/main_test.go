package filestore

import (
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	crash.Main(crashChild)
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	tests := map[string]struct {
		sync  string
		names string
		named bool // as on file systems without nameless files
	}{
		"sync batch":              {sync: SyncBatch},
		"sync off":                {sync: SyncOff},
		"sync batch, named files": {sync: SyncBatch, named: true},
		"names path":              {names: NamesPath},
		"names path, named files": {names: NamesPath, sync: SyncOff, named: true},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				dir := t.TempDir()
				reopen := func() store.Store {
					s := openTest(t, dir, Options{Sync: tt.sync, Names: tt.names, Worker: "w1"})
					if tt.named {
						s.named.Store(true)
					}
					return s
				}
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
