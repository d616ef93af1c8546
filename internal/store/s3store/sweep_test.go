package s3store

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/google/go-cmp/cmp"
	"github.com/minio/minio-go/v7"
)

var statOptions = minio.StatObjectOptions{}

// litter leaves a large body under tmp and an upload that was not completed, as a worker does that dies.
func litter(t *testing.T, s *Store, name string) *unit {
	t.Helper()
	u := begin(t, s, name)
	if _, err := writeBody(t.Context(), u, random(3, testPiece+10)); err != nil {
		t.Fatal(err)
	}
	w, err := u.Body(t.Context(), store.BodyMeta{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.Abort)
	if _, err := w.Write(random(4, testPiece+10)); err != nil {
		t.Fatal(err)
	}
	return u
}

func TestSweepRemovesWhatTheDeadLeft(t *testing.T) {
	server := s3test.Start(t)
	dead, s := openParts(t, server.URL("sweep")), openParts(t, server.URL("sweep"))
	litter(t, dead, "b1")
	if left := leftovers(t, s, crashJob); len(left) != 2 {
		t.Fatalf("there is %q, want a temporary body and an upload", left)
	}
	if n, err := s.Sweep(t.Context(), crashJob, time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep of what is an hour old removed %d, %v", n, err)
	}
	if n, err := dead.Sweep(t.Context(), crashJob, 0); n != 0 || err != nil {
		t.Errorf("the owner's own Sweep removed %d, %v", n, err)
	}
	if n, err := s.Sweep(t.Context(), crashJob, 0); n != 2 || err != nil {
		t.Errorf("Sweep removed %d, %v, want 2", n, err)
	}
	if left := leftovers(t, s, crashJob); len(left) != 0 {
		t.Errorf("after Sweep there is %q", left)
	}
}

// commitOne commits a unit of one record with a body.
func commitOne(t *testing.T, s *Store, batch string, data []byte) store.BodyRef {
	t.Helper()
	u := begin(t, s, batch)
	ref, err := writeBody(t.Context(), u, data)
	if err != nil {
		t.Fatal(err)
	}
	r := storetest.Record(batch, 1)
	r.Job, r.BodyJob, r.SHA256, r.Body, r.Bytes = crashJob, "", ref.SHA256, ref.Body, ref.Bytes
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), account(batch, "d", r)); err != nil || !won {
		t.Fatalf("Commit: won %v, %v", won, err)
	}
	return ref
}

// A writer that dies between its account and its records leaves a unit that reads whole; Sweep completes the copy.
func TestSweepWritesRecordsOfTheDead(t *testing.T) {
	server := s3test.Start(t)
	s := openTest(t, server.URL("roll"))
	commitOne(t, s, "b1", random(1, 100))
	commitOne(t, s, "b2", random(2, 100))
	path := filepath.Join(server.Dir(), "roll", crashJob, recordsFolder, "b1.jsonl")
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.c.remove(t.Context(), s.keys.records(crashJob, "b1")); err != nil {
		t.Fatal(err)
	}
	for r, err := range s.Records(t.Context(), crashJob, "b1") {
		if err != nil || r.ID != "b1-1" {
			t.Errorf("the unit reads as %v, %v", r, err)
		}
	}
	if _, err := s.Sweep(t.Context(), crashJob, time.Hour); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("Sweep wrote %q, %v, want %q", got, err, want)
	}
}

// kinds maps what Verify found to whether it was mended.
func kinds(list []store.Finding) map[string]bool {
	out := map[string]bool{}
	for _, f := range list {
		kind := f.Kind
		if f.Note {
			kind += ", noted"
		}
		out[kind+": "+f.Where] = f.Mended
	}
	return out
}

