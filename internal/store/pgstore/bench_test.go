//go:build unix

package pgstore

import (
	"fmt"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

// BenchmarkRecords stores records in units of 32 and of 1, on a local server that flushes to disk.
// One operation is 100,000 records.
func BenchmarkRecords(b *testing.B) {
	server := pgtest.Start(b, pgtest.Durable())
	for _, tt := range []struct{ size, page, committers int }{{32, 0, 16}, {32, 2048, 16}, {1, 0, 16}, {1, 0, 64}} {
		b.Run(fmt.Sprintf("units of %d, pages of %d bytes, %d committers", tt.size, tt.page, tt.committers), func(b *testing.B) {
			s := openTest(b, server.Database(b), Options{Worker: "bench"})
			const total = 100_000
			b.ResetTimer()
			before := cpuTime()
			for round := range b.N {
				benchRound(b, s, fmt.Sprint("job", round), total/tt.size, tt.committers, tt.size, tt.page)
			}
			b.ReportMetric(float64(b.N)*total/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64((cpuTime()-before).Microseconds())/float64(b.N*total), "cpu-µs/record")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchRound(b *testing.B, s *Store, job string, units, committers, size, page int) {
	var next atomic.Int64
	var wg sync.WaitGroup
	for range committers {
		wg.Go(func() {
			for n := next.Add(1); int(n) <= units; n = next.Add(1) {
				if err := benchUnit(b, s, job, n, size, page); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func benchUnit(b *testing.B, s *Store, job string, n int64, size, page int) error {
	ctx, name := b.Context(), fmt.Sprintf("b%d", n)
	u, err := s.Begin(ctx, job, name)
	if err != nil {
		return err
	}
	defer u.Discard()
	a := &store.Account{V: store.AccountVersion, Job: job, Batch: name, Worker: "bench", Delivery: name}
	for i := range size {
		ref := store.BodyRef{Bytes: 2048, SHA256: "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}
		if page > 0 {
			w, err := u.Body(ctx, store.BodyMeta{})
			if err != nil {
				return err
			}
			data := make([]byte, page)
			copy(data, fmt.Sprint(job, n, i))
			if _, err := w.Write(data); err != nil {
				return err
			}
			if ref, err = w.Finish(); err != nil {
				return err
			}
		}
		r := benchRecord(job, name, i, ref)
		if err := u.Add(r); err != nil {
			return err
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: store.OK, Bytes: ref.Bytes})
	}
	_, _, err = u.Commit(ctx, a)
	return err
}

func benchRecord(job, batch string, i int, ref store.BodyRef) *store.Record {
	return &store.Record{
		ID: fmt.Sprintf("%s-%d-0123456789abcdef", batch, i), Job: job, Batch: batch,
		URL: "http://host-1.test/a/page/that/has/a/path?and=a&query=too", Method: "GET", Outcome: store.OK, Status: 200,
		Attempts: 1, ContentType: "text/html; charset=utf-8", Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body,
		Headers: map[string][]string{
			"Content-Type": {"text/html; charset=utf-8"}, "Content-Length": {"2048"}, "Server": {"test"},
			"Date": {"Thu, 20 Nov 2026 10:00:00 GMT"}, "Etag": {`"abc"`},
		},
		FetchedAt: time.Unix(1_800_000_000, 123456789).UTC(), ElapsedMS: 12.345, Protocol: "HTTP/1.1",
		RemoteAddr: "127.0.0.1:80", Worker: "bench",
		Timings: &store.Timings{DNS: 0.1, Connect: 0.2, TTFB: 1.5, Total: 2.25},
	}
}

// BenchmarkAdd is the worker's own share: one record encoded as JSON, to know that it can be, and as a row.
func BenchmarkAdd(b *testing.B) {
	r := benchRecord("job", "b1", 0, store.BodyRef{Bytes: 2048, SHA256: "e3b0c44298fc1c14", Body: "x"})
	u := &unit{}
	b.ReportAllocs()
	for b.Loop() {
		u.records = u.records[:0]
		if err := u.Add(r); err != nil {
			b.Fatal(err)
		}
	}
}

// cpuTime is this process's, without the server's.
func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
