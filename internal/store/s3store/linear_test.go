package s3store

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/google/go-cmp/cmp"
)

// What many small units cost is counted in calls, which is what a server is paid for; not in seconds, which a busy
// machine stretches.
func TestManySmallUnitsStayLinear(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	sizes := []int{500, 2000, 10_000}
	if testing.Short() {
		sizes = sizes[:2]
	}
	for _, n := range sizes {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			s := openTest(t, s3test.URL(proxy.Addr(), fmt.Sprint("linear-", n)))
			if _, err := s.Identity(t.Context()); err != nil {
				t.Fatal(err)
			}
			wantCalls(t, proxy, "commit", map[string]int{"PUT": 3 * n}, func() { commitMany(t, s, n) })
			pages := (n + 999) / 1000
			var units []string
			wantCalls(t, proxy, "Units", map[string]int{"GET": pages}, func() {
				for unit, err := range s.Units(t.Context(), crashJob) {
					if err != nil {
						t.Fatal(err)
					}
					units = append(units, unit)
				}
			})
			if len(units) != n {
				t.Errorf("%d units are listed, want %d", len(units), n)
			}
			wantCalls(t, proxy, "accounts and records", map[string]int{"GET": 2 * n}, func() { readMany(t, s, units) })
			// Both listings; what is temporary, of parts, probes and uploads; and the time.
			wantCalls(t, proxy, "Sweep", map[string]int{"GET": 2*pages + 5}, func() {
				if _, err := s.Sweep(t.Context(), crashJob, time.Hour); err != nil {
					t.Error(err)
				}
			})
			wantCalls(t, proxy, "Verify", map[string]int{"GET": n + 3*pages + 3}, func() { wantSound(t, s, crashJob) })
		})
	}
}

func wantCalls(t *testing.T, proxy *s3test.Proxy, what string, want map[string]int, do func()) {
	t.Helper()
	proxy.Reset()
	began := time.Now()
	do()
	if diff := cmp.Diff(want, proxy.Calls()); diff != "" {
		t.Errorf("calls for %s (-want +got):\n%s", what, diff)
	}
	t.Logf("%s: %v in %s", what, proxy.Calls(), time.Since(began).Round(time.Millisecond))
}

// commitMany commits n units of one record with a small body.
func commitMany(t *testing.T, s *Store, n int) {
	var next atomic.Int64
	atOnce(t, func() error {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			batch := fmt.Sprintf("b%05d", i)
			u, err := s.Begin(t.Context(), crashJob, batch)
			if err != nil {
				return err
			}
			ref, err := writeBody(t.Context(), u, []byte(batch))
			if err != nil {
				return err
			}
			r := &store.Record{ID: batch, Job: crashJob, Batch: batch, Body: ref.Body, SHA256: ref.SHA256, Bytes: ref.Bytes}
			if err := u.Add(r); err != nil {
				return err
			}
			if _, _, err := u.Commit(t.Context(), account(batch, "d", r)); err != nil {
				return err
			}
		}
		return nil
	})
}

func readMany(t *testing.T, s *Store, units []string) {
	var next, records atomic.Int64
	atOnce(t, func() error {
		for i := int(next.Add(1)) - 1; i < len(units); i = int(next.Add(1)) - 1 {
			if _, err := s.Account(t.Context(), crashJob, units[i]); err != nil {
				return err
			}
			for _, err := range s.Records(t.Context(), crashJob, units[i]) {
				if err != nil {
					return err
				}
				records.Add(1)
			}
		}
		return nil
	})
	if int(records.Load()) != len(units) {
		t.Errorf("%d records were read, want %d", records.Load(), len(units))
	}
}

func atOnce(t *testing.T, do func() error) {
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			if err := do(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}