func TestVerifyFindsAndMends(t *testing.T) {
	server := s3test.Start(t)
	dead, s := openParts(t, server.URL("verify")), openParts(t, server.URL("verify"))
	for _, batch := range []string{"b1", "b2", "b3"} {
		commitOne(t, s, batch, random(uint64(len(batch)), 100))
	}
	wantSound(t, s, crashJob)
	put := func(key, text string) {
		t.Helper()
		if _, err := s.c.put(t.Context(), "verify/job/"+key, inMemory([]byte(text)), "", condition{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.c.remove(t.Context(), s.keys.records(crashJob, "b1")); err != nil {
		t.Fatal(err)
	}
	put("records/b2.jsonl", "{}\n")
	put("records/b9.jsonl", "{}\n")
	put("accounts/b4.json", `{"v":1,"job":"jo`)
	put("bodies/ab/ab00000000000000.html", "nobody's")
	litter(t, dead, "b5")
	upload := ""
	for u, err := range s.c.uploads(t.Context(), "verify/") {
		if err != nil {
			t.Fatal(err)
		}
		upload = u.Key
	}
	tmp := strings.TrimSuffix(upload, "~2") + "~1"
	want := func(repaired bool) map[string]bool {
		return map[string]bool{
			"index, noted: verify/job/records/b1.jsonl":                 repaired,
			"index: verify/job/records/b2.jsonl":                        repaired,
			"orphan: verify/job/records/b9.jsonl":                       false,
			"torn: verify/job/accounts/b4.json":                         false,
			"orphan, noted: verify/job/bodies/ab/ab00000000000000.html": false,
			"temporary, noted: " + tmp:                                  repaired,
			"temporary, noted: " + upload:                               repaired,
		}
	}
	for _, repair := range []bool{false, true} {
		if diff := cmp.Diff(want(repair), kinds(findings(t, s, crashJob, repair))); diff != "" {
			t.Errorf("repair %v finds (-want +got):\n%s", repair, diff)
		}
	}
	left := want(false)
	for what, mended := range want(true) {
		if mended {
			delete(left, what)
		}
	}
	if diff := cmp.Diff(left, kinds(findings(t, s, crashJob, false))); diff != "" {
		t.Errorf("after the repair there is (-want +got):\n%s", diff)
	}
}

// A copy of the prefix is a store in a folder, and a copy of a folder is a store in a bucket. versitygw keeps objects
// as files, so that its folder serves as the copy.
func TestACopyIsAFileStore(t *testing.T) {
	server := s3test.Start(t)
	s := openParts(t, server.URL("copied/deep"))
	id, err := s.Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	bodies := [][]byte{random(1, 100), random(2, 300_000), random(3, 11<<20)}
	var refs []store.BodyRef
	for i, data := range bodies {
		refs = append(refs, commitOne(t, s, []string{"b1", "b2", "b3"}[i], data))
	}
	dir := filepath.Join(server.Dir(), "copied/deep")
	f, err := filestore.Open(t.Context(), dir, filestore.Options{Sync: filestore.SyncOff})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := f.Identity(t.Context()); got != id || err != nil {
		t.Errorf("the copy has identity %q, %v, want %q", got, err, id)
	}
	wantSame(t, f, s)
	for i, ref := range refs {
		wantBodyBytes(t, f, crashJob, ref.Body, bodies[i])
	}

	// And the other way: written as files, read as objects.
	u, err := f.Begin(t.Context(), crashJob, "b4")
	if err != nil {
		t.Fatal(err)
	}
	r := storetest.Record("b4", 1)
	ref, err := writeBody(t.Context(), u, bodies[0])
	if err != nil {
		t.Fatal(err)
	}
	r.Job, r.BodyJob, r.SHA256, r.Body, r.Bytes = crashJob, "", ref.SHA256, ref.Body, ref.Bytes
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Commit(t.Context(), account("b4", "d", r)); err != nil {
		t.Fatal(err)
	}
	wantSame(t, f, s)
	wantSound(t, s, crashJob)
}

func wantSame(t *testing.T, a, b store.Store) {
	t.Helper()
	if diff := cmp.Diff(contents(t, a), contents(t, b)); diff != "" {
		t.Errorf("the stores differ:\n%s", diff)
	}
}

// contents reads all accounts and records of a job.
func contents(t *testing.T, s store.Store) map[string]any {
	t.Helper()
	out := map[string]any{}
	for unit, err := range s.Units(t.Context(), crashJob) {
		if err != nil {
			t.Fatal(err)
		}
		a, err := s.Account(t.Context(), crashJob, unit)
		if err != nil {
			t.Fatal(err)
		}
		out[unit] = a
		for r, err := range s.Records(t.Context(), crashJob, unit) {
			if err != nil {
				t.Fatal(err)
			}
			out[r.ID] = r
		}
	}
	return out
}

// What cannot be read at the moment is not reported as damaged.
func TestVerifyTellsTroubleFromDamage(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openTest(t, s3test.URL(proxy.Addr(), "trouble"))
	commitOne(t, s, "b1", random(1, 100))
	proxy.Spoil(func(c s3test.Call) s3test.Fault {
		if c.Method == "GET" && strings.HasSuffix(c.Key, "/b1.json") {
			return s3test.Busy
		}
		return s3test.None
	})
	err := s.Verify(t.Context(), crashJob, true, func(f store.Finding) { t.Errorf("Verify found %+v", f) })
	if err == nil {
		t.Error("Verify of a store in trouble succeeded")
	}
}

// A part that a newer program keeps is left alone, with its upload.
func TestSweepLeavesWhatItDoesNotUnderstand(t *testing.T) {
	server := s3test.Start(t)
	s := openParts(t, server.URL("newer-part"))
	if _, err := s.c.start(t.Context(), s.keys.partBytes(crashJob, "r1", "0123"), ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.c.put(t.Context(), s.keys.partState(crashJob, "r1"), inMemory([]byte(`{"v":99}`)), "", condition{}); err != nil {
		t.Fatal(err)
	}
	if n, err := s.Sweep(t.Context(), crashJob, 0); n != 0 || err != nil {
		t.Errorf("Sweep removed %d, %v", n, err)
	}
	if left := leftovers(t, s, crashJob); len(left) != 2 {
		t.Errorf("after Sweep there is %q, want the part and its upload", left)
	}
	if _, err := s.Part(t.Context(), crashJob, "r1"); err == nil || !strings.Contains(err.Error(), "use a newer one") {
		t.Errorf("Part = %v", err)
	}
}
