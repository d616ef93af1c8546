package warcstore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

func TestVerifyFindsAndMends(t *testing.T) {
	unit := func(s *Store) string { return s.unitPath(testJob, "b2", warc.Gzip) }
	merged := func(s *Store, ext string) string {
		return s.jobPath(testJob, mergedFolder) + sep + testJob + "-00001" + ext
	}
	edit := func(t *testing.T, path string, change func([]byte) []byte) {
		t.Helper()
		data, err := os.ReadFile(path)
		if err == nil {
			err = os.WriteFile(path, change(data), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		spoil  func(t *testing.T, s *Store)
		kind   string
		mended bool
	}{
		"a unit that was cut": {func(t *testing.T, s *Store) {
			edit(t, unit(s), func(b []byte) []byte { return b[:len(b)-7] })
		}, structureKind, false},
		"a flipped bit in an answer": {func(t *testing.T, s *Store) {
			edit(t, unit(s), func(b []byte) []byte { b[700] ^= 4; return b })
		}, structureKind, false},
		"a payload without its digest": {func(t *testing.T, s *Store) { forge(t, s, unit(s)) }, warcunit.DigestKind, false},
		"a unit under another name": {func(t *testing.T, s *Store) {
			if err := os.Rename(unit(s), s.unitPath(testJob, "b3", warc.Gzip)); err != nil {
				t.Fatal(err)
			}
		}, structureKind, false},
		"a unit that was merged": {func(t *testing.T, s *Store) {
			data, err := os.ReadFile(unit(s))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(s.unitPath(testJob, "b1", warc.Gzip), data, 0o644); err != nil {
				t.Fatal(err)
			}
		}, orphanKind, true},
		"a merged file without index": {func(t *testing.T, s *Store) { os.Remove(merged(s, unitsExt)) }, indexKind, true},
		"an index that is torn": {func(t *testing.T, s *Store) {
			edit(t, merged(s, unitsExt), func(b []byte) []byte { return b[:len(b)-3] })
		}, indexKind, true},
		"an index that points elsewhere": {func(t *testing.T, s *Store) {
			edit(t, merged(s, unitsExt), func(b []byte) []byte { b[len(b)-2] ^= 1; return b })
		}, indexKind, true},
		"a CDXJ that is missing": {func(t *testing.T, s *Store) { os.Remove(merged(s, cdxjExt)) }, indexKind, true},
		"a CDXJ that is another": {func(t *testing.T, s *Store) {
			edit(t, merged(s, cdxjExt), func(b []byte) []byte { return append(b, "x\n"...) })
		}, indexKind, true},
		"a merged file that is missing": {func(t *testing.T, s *Store) { os.Remove(merged(s, ".warc.gz")) }, missingKind, false},
		"a merged file that was cut": {func(t *testing.T, s *Store) {
			edit(t, merged(s, ".warc.gz"), func(b []byte) []byte { return b[:len(b)-9] })
		}, structureKind, false},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir, Options{})
			r := storeUnit(t, s, "b1", mixed()[:2]...)
			if err := s.Compact(t.Context(), testJob); err != nil {
				t.Fatal(err)
			}
			storeUnit(t, s, "b2", answer{url: "http://x.test/", status: 200, body: random(1, 3000)})
			wantSound(t, s)
			tt.spoil(t, s)
			s = openTest(t, dir, Options{})
			for _, repair := range []bool{false, true} {
				list := withNotes(t, s, testJob, repair)
				found := false
				for _, f := range list {
					found = found || f.Kind == tt.kind
					if f.Mended != (repair && tt.mended) && f.Kind == tt.kind {
						t.Errorf("with repair %v: %+v", repair, f)
					}
				}
				if !found {
					t.Errorf("with repair %v Verify found %+v, want one of kind %s", repair, list, tt.kind)
				}
			}
			if !tt.mended {
				return
			}
			s = openTest(t, dir, Options{})
			wantSound(t, s)
			wantBody(t, s, r[0], mixed()[0].body)
		})
	}
}

// forge replaces a unit by one whose answer has the digests of another.
func forge(t *testing.T, s *Store, path string) {
	t.Helper()
	h := &warc.Header{Type: warc.Resource, ID: warc.NewID(), Date: testTime, TargetURI: "http://x.test/", ContentType: "text/plain",
		BlockDigest: warc.Digest{1}, PayloadDigest: warc.Digest{1}}
	data := warc.Gzip.Append(nil, h.Append(nil, 4), []byte("body"), []byte(warc.End))
	a := &warcunit.Stored{Account: &store.Account{V: 1, Job: testJob, Batch: "b2"}, Layout: 1}
	data, err := a.AppendTo(data, warc.Gzip, 0, int64(len(data)))
	if err == nil {
		err = os.WriteFile(path, data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTemporariesAreToldAndOldOnesMended(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{Worker: "mine"})
	dead := openTest(t, s.Dir(), Options{Worker: "a.b/c~d"})
	for _, each := range []*Store{s, dead} {
		if _, _, _, err := beginUnit(t, each, "b1", mixed()...); err != nil {
			t.Fatal(err)
		}
	}
	names := tmpFiles(t, s)
	if len(names) != 2 {
		t.Fatalf("tmp holds %q, want the file of each unit", names)
	}
	notes := 0
	count := func(f store.Finding) {
		if !f.Note || f.Kind != temporaryKind || f.Mended {
			t.Errorf("Verify found %+v", f)
		}
		notes++
	}
	if err := s.Verify(t.Context(), testJob, true, count); err != nil || notes != 2 {
		t.Errorf("Verify tells of %d temporaries (error %v), want 2", notes, err)
	}
	old := time.Now().Add(-time.Hour)
	for _, name := range names {
		if err := os.Chtimes(filepath.Join(s.jobPath(testJob, tmpFolder), name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	if n, err := s.Sweep(t.Context(), testJob, 2*time.Hour); err != nil || n != 0 {
		t.Errorf("Sweep of what is older than two hours = %d, %v, want none", n, err)
	}
	if err := s.Verify(t.Context(), testJob, true, func(store.Finding) {}); err != nil {
		t.Error(err)
	}
	if left := tmpFiles(t, s); len(left) != 1 || left[0][:4] != "mine" {
		t.Errorf("tmp holds %q, want the file of the unit that lives", left)
	}
}
