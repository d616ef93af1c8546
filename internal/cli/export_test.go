package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/warcstore"
)

// stored makes a file store with a job of so many units of one record each.
func stored(t testing.TB, units int) (s *filestore.Store, url string) {
	t.Helper()
	dir := t.TempDir()
	s, err := filestore.Open(t.Context(), dir, filestore.Options{Sync: "off"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	for i := range units {
		storeUnit(t, s, fmt.Sprintf("b%d", i), 0, store.OK)
	}
	return s, "file:" + dir
}

// storeUnit stores a unit whose request is named after the batch.
func storeUnit(t testing.TB, s store.Store, batch string, generation int, outcome store.Outcome) {
	t.Helper()
	a, r := unitOf(batch, generation, outcome)
	u, err := s.Begin(t.Context(), "spring", a.Unit())
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Fatalf("commit of %s: won %t, %v", a.Unit(), won, err)
	}
}

// unitOf is what such a unit has.
func unitOf(batch string, generation int, outcome store.Outcome) (*store.Account, *store.Record) {
	r := &store.Record{ID: "r-" + batch, Job: "spring", Batch: batch, Generation: generation, URL: "http://a.example/" + batch,
		Method: "GET", Outcome: outcome, Attempts: 1, Worker: "w"}
	return &store.Account{V: store.AccountVersion, Job: "spring", Batch: batch, Generation: generation, Worker: "w", Delivery: "d",
		Entries: []store.Entry{{ID: r.ID, Fate: store.Recorded, Outcome: outcome}}}, r
}

func exportTo(t *testing.T, c *exportCommand) (stdout, stderr string, err error) {
	t.Helper()
	if err := c.Validate(); err != nil {
		t.Fatal(err)
	}
	var out, told bytes.Buffer
	err = c.Run(t.Context(), IO{Stdout: &out, Stderr: &told})
	return out.String(), told.String(), err
}

func TestExportHasOfEachRequestTheRecordOfTheHighestGeneration(t *testing.T) {
	s, url := stored(t, 2)
	storeUnit(t, s, "b1", 1, store.HTTPError)
	storeUnit(t, s, "b1", 2, store.Failed)
	got, told, err := exportTo(t, &exportCommand{Job: "spring", Store: url, Format: "csv", Out: "-",
		Fields: []string{"batch", "generation", "outcome"}, Where: []string{"batch=b1"}})
	if want := "batch,generation,outcome\r\nb1,2,failed\r\n"; got != want || err != nil || told != "" {
		t.Errorf("got %q, %q, %v, want %q", got, told, err, want)
	}
}

// cutShort is a store that is interrupted in the middle of being read.
type cutShort struct {
	store.Store
	interrupt func()
	left      int
}

func (s *cutShort) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	if s.left--; s.left == 0 {
		s.interrupt()
	}
	return s.Store.Records(ctx, job, unit)
}

func TestAnInterruptedExportLeavesTheFileAsItWas(t *testing.T) {
	s, url := stored(t, 20)
	for _, format := range []string{"jsonl", "csv", "parquet", "urls"} {
		t.Run(format, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "out")
			if err := os.WriteFile(path, []byte("as it was"), 0o644); err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			e := &exporting{exportCommand: &exportCommand{Job: "spring", Store: url, Format: format, Out: path},
				store: &cutShort{Store: s, interrupt: cancel, left: 10}}
			code := exitCode(IO{Stderr: io.Discard}, "fleet", e.run(ctx, IO{Stdout: io.Discard, Stderr: io.Discard}, path))
			if code != ExitInterrupted {
				t.Errorf("exit code %d, want %d", code, ExitInterrupted)
			}
			if data, err := os.ReadFile(path); string(data) != "as it was" || err != nil {
				t.Errorf("the file holds %q, %v", data, err)
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("%v left beside it", left)
			}
		})
	}
}

func TestAnInterruptedExportLeavesNoFolder(t *testing.T) {
	s, url := stored(t, 20)
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "new")} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		e := &exporting{exportCommand: &exportCommand{Job: "spring", Store: url, Format: "warc", Out: path},
			store: &cutShort{Store: s, interrupt: cancel, left: 10}}
		code := exitCode(IO{Stderr: io.Discard}, "fleet", e.run(ctx, IO{Stdout: io.Discard, Stderr: io.Discard}, path))
		if code != ExitInterrupted {
			t.Errorf("exit code %d, want %d", code, ExitInterrupted)
		}
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("%v left", left)
	}
}

