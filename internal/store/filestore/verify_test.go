package filestore

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func findings(t *testing.T, s *Store, job string, repair bool) []store.Finding {
	t.Helper()
	list := []store.Finding{}
	if err := s.Verify(t.Context(), job, repair, func(f store.Finding) { list = append(list, f) }); err != nil {
		t.Fatalf("Verify: %v", err)
	}
	slices.SortFunc(list, func(a, b store.Finding) int { return strings.Compare(a.Where, b.Where) })
	return list
}

// commitUnit commits unit i of the crash test's.
func commitUnit(t *testing.T, s *Store, i int) string {
	t.Helper()
	if err := commitCrashUnit(s, i); err != nil {
		t.Fatal(err)
	}
	name, _, _ := crashUnit(i)
	return name
}

func writeAt(t *testing.T, path, content string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestVerifyFindsNothingInASoundJob(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for i := range 10 {
		commitUnit(t, s, i)
	}
	if got := findings(t, s, crashJob, true); len(got) != 0 {
		t.Errorf("found %+v", got)
	}
	if got := findings(t, s, "no-such-job", true); len(got) != 0 {
		t.Errorf("found %+v in a job that is not there", got)
	}
	if err := s.Verify(t.Context(), "../x", false, func(store.Finding) {}); err == nil {
		t.Error("Verify took a bad name")
	}
}

func TestVerifyNamesWhatIsNotThisDrivers(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	unit, lost := commitUnit(t, s, 3), commitUnit(t, s, 4)
	job := filepath.Join(s.Dir(), crashJob)
	writeAt(t, filepath.Join(job, "accounts", "notes.txt"), "mine")
	writeAt(t, filepath.Join(job, "accounts", "a b.json"), "{}")
	writeAt(t, filepath.Join(job, "accounts", ".DS_Store"), "")
	writeAt(t, filepath.Join(job, "records", unit+".jsonl.bak"), "")
	writeAt(t, filepath.Join(job, "bodies", "ab", "mine"), "12345")
	if err := os.Remove(s.accountPath(crashJob, lost)); err != nil {
		t.Fatal(err)
	}
	want := []store.Finding{
		{Kind: "structure", Where: "job/accounts/a b.json", What: "is no file of this store: move it away"},
		{Kind: "structure", Where: "job/accounts/notes.txt", What: "is no file of this store: move it away"},
		{Kind: "orphan", Where: "job/bodies", Note: true,
			What: "bodies that no record of this job refers to, left by units that were not committed: 1, 5 bytes in all; they may be removed when the job has ended"},
		{Kind: "structure", Where: "job/records/" + unit + ".jsonl.bak", What: "is no file of this store: move it away"},
		{Kind: "orphan", Where: "job/records/" + lost + ".jsonl",
			What: "are records without an account: the account was lost, or the file was put there by hand"},
	}
	slices.SortFunc(want, func(a, b store.Finding) int { return strings.Compare(a.Where, b.Where) })
	for _, repair := range []bool{true, false} {
		if diff := cmp.Diff(want, findings(t, s, crashJob, repair)); diff != "" {
			t.Errorf("repair %v (-want +got):\n%s", repair, diff)
		}
	}
}

func TestVerifyCountsWhatThereIsMuchOf(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	commitUnit(t, s, 3)
	for i := range 50 {
		writeAt(t, filepath.Join(s.Dir(), crashJob, "records", fmt.Sprintf("lost%d.jsonl", i)), "")
		writeAt(t, filepath.Join(s.Dir(), crashJob, "bodies", "cd", fmt.Sprint(i)), "x")
	}
	got := findings(t, s, crashJob, false)
	i := slices.IndexFunc(got, func(f store.Finding) bool { return f.What == "30 more files of records without an account" })
	if len(got) != mostNamed+2 || i < 0 {
		t.Errorf("%d findings: %+v", len(got), got)
	}
}

func TestVerifyMendsTheRemainsOfTheDead(t *testing.T) {
	dir := t.TempDir()
	s, dead := openTest(t, dir, Options{Worker: "mine"}), openTest(t, dir, Options{Worker: "dead"})
	commitUnit(t, s, 3)
	crashUnitBegun(t, dead, 4)
	alive, account := crashUnitBegun(t, s, 9)
	old := time.Now().Add(-2 * temporaryAge)
	for _, name := range tmpFiles(t, s, crashJob) {
		if err := os.Chtimes(s.tmpPath(crashJob, name), old, old); err != nil {
			t.Fatal(err)
		}
	}
	// Of a third one the large body is still growing, though another has been waiting for long.
	writeAt(t, s.tmpPath(crashJob, "busy~00~1~1.body"), "whole")
	if err := os.Chtimes(s.tmpPath(crashJob, "busy~00~1~1.body"), old, old); err != nil {
		t.Fatal(err)
	}
	writeAt(t, s.tmpPath(crashJob, "busy~00~1~2.body"), "grow")

	problems := func(repair bool) (n, mended int, notes []string) {
		for _, f := range findings(t, s, crashJob, repair) {
			switch {
			case f.Note && f.Kind == "temporary":
				notes = append(notes, f.What)
			case f.Mended:
				mended++
			case !f.Note:
				n++
			}
		}
		return n, mended, notes
	}
	wantNote := "3 files of units that are being written, or whose worker died less than 1h0m0s ago"
	for _, step := range []struct {
		repair    bool
		n, mended int
	}{{false, 1, 0}, {true, 0, 1}, {true, 0, 0}} {
		n, mended, notes := problems(step.repair)
		if n != step.n || mended != step.mended || len(notes) != 1 || notes[0] != wantNote {
			t.Errorf("repair %v: %d problems, %d mended, notes %q; want %d, %d", step.repair, n, mended, notes, step.n, step.mended)
		}
	}
	if _, won, err := alive.Commit(t.Context(), account); err != nil || !won {
		t.Errorf("Commit of the live unit: won %v, %v", won, err)
	}
	wantUnitsWhole(t, s)
}

// Twice as many files may cost twice as many looks, and not more.
func TestVerifyIsLinear(t *testing.T) {
	looks := func(units int) int {
		s := openTest(t, t.TempDir(), Options{Sync: SyncOff})
		for i := range units {
			u, err := s.Begin(t.Context(), crashJob, fmt.Sprint("b", i))
			if err != nil {
				t.Fatal(err)
			}
			w, err := u.Body(t.Context(), store.BodyMeta{})
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprint(w, "body ", i)
			ref, err := w.Finish()
			if err != nil {
				t.Fatal(err)
			}
			if err := u.Add(&store.Record{ID: fmt.Sprint("r", i), Job: crashJob, Body: ref.Body}); err != nil {
				t.Fatal(err)
			}
			if _, _, err := u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: fmt.Sprint("b", i)}); err != nil {
				t.Fatal(err)
			}
		}
		v := &verification{s: s, ctx: t.Context(), job: crashJob, known: make(map[bodyKey]bool),
			found: func(f store.Finding) { t.Errorf("found %+v", f) }}
		for _, part := range []func() error{v.accounts, v.records, v.bodies, v.temporaries} {
			if err := part(); err != nil {
				t.Fatal(err)
			}
		}
		return v.looks
	}
	few, many := looks(1000), looks(10_000)
	t.Logf("%d looks for 1,000 units, %d for 10,000", few, many)
	if many > 5*10_000+1000 || many > 11*few {
		t.Errorf("%d looks for 10,000 units, %d for 1,000", many, few)
	}
}
