package warcstore

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

func wantSays(t *testing.T, what string, err error, says ...string) {
	t.Helper()
	for _, s := range says {
		if err == nil || !strings.Contains(err.Error(), s) {
			t.Errorf("%s = %v, want it to say %q", what, err, s)
		}
	}
}

func errOf[T any](_ T, err error) error { return err }

func TestStartsAreRefusedWithWhatToDo(t *testing.T) {
	with := func(name, content string) string {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	made := with(layoutFile, `{"layout":1,"identity":"0123456789abcdef0123","compress":"gzip"}`+"\n")
	tests := map[string]struct {
		dir  string
		o    Options
		says []string
	}{
		"another compression":         {made, Options{Compress: "zstd"}, []string{made, "compress=gzip", "another folder"}},
		"a newer layout":              {with(layoutFile, `{"layout":2,"identity":"0123456789abcdef0123","compress":"gzip"}`+"\n"), Options{}, []string{"version 2", "use a newer one"}},
		"an unknown compression":      {with(layoutFile, `{"layout":1,"identity":"0123456789abcdef0123","compress":"br"}`+"\n"), Options{}, []string{"use a newer one"}},
		"a file store":                {with(".fetchfleet-store", ""), Options{}, []string{"store of files", "file:DIR", "another folder"}},
		"a file":                      {filepath.Join(made, layoutFile), Options{}, []string{"it is a file"}},
		"a bad sync":                  {made, Options{Sync: "x"}, []string{"batch"}},
		"a bad compress":              {made, Options{Compress: "x"}, []string{"gzip", "zstd"}},
		"nothing where there must be": {t.TempDir(), Options{MustExist: true}, []string{"no WARC store", "name the store"}},
		"no dedupe index":             {made, Options{DedupeIndex: filepath.Join(made, "x.cdxj")}, []string{"dedupe index", "x.cdxj"}},
		"a dedupe index of elsewhere": {made, Options{DedupeIndex: with("x.cdxj", "") + "/x.cdxj"}, []string{"does not lie in this store"}},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			s, err := Open(t.Context(), tt.dir, tt.o)
			if err == nil {
				s.Close()
			}
			wantSays(t, "Open", err, tt.says...)
		})
	}
	if s := openTest(t, made, Options{}); errOf(s.Identity(t.Context())) != nil || s.layout.Identity != "0123456789abcdef0123" {
		t.Errorf("the layout is %+v", s.layout)
	}
}

