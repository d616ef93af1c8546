package s3store

import (
	"fmt"
	"os"
	"path/filepath"
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
	for _, n := range []int{500, 2000, 10_000} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			if n > 2000 && os.Getenv("FLEET_SOAK") == "" {
				t.Skip("calls are counted exactly, so that fewer units show as much: set FLEET_SOAK for 10,000")
			}
			prefix := fmt.Sprint("linear-", n)
			s := openTest(t, s3test.URL(proxy.Addr(), prefix))
			if _, err := s.Identity(t.Context()); err != nil {
				t.Fatal(err)
			}
			const committed = 200 // the others are laid down as files, which takes seconds instead of minutes
			wantCalls(t, proxy, "commit", map[string]int{"PUT": 3 * committed}, func() { commitMany(t, s, committed) })
			plant(t, filepath.Join(server.Dir(), prefix, crashJob), committed, n)
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
			some := units[:500]
			wantCalls(t, proxy, "accounts and records", map[string]int{"GET": 2 * len(some)}, func() { readMany(t, s, some) })
			// Both listings; what is temporary, of parts, probes and uploads; and the time.
			wantCalls(t, proxy, "Sweep", map[string]int{"GET": 2*pages + 5}, func() {
				if _, err := s.Sweep(t.Context(), crashJob, time.Hour); err != nil {
					t.Error(err)
				}
			})
			if n > 2000 {
				return
			}
			// The accounts, both listings, the bodies and what is temporary; and the records objects that were laid down,
			// which have no ETag to compare by.
			want := n + 2*pages + 4 + n - committed
			wantCalls(t, proxy, "Verify", map[string]int{"GET": want}, func() { wantSound(t, s, crashJob) })
		})
	}
}

// plant lays down units as files where versitygw keeps its objects.
func plant(t *testing.T, job string, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		batch := fmt.Sprintf("b%05d", i)
		line, err := store.AppendRecord(nil, &store.Record{ID: batch, Job: crashJob, Batch: batch})
		if err != nil {
			t.Fatal(err)
		}
		line = append(line, '\n')
		a := &storedAccount{Account: account(batch, "d"), Attempt: "w~r~1~1", Records: 1}
		data, err := a.encode(line)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(job, accountsFolder, batch+".json"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(job, recordsFolder, batch+".jsonl"), line, 0o644); err != nil {
			t.Fatal(err)
		}
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
