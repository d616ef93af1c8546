package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
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
	r := &store.Record{ID: "r-" + batch, Job: "spring", Batch: batch, Generation: generation, URL: "http://a.example/" + batch,
		Method: "GET", Outcome: outcome, Attempts: 1, Worker: "w"}
	a := &store.Account{V: store.AccountVersion, Job: "spring", Batch: batch, Generation: generation, Worker: "w", Delivery: "d",
		Entries: []store.Entry{{ID: r.ID, Fate: store.Recorded, Outcome: outcome}}}
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

// packing is a store whose jobs are packed into files.
type packing struct {
	store.Store
	packed bool
	files  []string
}

func (s *packing) Compact(context.Context, string) error {
	s.packed = true
	return nil
}

func (s *packing) Packed(context.Context, string) ([]string, error) {
	if !s.packed {
		return nil, nil
	}
	return s.files, nil
}

func TestWhatAStoreHasPackedIsTakenAsItIs(t *testing.T) {
	s, url := stored(t, 2)
	from := t.TempDir()
	var files []string
	for name, text := range map[string]string{"spring-1.warc.gz": "one", "spring-1.cdxj": "a\nc\n", "spring-2.warc.gz": "two", "spring-2.cdxj": "b\nd\n"} {
		files = append(files, filepath.Join(from, name))
		if err := os.WriteFile(files[len(files)-1], []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, tt := range map[string]struct {
		where []string
		want  map[string]string // nil: made anew
		told  string
	}{
		"all of it":    {nil, map[string]string{"spring-1.warc.gz": "one", "spring-2.warc.gz": "two", "spring.cdxj": "a\nb\nc\nd\n"}, ": 2 files as the store has them\n"},
		"a part of it": {[]string{"batch=b1"}, nil, "exported 1 of 2 records of job spring to "},
	} {
		t.Run(name, func(t *testing.T) {
			dir := filepath.Join(t.TempDir(), "out")
			e := &exporting{exportCommand: &exportCommand{Job: "spring", Store: url, Format: "warc", Out: dir, Where: tt.where},
				store: &packing{Store: s, files: files}}
			var told bytes.Buffer
			if err := e.run(t.Context(), IO{Stdout: io.Discard, Stderr: &told}, dir); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(told.String(), tt.told) {
				t.Errorf("told %q, want %q", &told, tt.told)
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
