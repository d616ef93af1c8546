package s3store

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
)

// pattern is a reader of n bytes that differ along the way, also at the places where pieces meet, and cannot be compressed.
type pattern struct{ at, n int64 }

var patternBytes = sync.OnceValue(func() []byte { return random(1, 1<<20+7) })

func (p *pattern) Read(b []byte) (int, error) {
	if p.at == p.n {
		return 0, io.EOF
	}
	b = b[:min(int64(len(b)), p.n-p.at)]
	all := patternBytes()
	n := copy(b, all[p.at%int64(len(all)):])
	p.at += int64(n)
	return n, nil
}

// peakHeap calls f and returns the most bytes of heap seen in use meanwhile, and the bytes allocated in all.
func peakHeap(f func(look func())) (peak, total uint64) {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	before := m.TotalAlloc
	f(func() {
		runtime.ReadMemStats(&m)
		peak = max(peak, m.HeapInuse)
	})
	runtime.ReadMemStats(&m)
	return peak, m.TotalAlloc - before
}

// What a store holds in memory does not grow with its bodies, nor much with their number.
func TestMemoryDoesNotGrowWithBodies(t *testing.T) {
	server := s3test.Start(t)
	tests := map[string]struct {
		bodies int
		size   int64
		peak   uint64 // of heap in use
		total  uint64 // of bytes allocated
	}{
		"one body of 100 MB":   {bodies: 1, size: 100 << 20, peak: 24 << 20, total: 48 << 20},
		"32 bodies of 3 MB":    {bodies: 32, size: 3 << 20, peak: 40 << 20, total: 64 << 20},
		"four bodies of 20 MB": {bodies: 4, size: 20 << 20, peak: 32 << 20, total: 48 << 20},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			s := openTest(t, server.URL(fmt.Sprint("large-", tt.bodies)))
			var refs []store.BodyRef
			peak, total := peakHeap(func(look func()) { refs = writeMany(t, begin(t, s, "b1"), tt.bodies, tt.size, look) })
			t.Logf("peak heap %d KiB, allocated %d KiB", peak>>10, total>>10)
			if peak > tt.peak || total > tt.total {
				t.Errorf("the heap grew to %d KiB of %d, %d KiB of %d were allocated", peak>>10, tt.peak>>10, total>>10, tt.total>>10)
			}
			wantPattern(t, s, refs[0], tt.size)
		})
	}
}

// The same is true where a body passes through files into a unit of WARC records, which is sent in pieces.
func TestMemoryDoesNotGrowWithUnits(t *testing.T) {
	server := s3test.Start(t)
	tests := map[string]struct {
		bodies int
		size   int64
		peak   uint64 // of heap in use
		total  uint64 // of bytes allocated
	}{
		"one body of 100 MB": {bodies: 1, size: 100 << 20, peak: 24 << 20, total: 48 << 20},
		// What all spools may keep is 24 MiB; buffers grow by doubling, and the collector comes when as much is garbage.
		"32 bodies of 3 MB": {bodies: 32, size: 3 << 20, peak: 96 << 20, total: 256 << 20},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			s := openArchiveTest(t, server.URL(fmt.Sprint("large-", tt.bodies))+"&format=warc")
			s.onePut = 10 << 20
			var refs []store.BodyRef
			peak, total := peakHeap(func(look func()) { refs = writeMany(t, beginArchive(t, s, "b1"), tt.bodies, tt.size, look) })
			t.Logf("peak heap %d KiB, allocated %d KiB", peak>>10, total>>10)
			if peak > tt.peak || total > tt.total {
				t.Errorf("the heap grew to %d KiB of %d, %d KiB of %d were allocated", peak>>10, tt.peak>>10, total>>10, tt.total>>10)
			}
			peak, _ = peakHeap(func(look func()) { wantPattern(t, s, refs[0], tt.size); look() })
			if peak > tt.peak {
				t.Errorf("reading, the heap grew to %d KiB of %d", peak>>10, tt.peak>>10)
			}
		})
	}
}

// writeMany writes bodies at once, each with its own first byte, and commits them.
func writeMany(t *testing.T, u store.Unit, bodies int, size int64, look func()) []store.BodyRef {
	refs := make([]store.BodyRef, bodies)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i := range bodies {
		wg.Go(func() {
			w, err := u.Body(t.Context(), store.BodyMeta{})
			if err != nil {
				t.Error(err)
				return
			}
			defer w.Abort()
			src, buf := &pattern{n: size + int64(i)}, make([]byte, 32<<10)
			for n := 0; err == nil; n++ {
				if _, err = io.CopyBuffer(struct{ io.Writer }{w}, io.LimitReader(src, 1<<20), buf); src.at == src.n {
					break
				}
				mu.Lock()
				look()
				mu.Unlock()
			}
			if err == nil {
				refs[i], err = w.Finish()
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	r := storetest.Record("b1", 1)
	if err := u.Add(r); err != nil {
		t.Error(err)
	}
	if _, _, err := u.Commit(t.Context(), account("b1", "d", r)); err != nil {
		t.Error(err)
	}
	look()
	return refs
}

func wantPattern(t *testing.T, s store.Store, ref store.BodyRef, size int64) {
	t.Helper()
	want := sha256.New()
	if _, err := io.Copy(want, &pattern{n: size}); err != nil {
		t.Fatal(err)
	}
	r, err := s.OpenBody(t.Context(), crashJob, ref.Body)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	got := sha256.New()
	n, err := io.Copy(got, r)
	if err != nil || n != size || hex.EncodeToString(got.Sum(nil)) != ref.SHA256 || hex.EncodeToString(want.Sum(nil)) != ref.SHA256 {
		t.Errorf("the body has %d bytes, digest %x, %v; it is referred to as %+v, of digest %x", n, got.Sum(nil), err, ref, want.Sum(nil))
	}
}