func TestANewerUnitIsRefused(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	storeUnit(t, s, "b1", mixed()[0])
	a := &warcunit.Stored{Account: &store.Account{V: 1, Job: testJob, Batch: "b2"}, Layout: warcunit.LayoutVersion + 1}
	newer, err := a.AppendTo(nil, warc.Gzip, 0, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(s.unitPath(testJob, "b2", warc.Gzip), newer, 0o644); err != nil {
		t.Fatal(err)
	}
	wantSays(t, "Account", errOf(s.Account(t.Context(), testJob, "b2")), "b2", "layout version 2", "use a newer one")
}

// records returns how many records of each type the files of a store hold.
func memberTypes(t *testing.T, dir string) map[warc.Type]int {
	t.Helper()
	count := map[warc.Type]int{}
	for _, path := range filesWith(t, dir, ".warc.gz") {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		r := warc.NewReader(bytes.NewReader(data))
		for {
			rec, err := r.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			count[rec.Type()]++
		}
		r.Close()
	}
	return count
}

func TestTheSamePayloadIsStoredOnce(t *testing.T) {
	page := text(1, 5000)
	at := func(url string, gzipped bool) answer {
		return answer{url: "http://x.test/" + url, status: 200, body: page, gzipped: gzipped}
	}
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	first := storeUnit(t, s, "b1", at("1", false), at("2", false))
	abandoned, _, _, err := beginUnit(t, s, "b2", answer{url: "http://x.test/other", status: 200, body: text(2, 5000)})
	if err != nil {
		t.Fatal(err)
	}
	second := storeUnit(t, s, "b3", at("3", false), at("4", true), at("5", true))
	abandoned.Discard()
	third := storeUnit(t, s, "b4", answer{url: "http://x.test/other", status: 200, body: text(2, 5000)})
	if got := memberTypes(t, dir); got[warc.Response] != 3 || got[warc.Revisit] != 3 {
		t.Errorf("the store holds %v, want three responses and three revisits", got)
	}
	if first[1].Body != first[0].Body || second[0].Body != first[0].Body || second[2].Body != second[1].Body {
		t.Errorf("bodies are %s, %s; %s, %s, %s", first[0].Body, first[1].Body, second[0].Body, second[1].Body, second[2].Body)
	}
	if !strings.HasPrefix(third[0].Body, "b4#") {
		t.Errorf("a body refers to %s, whose unit was dropped", third[0].Body)
	}
	if err := s.Compact(t.Context(), testJob); err != nil {
		t.Fatal(err)
	}
	for _, r := range append(first, second...) {
		wantBody(t, s, r, page)
	}
	another := openTest(t, dir, Options{})
	if r := storeUnit(t, another, "b5", at("6", false)); !strings.HasPrefix(r[0].Body, "b5#") {
		t.Errorf("another worker's body refers to %s without an index", r[0].Body)
	}
	wantSound(t, s)
}

func TestADedupeIndexReachesAcrossJobs(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	answers := mixed()
	storeUnit(t, s, "b1", answers...)
	storeUnit(t, s, "b2", answer{url: "http://x.test/2", status: 200, body: text(77, 700)})
	if err := s.Compact(t.Context(), testJob); err != nil {
		t.Fatal(err)
	}
	later := openTest(t, dir, Options{DedupeIndex: s.jobPath(testJob, mergedFolder)})
	u, err := later.Begin(t.Context(), "later", "b1")
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range append(answers[:3:3], answers[5], answer{url: "http://x.test/2", status: 200, body: text(77, 700)}) {
		ref := fetch(t, u, a)
		if !strings.HasPrefix(ref.Body, "../"+testJob+"/b") {
			t.Errorf("%s has body %s, want one of the earlier job", a.url, ref.Body)
		}
		wantBody(t, later, &store.Record{Job: "later", Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body}, a.body)
	}
	if ref := fetch(t, u, answer{url: "http://x.test/cut", status: 200, body: answers[7].body}); !strings.HasPrefix(ref.Body, "b1#") {
		t.Errorf("a body refers to %s, which was cut", ref.Body)
	}
}

func TestLateUnitsOfMergedNamesLose(t *testing.T) {
	dir := t.TempDir()
	s, slow := openTest(t, dir, Options{}), openTest(t, dir, Options{})
	late, account, _, err := beginUnit(t, slow, "b1", answer{url: "http://x.test/", status: 200, body: []byte("late")})
	if err != nil {
		t.Fatal(err)
	}
	// The winner comes, and is merged, between the late one's look and its link.
	var won []*store.Record
	slow.step = func(step string) {
		if step != "durable" || won != nil {
			return
		}
		won = storeUnit(t, s, "b1", answer{url: "http://x.test/", status: 200, body: []byte("first")})
		if err := s.Compact(t.Context(), testJob); err != nil {
			t.Error(err)
		}
	}
	winner, isLate, err := late.Commit(t.Context(), account)
	if err != nil || isLate || winner == nil {
		t.Errorf("Commit of the late unit: won %v, %v", isLate, err)
	}
	if loose, _ := s.unmerged(t.Context(), testJob); len(loose) > 0 {
		t.Errorf("units %q have files of their own", loose)
	}
	wantBody(t, slow, won[0], []byte("first"))
	wantSound(t, s)
}

func TestCompactIsForOneAtATime(t *testing.T) {
	dir := t.TempDir()
	s, other := openTest(t, dir, Options{}), openTest(t, dir, Options{})
	storeUnit(t, s, "b1", mixed()...)
	s.step = func(step string) {
		if step == "merged" {
			if err := other.Compact(t.Context(), testJob); !errors.Is(err, store.ErrBusy) {
				t.Errorf("a second Compact = %v, want ErrBusy", err)
			}
			if err := other.Verify(t.Context(), testJob, true, func(store.Finding) {}); !errors.Is(err, store.ErrBusy) {
				t.Errorf("a repair meanwhile = %v, want ErrBusy", err)
			}
		}
	}
	for range 2 {
		if err := s.Compact(t.Context(), testJob); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(t.Context(), "nobody"); err != nil {
		t.Errorf("Compact of a job that is not there: %v", err)
	}
	if files := filesWith(t, dir, ".warc.gz"); len(files) != 1 {
		t.Errorf("files are %q, want one", files)
	}
}

func TestManyUnitsAreFoundInManyFiles(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{Sync: SyncOff, MergeSize: 200_000})
	want := map[string]*store.Record{}
	for i := range 600 {
		name := "b" + string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		want[name] = storeUnit(t, s, name, answer{url: "http://x.test/" + name, status: 200, body: text(uint64(i), 900)})[0]
		if i == 300 || i == 599 {
			if err := s.Compact(t.Context(), testJob); err != nil {
				t.Fatal(err)
			}
		}
	}
	if files := filesWith(t, dir, unitsExt); len(files) < 3 {
		t.Errorf("merged files are %q, want more", files)
	}
	seen := 0
	for unit, err := range s.Units(t.Context(), testJob) {
		if err != nil || want[unit] == nil {
			t.Fatalf("Units yields %s, %v", unit, err)
		}
		seen++
		for r, err := range s.Records(t.Context(), testJob, unit) {
			if err != nil || r.ID != want[unit].ID {
				t.Errorf("unit %s has record %v, %v", unit, r, err)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d units are listed, want %d", seen, len(want))
	}
	for _, name := range []string{"a", "b", "baa", "bzz", "c"} {
		if _, err := s.Account(t.Context(), testJob, name); !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Account(%s) = %v, want ErrNotFound", name, err)
		}
	}
}

func TestAFailedFlushIsNotForgotten(t *testing.T) {
	tests := map[string]struct {
		answers []answer
		named   bool
		large   bool
	}{
		"a small unit without a name": {answers: mixed()[:3], named: !disk.HasProc()},
		"a small unit with a name":    {answers: mixed()[:3], named: true},
		"a large unit":                {answers: []answer{{url: "http://x.test/", status: 200, body: random(1, 3<<20)}}, large: true},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir, Options{})
			s.named.Store(tt.named)
			if _, err := s.Identity(t.Context()); err != nil {
				t.Fatal(err)
			}
			lossy := disktest.NewLossy(t, dir)
			s.sync = disk.NewSyncer(lossy.Flush)
			u, account, _, err := beginUnit(t, s, "b1", tt.answers...)
			if err != nil {
				t.Fatal(err)
			}
			broken := errors.New("write-back failed")
			lossy.FailNext(broken)
			if _, _, err := u.Commit(t.Context(), account); !errors.Is(err, broken) {
				t.Errorf("Commit = %v, want the error of the flush", err)
			}
			if _, err := s.Account(t.Context(), testJob, "b1"); !errors.Is(err, store.ErrNotFound) {
				t.Errorf("Account = %v, want ErrNotFound", err)
			}
			_, won, err := u.Commit(t.Context(), account)
			if tt.large {
				if !errors.Is(err, disk.ErrLost) {
					t.Errorf("Commit again of a file that may be lost = %v, want ErrLost", err)
				}
				if err := u.Discard(); err != nil {
					t.Error(err)
				}
				storeUnit(t, s, "b1", tt.answers...)
			} else if err != nil || !won {
				t.Errorf("Commit again, of what is written anew: won %v, %v", won, err)
			}
			if left := tmpFiles(t, s); len(left) > 0 {
				t.Errorf("tmp holds %q", left)
			}
			lossy.Cut()
			wantUnit(t, openTest(t, dir, Options{}), "b1", tt.answers)
		})
	}
}

