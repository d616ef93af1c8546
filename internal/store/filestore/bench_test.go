//go:build unix

package filestore

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

const (
	benchPages = 32   // a unit
	benchPage  = 2048 // bytes
)

// BenchmarkPlainFiles is the ceiling: the same files, created and written under their last names by goroutines that
// know nothing of units. One operation is 32 files.
func BenchmarkPlainFiles(b *testing.B) {
	dir := b.TempDir()
	for i := range 256 {
		if err := os.MkdirAll(filepath.Join(dir, fmt.Sprintf("%02x", i)), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	perPage(b, func(n int64) error {
		for i := range benchPages {
			page := benchBody(n, i)
			sum := sha256.Sum256(page)
			name := hex.EncodeToString(sum[:])
			if err := os.WriteFile(filepath.Join(dir, name[:2], name+".html"), page, 0o644); err != nil {
				return err
			}
		}
		return nil
	})
}

// BenchmarkUnit32 stores units of 32 pages, records and account included.
func BenchmarkUnit32(b *testing.B) {
	for name, o := range map[string]Options{"off": {Sync: SyncOff}, "batch": {Sync: SyncBatch}, "off, names path": {Sync: SyncOff, Names: NamesPath}} {
		b.Run(name, func(b *testing.B) {
			s, err := Open(b.Context(), b.TempDir(), o)
			if err != nil {
				b.Fatal(err)
			}
			defer s.Close()
			perPage(b, func(n int64) error { return storeUnit(b, s, n) })
		})
	}
}

func storeUnit(b *testing.B, s *Store, n int64) error {
	ctx, name := b.Context(), fmt.Sprintf("b%d", n)
	u, err := s.Begin(ctx, "job", name)
	if err != nil {
		return err
	}
	defer u.Discard()
	a := &store.Account{V: store.AccountVersion, Job: "job", Batch: name, Worker: "bench", Delivery: name}
	for i := range benchPages {
		w, err := u.Body(ctx, store.BodyMeta{URL: fmt.Sprintf("http://host-%d.test/page/%d", n%500, n*benchPages+int64(i)), ContentType: "text/html; charset=utf-8"})
		if err != nil {
			return err
		}
		if _, err := w.Write(benchBody(n, i)); err != nil {
			return err
		}
		ref, err := w.Finish()
		if err != nil {
			return err
		}
		r := benchRecord(name, i, ref)
		if err := u.Add(r); err != nil {
			return err
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: store.OK, Bytes: ref.Bytes})
	}
	_, _, err = u.Commit(ctx, a)
	return err
}

func benchRecord(batch string, i int, ref store.BodyRef) *store.Record {
	return &store.Record{
		ID: fmt.Sprintf("%s-%d-0123456789abcdef", batch, i), Job: "job", Batch: batch,
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

func benchBody(n int64, i int) []byte {
	page := make([]byte, benchPage)
	binary.LittleEndian.PutUint64(page, uint64(n)<<8|uint64(i))
	return page
}

// perPage runs do from 64 goroutines and reports CPU and wall time for each page.
func perPage(b *testing.B, do func(n int64) error) {
	b.SetParallelism(32)
	var n atomic.Int64
	before := cpuTime()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if err := do(n.Add(1)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	pages := float64(b.N * benchPages)
	b.ReportMetric(float64(cpuTime()-before)/1000/pages, "cpu-µs/page")
	b.ReportMetric(float64(b.Elapsed().Microseconds())/pages, "µs/page")
	b.ReportMetric(0, "ns/op")
}

func cpuTime() time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		return 0
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

func BenchmarkAppendRecord(b *testing.B) {
	r := benchRecord("batch", 1, store.BodyRef{Bytes: 1, SHA256: "aa", Body: "bodies/aa/aa.html"})
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = store.AppendRecord(buf[:0], r); err != nil {
			b.Fatal(err)
		}
	}
}
