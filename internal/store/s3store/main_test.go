package s3store

import (
	"fmt"
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if url := os.Getenv(crashURL); url != "" {
		os.Exit(crashChild(url))
	}
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	server := s3test.Start(t)
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