func TestAFailedLastFlushIsMadeGood(t *testing.T) {
	for claim, merged := range map[string]bool{"found as it is": false, "merged meanwhile": true} {
		t.Run(claim, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir, Options{})
			if _, err := s.Identity(t.Context()); err != nil {
				t.Fatal(err)
			}
			lossy := disktest.NewLossy(t, dir)
			s.sync = disk.NewSyncer(lossy.Flush)
			u, account, _, err := beginUnit(t, s, "b1", mixed()[:3]...)
			if err != nil {
				t.Fatal(err)
			}
			broken := errors.New("write-back failed")
			s.step = func(step string) {
				if step == "linked" {
					lossy.FailNext(broken)
				}
			}
			if _, _, err := u.Commit(t.Context(), account); !errors.Is(err, broken) {
				t.Fatalf("Commit = %v, want the error of the flush", err)
			}
			if merged { // its own flushes are by file, which succeed
				if err := s.Compact(t.Context(), testJob); err != nil {
					t.Fatal(err)
				}
			}
			if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
				t.Errorf("Commit again: won %v, %v", won, err)
			}
			if left := tmpFiles(t, s); len(left) > 0 {
				t.Errorf("tmp holds %q", left)
			}
			if !merged {
				lossy.Cut()
			}
			wantUnit(t, openTest(t, dir, Options{}), "b1", mixed()[:3])
		})
	}
}

// wantUnit demands that a unit is there and has these answers.
func wantUnit(t *testing.T, s *Store, unit string, answers []answer) {
	t.Helper()
	n := 0
	for r, err := range s.Records(t.Context(), testJob, unit) {
		if err != nil || n >= len(answers) {
			t.Fatalf("record %d of unit %s: %v, %v", n, unit, r, err)
		}
		wantBody(t, s, r, answers[n].body)
		n++
	}
	if n != len(answers) {
		t.Errorf("unit %s has %d records, want %d", unit, n, len(answers))
	}
	wantSound(t, s)
}
