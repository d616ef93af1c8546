package warcstore

import (
	"crypto/sha256"
	"encoding/hex"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Memory does not grow with bodies: many at once are written, read and merged within a bound.
func TestLargeBodiesNeedLittleMemory(t *testing.T) {
	size := int64(24 << 20)
	if os.Getenv("FLEET_SOAK") != "" {
		size = 1 << 30
	}
	s := openTest(t, t.TempDir(), Options{Sync: SyncOff})
	u, err := s.Begin(t.Context(), testJob, "b1")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	e := &store.Exchange{Method: "GET", Target: "/", Status: 200, Reason: "OK", Protocol: "HTTP/1.1"}
	w, err := u.Body(t.Context(), store.BodyMeta{URL: "http://x.test/", Exchange: e})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.New()
	src := io.TeeReader(io.LimitReader(rand.NewChaCha8([32]byte{1}), size), sum)
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, src, make([]byte, 32<<10)); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if want := hex.EncodeToString(sum.Sum(nil)); ref.SHA256 != want || ref.Bytes != size {
		t.Errorf("the body is %+v, want %d bytes, digest %s", ref, size, want)
	}
	if _, _, err := u.Commit(t.Context(), &store.Account{V: 1, Job: testJob, Batch: "b1"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Compact(t.Context(), testJob); err != nil {
		t.Fatal(err)
	}
	r, err := s.OpenBody(t.Context(), testJob, ref.Body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := sha256.New()
	if _, err := io.Copy(got, r); err != nil || hex.EncodeToString(got.Sum(nil)) != ref.SHA256 {
		t.Errorf("the body reads as digest %x, %v", got.Sum(nil), err)
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 12<<20 {
		t.Errorf("a body of %d bytes took %d bytes of allocations in all", size, used)
	}
	if status, err := os.ReadFile("/proc/self/status"); err == nil {
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "VmHWM") {
				t.Logf("with %d MB: %s", size>>20, line)
			}
		}
	}
}

// Nor does it grow with bodies that came in pieces.
func TestLargePartsNeedLittleMemory(t *testing.T) {
	size := int64(24 << 20)
	if os.Getenv("FLEET_SOAK") != "" {
		size = 1 << 30
	}
	s := openTest(t, t.TempDir(), Options{Sync: SyncOff})
	p := held(t, s, partOf)
	first := stretchOf(0, int(size))
	if err := p.Begin(store.PartNote{URL: partURL, Length: size, Stretches: []store.Stretch{first}}); err != nil {
		t.Fatal(err)
	}
	piece := random(1, 1<<20)
	sum := sha256.New()
	for p.Size() < size {
		if p.Size() == size/2 {
			if err := p.Stretch(stretchOf(int(size/2), int(size))); err != nil {
				t.Fatal(err)
			}
		}
		piece[p.Size()>>20&0xffff]++
		writePart(t, p, piece)
		sum.Write(piece)
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	r := adopt(t, s, p, "b1")
	runtime.ReadMemStats(&after)
	if want := hex.EncodeToString(sum.Sum(nil)); r.SHA256 != want || r.Bytes != size {
		t.Errorf("the body has %d bytes, digest %s, want %d, %s", r.Bytes, r.SHA256, size, want)
	}
	if used := after.TotalAlloc - before.TotalAlloc; used > 12<<20 { // compressors, of which -race drops some from their pool
		t.Errorf("a body of %d bytes took %d bytes of allocations in all", size, used)
	}
	b, err := s.OpenBody(t.Context(), testJob, r.Body)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	got := sha256.New()
	if n, err := io.Copy(got, b); err != nil || n != size || hex.EncodeToString(got.Sum(nil)) != r.SHA256 {
		t.Errorf("the body reads as %d bytes, digest %x, %v", n, got.Sum(nil), err)
	}
	wantSound(t, s)
}
