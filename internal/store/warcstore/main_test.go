package warcstore

import (
	"context"
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	crash.Main(crashChild)
	if dir := os.Getenv(partDir); dir != "" {
		os.Exit(partChild(dir))
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	tests := map[string]struct {
		o       Options
		named   bool // as on file systems without nameless files
		compact bool // units are merged whenever the store is opened again
	}{
		"gzip":              {o: Options{Compress: "gzip"}},
		"zstd":              {o: Options{Compress: "zstd"}},
		"sync off":          {o: Options{Sync: SyncOff}},
		"gzip, named files": {named: true},
		"gzip, merged":      {o: Options{MergeSize: 100_000}, compact: true},
		"zstd, merged":      {o: Options{Compress: "zstd"}, compact: true},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				dir := t.TempDir()
				reopen := func() store.Store {
					o := tt.o
					o.Worker = "w1"
					s := openTest(t, dir, o)
					s.named.Store(s.named.Load() || tt.named)
					if tt.compact {
						for job, err := range s.Jobs(t.Context()) {
							if err != nil {
								t.Fatal(err)
							}
							if err := s.Compact(t.Context(), job); err != nil {
								t.Fatal(err)
							}
						}
					}
					return s
				}
				t.Cleanup(func() { wantSound(t, openTest(t, dir, Options{})) })
				return reopen(), reopen
			})
		})
	}
}

func openTest(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(context.Background(), dir, o) // also while t cleans up
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}
