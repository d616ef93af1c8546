package verify_test

import (
	"crypto/rand"
	"fmt"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/verify"
)

// BenchmarkVerify verifies pages of 2 KiB, 32 to a unit; an operation is a page.
func BenchmarkVerify(b *testing.B) {
	dir := b.TempDir()
	s, err := filestore.Open(b.Context(), dir, filestore.Options{Sync: filestore.SyncOff})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	const units, pages = 320, 32
	for i := range units {
		var bodies []string
		for range pages {
			bodies = append(bodies, strings.Repeat(rand.Text(), 80)[:2048])
		}
		fill(b, s, fmt.Sprint("b", i), 0, bodies...)
	}
	b.ResetTimer()
	for n := 0; n < b.N; n += units * pages {
		if r, err := verify.Run(b.Context(), s, job, verify.Options{}); err != nil || !r.OK() {
			b.Fatal(r, err)
		}
	}
}
