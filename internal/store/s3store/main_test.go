package s3store

import (
	"context"
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	crash.Main(crashChild)
	for name, value := range s3test.Environment() { // so that tests may run beside each other
		if err := os.Setenv(name, value); err != nil {
			panic(err)
		}
	}
	if err := flag.Set("test.parallel", "6"); err != nil { // most wait for a server or a clock, also where there are few processors
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	n := 0
	tests := map[string]func(*Store){
		"as it is":                          func(*Store) {},
		"with pieces of 5 MiB":              func(s *Store) { s.piece = func(int) int64 { return 5 << 20 } },
		"with copies in parts, as if large": func(s *Store) { s.piece, s.copyLimit = func(int) int64 { return 5 << 20 }, 5<<20 },
	}
	for claim, change := range tests {
		t.Run(claim, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				n++
				url := server.URL(fmt.Sprintf("deep/store-%d", n))
				reopen := func() store.Store {
					s := openTest(t, url)
					change(s)
					return s
				}
				return reopen(), reopen
			})
		})
	}
}

func TestArchiveConformance(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	n := 0
	tests := map[string]struct {
		parameters string
		change     func(*Archive)
	}{
		"gzip":                              {change: func(*Archive) {}},
		"zstd":                              {"&compress=zstd", func(*Archive) {}},
		"with large units in pieces":        {"", func(s *Archive) { s.piece, s.onePut = func(int) int64 { return 5 << 20 }, 100_000 }},
		"where completions are not guarded": {"", func(s *Archive) { s.pieced, s.onePut = ignored, 100_000 }},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				n++
				url := server.URL(fmt.Sprintf("deep/store-%d", n)) + "&format=warc" + tt.parameters
				reopen := func() store.Store {
					s := openArchiveTest(t, url)
					tt.change(s)
					return s
				}
				t.Cleanup(func() { wantArchiveSound(t, url) })
				return reopen(), reopen
			})
		})
	}
}

func openArchiveTest(t testing.TB, url string) *Archive {
	t.Helper()
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Worker, o.SpoolDir = "w1", t.TempDir()
	s, err := OpenArchive(context.Background(), o) // also while t cleans up
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		if left, err := os.ReadDir(o.SpoolDir); err != nil || len(left) > 0 {
			t.Errorf("%d temporary files are left, %v", len(left), err)
		}
		if held := s.shop.Held(); held != 0 {
			t.Errorf("%d bytes of memory are not given back", held)
		}
	})
	return s
}

func openTest(t testing.TB, url string) *Store {
	t.Helper()
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	o.Worker, o.SpoolDir = "w1", t.TempDir()
	s, err := Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	})
	return s
}