func TestAStoreThatBreaksIsNoFaultOfTheFile(t *testing.T) {
	_, url := stored(t, 2)
	dir := strings.TrimPrefix(url, "file:")
	if err := os.WriteFile(filepath.Join(dir, "spring", "records", "b1.jsonl"), []byte("{"), 0o644); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "out")
	_, _, err := exportTo(t, &exportCommand{Job: "spring", Store: url, Format: "urls", Out: path})
	if err == nil || !strings.HasPrefix(err.Error(), "export job spring: read records of unit b1: ") {
		t.Errorf("got %v", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the file is there: %v", err)
	}
}

func TestExportReplacesWhatALinkLeadsTo(t *testing.T) {
	_, url := stored(t, 1)
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(file, link); err != nil {
		t.Skip("no symbolic links here:", err)
	}
	_, told, err := exportTo(t, &exportCommand{Job: "spring", Store: url, Format: "urls", Out: link})
	if err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(file); string(got) != "http://a.example/b0\n" {
		t.Errorf("the file holds %q", got)
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is one no more: %v", err)
	}
	if diff := cmp.Diff("exported 1 of 1 record of job spring to "+link+"\n", told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// archived makes a WARC store with a job of so many units of one record and one body each. Every unit is merged into a
// file of its own.
func archived(t *testing.T, units int) (dir string) {
	t.Helper()
	dir = t.TempDir()
	s, err := warcstore.Open(t.Context(), dir, warcstore.Options{Sync: "off", MergeSize: 1})
	if err != nil {
		t.Fatal(err)
	}
	for i := range units {
		batch := fmt.Sprintf("b%d", i)
		u, err := s.Begin(t.Context(), "spring", batch)
		if err != nil {
			t.Fatal(err)
		}
		defer u.Discard()
		url := fmt.Sprintf("http://a.example/%d", units-i)
		w, err := u.Body(t.Context(), store.BodyMeta{URL: url, Exchange: &store.Exchange{Method: "GET", Target: "/", Status: 200, Protocol: "HTTP/1.1"}})
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprint(w, "body of ", batch)
		ref, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		r := &store.Record{ID: "r-" + batch, Job: "spring", Batch: batch, URL: url, Method: "GET", Outcome: store.OK, Attempts: 1,
			Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body}
		if err := u.Add(r); err != nil {
			t.Fatal(err)
		}
		a := &store.Account{V: store.AccountVersion, Job: "spring", Batch: batch, Entries: []store.Entry{{ID: r.ID, Fate: store.Recorded, Outcome: store.OK}}}
		if _, _, err := u.Commit(t.Context(), a); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Compact(t.Context(), "spring"); err != nil { // with files as small as that
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func TestWhatAStoreHasPackedIsTakenAsItIs(t *testing.T) {
	from := archived(t, 2)
	packed := func(name string) string {
		data, err := os.ReadFile(filepath.Join(from, "spring", "warc", name))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	lines := strings.SplitAfter(packed("spring-00001.cdxj")+packed("spring-00002.cdxj"), "\n")
	slices.Sort(lines)
	for name, tt := range map[string]struct {
		where []string
		want  map[string]string // nil: made anew
		told  string
	}{
		"all of it": {nil, map[string]string{"spring-00001.warc.gz": packed("spring-00001.warc.gz"), "spring-00002.warc.gz": packed("spring-00002.warc.gz"),
			"spring.cdxj": strings.Join(lines, "")}, ": 2 files as the store has them\n"},
		"a part of it": {[]string{"batch=b1"}, nil, "exported 1 of 2 records of job spring to "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			_, told, err := exportTo(t, &exportCommand{Job: "spring", Store: "warc:" + from, Format: "warc", Out: dir, Where: tt.where})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(told, tt.told) {
				t.Errorf("told %q, want %q", told, tt.told)
			}
			got := map[string]string{}
			entries, _ := os.ReadDir(dir)
			for _, entry := range entries {
				data, _ := os.ReadFile(filepath.Join(dir, entry.Name()))
				got[entry.Name()] = string(data)
			}
			if diff := cmp.Diff(tt.want, got); tt.want != nil && diff != "" {
				t.Errorf("files (-want +got):\n%s", diff)
			}
			if len(got["spring-00000.warc.gz"]) == 0 && tt.want == nil {
				t.Errorf("files %v, want WARC made anew", got)
			}
		})
	}
}
