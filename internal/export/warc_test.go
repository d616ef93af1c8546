package export

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// bodies are those of records, by their Body.
type bodies map[string]string

func (b bodies) open(_ context.Context, r *store.Record) (io.ReadCloser, error) {
	text, ok := b[r.Body]
	if !ok {
		return nil, fmt.Errorf("body %s: %w", r.Body, store.ErrNotFound)
	}
	return io.NopCloser(strings.NewReader(text)), nil
}

// answered is a record with a body.
func (b bodies) answered(i int, body string) *store.Record {
	r := typical(i)
	r.Bytes, r.SHA256, r.Body = int64(len(body)), fmt.Sprintf("%x", sha256.Sum256([]byte(body))), fmt.Sprintf("bodies/%d", i)
	r.Headers["Content-Length"] = []string{fmt.Sprint(len(body))}
	b[r.Body] = body
	return r
}

// member is a record of a WARC file, read.
type member struct {
	kind, target, block string
	get                 func(string) string
}

// members reads a file, with its digests verified.
func members(t *testing.T, path string) (list []member) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z := warc.NewReader(f)
	defer z.Close()
	z.Verify = true
	for {
		rec, err := z.Next()
		if err == io.EOF {
			return list
		}
		if err != nil {
			t.Fatal(err)
		}
		block, err := io.ReadAll(rec)
		if err != nil {
			t.Fatal(err)
		}
		kept := *rec
		list = append(list, member{string(rec.Type()), rec.Get("WARC-Target-URI"), string(block), kept.Get})
	}
}

func TestWARCHasEveryRequestAndItsBody(t *testing.T) {
	store1 := bodies{}
	plain := store1.answered(1, "plain text")
	coded := store1.answered(2, "decoded text")
	coded.Headers["Content-Encoding"], coded.Headers["Content-Length"] = []string{"gzip"}, []string{"7"}
	empty := store1.answered(3, "")
	empty.Body = ""
	unchanged := typical(4)
	unchanged.Status, unchanged.Unchanged, unchanged.BodyJob = 304, true, "winter"
	lost := typical(5)
	lost.Body = ""
	failed := bare()

	dir := t.TempDir()
	o := WARCOptions{Dir: dir, Name: "spring", OpenBody: store1.open, Options: Options{CreatedBy: "fetchfleet version v1"}}
	records := []*store.Record{plain, coded, empty, unchanged, lost, failed}
	files, err := WriteWARC(t.Context(), source(records...), o)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"spring-00000.warc.gz", "spring.cdxj"}, files); diff != "" {
		t.Fatalf("files (-want +got):\n%s", diff)
	}
	got := members(t, filepath.Join(dir, files[0]))
	var kinds []string
	for _, m := range got {
		kinds = append(kinds, m.kind)
	}
	want := strings.Fields("warcinfo response metadata response metadata response metadata revisit metadata response metadata metadata")
	if diff := cmp.Diff(want, kinds); diff != "" {
		t.Fatalf("records (-want +got):\n%s", diff)
	}
	if !strings.Contains(got[0].block, "software: fetchfleet version v1\r\n") || !strings.Contains(got[0].block, "isPartOf: spring\r\n") {
		t.Errorf("warcinfo: %q", got[0].block)
	}
	for i, says := range map[int][]string{
		1: {"HTTP/1.1 200 ", "Content-Length: 10\r\n", "\r\n\r\nplain text"},
		3: {"X-Archive-Orig-Content-Encoding: gzip\r\n", "X-Archive-Orig-Content-Length: 7\r\n", "\r\nContent-Length: 12\r\n", "\r\n\r\ndecoded text"},
		5: {"Content-Length: 0\r\n"},
		7: {"HTTP/1.1 304 "},
	} {
		for _, part := range says {
			if !strings.Contains(got[i].block, part) {
				t.Errorf("record %d lacks %q:\n%s", i, part, got[i].block)
			}
		}
	}
	if strings.Contains(got[3].block, "\r\nContent-Encoding:") || strings.Contains(got[1].block, "X-Archive-Orig") {
		t.Errorf("headers:\n%s\n%s", got[1].block, got[3].block)
	}
	if got[9].get("WARC-Truncated") != "unspecified" || got[7].get("WARC-Profile") != warc.ServerNotModified {
		t.Errorf("truncated %q, profile %q", got[9].get("WARC-Truncated"), got[7].get("WARC-Profile"))
	}
	for i, r := range records {
		m := got[min(2+2*i, len(got)-1)]
		line, err := store.AppendRecord(nil, r)
		if err != nil {
			t.Fatal(err)
		}
		if m.block != "fetchfleet-record: "+string(line)+"\r\n" || m.target != targetOf(r) {
			t.Errorf("metadata of %s: %s", r.ID, m.block)
		}
		if refers := m.get("WARC-Refers-To"); r.Status > 0 && refers != got[1+2*i].get("WARC-Record-ID") || r.Status == 0 && refers != "" {
			t.Errorf("metadata of %s refers to %q", r.ID, refers)
		}
	}
}

