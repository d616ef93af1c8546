//go:build unix

package warcstore

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/klauspost/compress/gzip"
)

const (
	benchPages = 32
	benchPage  = 2048
)

// benchBodies are pages of text; each is made different by its first bytes.
var benchBodies = sync.OnceValue(func() [][]byte {
	list := make([][]byte, 256)
	for i := range list {
		list[i] = text(uint64(i), benchPage)
	}
	return list
})

func benchBody(buf []byte, n int64, i int) []byte {
	buf = append(buf[:0], benchBodies()[(n*7+int64(i))%256]...)
	binary.LittleEndian.PutUint64(buf, uint64(n)<<8|uint64(i))
	return buf
}

func benchExchange(n int64, i int) *store.Exchange {
	return &store.Exchange{
		Method: "GET", Target: fmt.Sprintf("/%d/%d", n, i),
		Request: map[string][]string{"Host": {"example.test"}, "User-Agent": {"fetchfleet/1.0 (+https://example.test/bot)"}, "Accept-Encoding": {"gzip, br, zstd"}, "Accept": {"*/*"}},
		Status:  200, Reason: "OK", Protocol: "HTTP/1.1", RemoteAddr: "127.0.0.1:80", At: time.Now(),
		Response: map[string][]string{
			"Content-Type": {"text/html; charset=utf-8"}, "Content-Length": {"2048"}, "Server": {"test"},
			"Date": {"Thu, 20 Nov 2026 10:00:00 GMT"}, "Etag": {`"abc"`},
		},
	}
}

func benchRecord(batch string, i int, e *store.Exchange, ref store.BodyRef) *store.Record {
	return &store.Record{
		ID: fmt.Sprintf("%s-%d", batch, i), Job: "bench", Batch: batch, URL: "http://example.test" + e.Target, Method: "GET",
		Outcome: store.OK, Status: 200, Attempts: 1, ContentType: "text/html; charset=utf-8", Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body,
		Headers: e.Response, FetchedAt: e.At.UTC(), ElapsedMS: 12.345, Protocol: "HTTP/1.1", RemoteAddr: "127.0.0.1:80", Worker: "bench",
		Timings: &store.Timings{DNS: 0.1, Connect: 0.2, TTFB: 1.5, Total: 2.25},
	}
}

func benchUnit(s *Store, n int64) error {
	ctx := context.Background()
	batch := fmt.Sprintf("b%08d", n)
	u, err := s.Begin(ctx, "bench", batch)
	if err != nil {
		return err
	}
	a := &store.Account{V: 1, Job: "bench", Batch: batch, Worker: "bench", Delivery: "d"}
	buf := make([]byte, 0, benchPage)
	for i := range benchPages {
		e := benchExchange(n, i)
		w, err := u.Body(ctx, store.BodyMeta{URL: "http://example.test" + e.Target, ContentType: "text/html; charset=utf-8", Exchange: e})
		if err != nil {
			return err
		}
		buf = benchBody(buf, n, i)
		if _, err := w.Write(buf); err != nil {
			return err
		}
		ref, err := w.Finish()
		if err != nil {
			return err
		}
		r := benchRecord(batch, i, e, ref)
		if err := u.Add(r); err != nil {
			return err
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: store.OK, Bytes: ref.Bytes})
	}
	_, _, err = u.Commit(ctx, a)
	return err
}

// BenchmarkUnit stores units of 32 pages of 2 KiB.
func BenchmarkUnit(b *testing.B) {
	for _, sync := range []string{SyncOff, SyncBatch} {
		for _, c := range warc.Compressions {
			b.Run(string(c)+"/sync "+sync, func(b *testing.B) {
				s := openTest(b, b.TempDir(), Options{Sync: sync, Compress: string(c)})
				perPage(b, func(n int64) error { return benchUnit(s, n) })
				var size int64
				for _, path := range filesWith(b, s.dir, c.Ext()) {
					if fi, err := os.Stat(path); err == nil {
						size += fi.Size()
					}
				}
				b.ReportMetric(float64(size)/float64(b.N*benchPages), "bytes/page")
			})
		}
	}
}

// BenchmarkAppend is what that is compared with: the same bodies, gzipped by the same library at the same level, one
// member each, appended to one file.
func BenchmarkAppend(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "all.gz"))
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	var mu sync.Mutex
	pool := sync.Pool{New: func() any { z, _ := gzip.NewWriterLevel(nil, 1); return z }}
	perPage(b, func(n int64) error {
		var out appended
		z := pool.Get().(*gzip.Writer)
		defer pool.Put(z)
		buf := make([]byte, 0, benchPage)
		for i := range benchPages {
			z.Reset(&out)
			buf = benchBody(buf, n, i)
			z.Write(buf)
			z.Close()
			mu.Lock()
			_, err := f.Write(out)
			mu.Unlock()
			if err != nil {
				return err
			}
			out = out[:0]
		}
		return nil
	})
}

type appended []byte

func (a *appended) Write(p []byte) (int, error) {
	*a = append(*a, p...)
	return len(p), nil
}

// BenchmarkCompact merges units of 32 pages.
func BenchmarkCompact(b *testing.B) {
	s := openTest(b, b.TempDir(), Options{Sync: SyncOff})
	for n := range int64(b.N) {
		if err := benchUnit(s, n); err != nil {
			b.Fatal(err)
		}
	}
	b.ResetTimer()
	if err := s.Compact(b.Context(), "bench"); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*benchPages), "µs/page")
	b.ReportMetric(0, "ns/op")
}

// perPage runs do from 64 goroutines and reports CPU and wall time for each page.
func perPage(b *testing.B, do func(n int64) error) {
	b.SetParallelism(32)
	benchBodies()
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
