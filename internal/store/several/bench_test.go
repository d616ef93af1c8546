package several

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/jsonl"
)

// BenchmarkUnit32 stores units of 32 pages of 2 KiB. One operation is a unit.
func BenchmarkUnit32(b *testing.B) {
	dir := func() store.Store {
		s, err := filestore.Open(b.Context(), b.TempDir(), filestore.Options{Sync: filestore.SyncOff})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	lines := func() store.Store {
		s, err := jsonl.Open(b.Context(), jsonl.Target, jsonl.Options{Out: io.Discard})
		if err != nil {
			b.Fatal(err)
		}
		return s
	}
	for _, bb := range []struct {
		name string
		open func() store.Store
	}{
		{"a folder", dir},
		{"a folder and lines", func() store.Store { return New(Options{}, dir(), lines()) }},
		{"two folders", func() store.Store { return New(Options{}, dir(), dir()) }},
	} {
		b.Run(bb.name, func(b *testing.B) {
			s := bb.open()
			defer s.Close()
			for n := 0; b.Loop(); n++ {
				name := fmt.Sprint("b", n)
				pages := make([]page, 32)
				for i := range pages {
					id := fmt.Sprintf("%s-%d", name, i)
					pages[i] = page{id, id + strings.Repeat(".", 2048)}
				}
				u, err := s.Begin(b.Context(), job, name)
				if err != nil {
					b.Fatal(err)
				}
				a, err := fill(b.Context(), u, name, "d", pages...)
				if err != nil {
					b.Fatal(err)
				}
				if _, _, err := u.Commit(b.Context(), a); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