func TestTheIndexLeadsToEveryCaptureInEveryFile(t *testing.T) {
	store1, random := bodies{}, rand.New(rand.NewPCG(1, 2))
	var records []*store.Record
	for i := range 200 {
		body := make([]byte, 4096)
		for j := range body {
			body[j] = byte(random.Uint32())
		}
		records = append(records, store1.answered(i, string(body)))
	}
	dir := t.TempDir()
	files, err := WriteWARC(t.Context(), source(records...), WARCOptions{Dir: dir, Name: "spring", OpenBody: store1.open, Split: 100_000})
	if err != nil {
		t.Fatal(err)
	}
	if len(files) < 8 {
		t.Errorf("files %v, want one for each 100,000 bytes", files)
	}
	index, err := os.ReadFile(filepath.Join(dir, "spring.cdxj"))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(strings.TrimSuffix(string(index), "\n"), "\n")
	if !slices.IsSorted(lines) {
		t.Error("the index is not sorted")
	}
	found := map[string]bool{}
	for _, line := range lines {
		c, name, ok := warc.ParseCDXJ([]byte(line))
		if !ok {
			t.Fatalf("no line of an index: %s", line)
		}
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		z := warc.NewReader(bytes.NewReader(data[c.Offset : c.Offset+c.Length]))
		rec, err := z.Next()
		if err != nil {
			t.Fatal(err)
		}
		block, _ := io.ReadAll(rec)
		_, body, _ := strings.Cut(string(block), "\r\n\r\n")
		if fmt.Sprintf("%x", sha256.Sum256([]byte(body))) != c.SHA256 || rec.Get("WARC-Target-URI") != c.URL {
			t.Errorf("%s leads to %s", line, rec.Get("WARC-Target-URI"))
		}
		z.Close()
		found[c.URL] = true
	}
	if len(found) != len(records) {
		t.Errorf("%d of %d captures found", len(found), len(records))
	}
}

func TestABodyThatIsNotThatOfItsRecordIsAnError(t *testing.T) {
	tests := map[string]struct {
		body string
		says string
	}{
		"other bytes":   {"plein text", "is damaged: its SHA-256 is"},
		"too short":     {"plain", "unexpected EOF"},
		"too long":      {"plain text and more", "a record of"},
		"none any more": {"", "not found"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			store1 := bodies{}
			r := store1.answered(1, "plain text")
			store1[r.Body] = tt.body
			if tt.body == "" {
				delete(store1, r.Body)
			}
			_, err := WriteWARC(t.Context(), source(r), WARCOptions{Dir: t.TempDir(), Name: "spring", OpenBody: store1.open})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want it to say %q", err, tt.says)
			}
		})
	}
}

func TestWhatIsThereIsNotOverwritten(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "spring-00000.warc.gz"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := WriteWARC(t.Context(), source(), WARCOptions{Dir: dir, Name: "spring"}); !errors.Is(err, os.ErrExist) {
		t.Errorf("got %v", err)
	}
}

func TestSorterSortsMoreThanFitsIntoMemory(t *testing.T) {
	for _, lines := range []int{0, 1, 50, 5000} {
		t.Run(fmt.Sprint(lines, " lines"), func(t *testing.T) {
			dir, want := t.TempDir(), map[string]bool{}
			s := sorter{dir: dir, limit: 1000}
			for i := range lines {
				line := fmt.Sprintf("%08d %s\n", i*7919%100_003, time.Duration(i))
				want[line] = true
				if err := s.add([]byte(line)); err != nil {
					t.Fatal(err)
				}
			}
			if (len(s.runs) > 10) != (lines == 5000) {
				t.Errorf("%d runs", len(s.runs))
			}
			path := filepath.Join(dir, "index")
			if err := s.writeTo(path); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != strings.Join(slices.Sorted(maps.Keys(want)), "") {
				t.Error("lines are missing or not in order")
			}
			if left, _ := os.ReadDir(dir); len(left) != 1 {
				t.Errorf("%d files left", len(left))
			}
		})
	}
}

func BenchmarkWARC(b *testing.B) {
	const n = 20_000
	page := strings.Repeat("<p>a page of two KiB, of which there are many</p>\n", 41)
	digest := fmt.Sprintf("%x", sha256.Sum256([]byte(page)))
	each := func(i int) *store.Record {
		r := typical(i)
		r.Bytes, r.SHA256 = int64(len(page)), digest
		return r
	}
	opened := func(context.Context, *store.Record) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(page)), nil
	}
	for b.Loop() {
		if _, err := WriteWARC(b.Context(), endless(n, each), WARCOptions{Dir: b.TempDir(), Name: "spring", OpenBody: opened}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
}
