package s3store

import (
	"fmt"
	"io"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
)

// BenchmarkPages commits batches of 32 pages of 2 KiB from 16 goroutines. An operation is a page.
func BenchmarkPages(b *testing.B) {
	server := s3test.Start(b)
	for _, format := range []string{FormatFile, FormatWARC} {
		b.Run(format, func(b *testing.B) { benchmarkPages(b, server.URL(fmt.Sprint(format, "-", b.N))+"&format="+format) })
	}
}

func benchmarkPages(b *testing.B, url string) {
	o, err := Parse(url)
	if err != nil {
		b.Fatal(err)
	}
	s, err := openEither(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	var batches atomic.Int64
	page := random(1, 2048)
	b.SetParallelism(8)
	b.ReportAllocs()
	cpu := cpuTime()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for more := true; more; {
			batch := "b" + strconv.FormatInt(batches.Add(1), 10)
			u, err := s.Begin(b.Context(), crashJob, batch)
			if err != nil {
				b.Error(err)
				return
			}
			var records []*store.Record
			for n := 0; n < 32 && more; n++ {
				if more = pb.Next(); !more {
					break
				}
				ref, err := writeBody(b.Context(), u, append(strconv.AppendInt(nil, int64(n), 10), append([]byte(batch), page...)...))
				if err != nil {
					b.Error(err)
					return
				}
				r := storetest.Record(batch, n)
				r.Body, r.SHA256, r.Bytes = ref.Body, ref.SHA256, ref.Bytes
				if err := u.Add(r); err != nil {
					b.Error(err)
				}
				records = append(records, r)
			}
			if _, _, err := u.Commit(b.Context(), account(batch, "d", records...)); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-µs/page")
}

// BenchmarkLargeBody writes and commits bodies of 256 MiB.
func BenchmarkLargeBody(b *testing.B) {
	server := s3test.Start(b)
	o, err := Parse(server.URL("large"))
	if err != nil {
		b.Fatal(err)
	}
	s, err := Open(b.Context(), o)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const size = 256 << 20
	b.SetBytes(size)
	b.ReportAllocs()
	cpu := cpuTime()
	for i := range b.N {
		began := time.Now()
		batch := fmt.Sprint("b", i)
		u, err := s.Begin(b.Context(), crashJob, batch)
		if err != nil {
			b.Fatal(err)
		}
		w, err := u.Body(b.Context(), store.BodyMeta{})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(struct{ io.Writer }{w}, &pattern{n: size + int64(i)}); err != nil {
			b.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			b.Fatal(err)
		}
		written := time.Since(began)
		if _, _, err := u.Commit(b.Context(), account(batch, "d")); err != nil {
			b.Fatal(err)
		}
		b.Logf("written in %s, committed in %s", written, time.Since(began)-written)
	}
	b.ReportMetric(float64((cpuTime()-cpu).Milliseconds())/float64(b.N), "cpu-ms/op")
}
