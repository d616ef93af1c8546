package open

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/several"
)

func TestOfOneStoreNothingMoreIsMade(t *testing.T) {
	s, err := Several(t.Context(), []string{t.TempDir()}, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, ok := s.(*filestore.Store); !ok {
		t.Errorf("Several opened a %T", s)
	}
}

func TestSeveral(t *testing.T) {
	t.Chdir(t.TempDir())
	var out bytes.Buffer
	s, err := Several(t.Context(), []string{"one", "jsonl:-", "file:two"}, Options{Stdout: &out, Sync: "off"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if first := several.First(s).String(); !strings.HasSuffix(first, "one") {
		t.Errorf("the first store is %s", first)
	}
	u, err := s.Begin(t.Context(), "job", "b1")
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Add(&store.Record{ID: "r1", Job: "job", Batch: "b1"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Commit(t.Context(), &store.Account{V: 1, Job: "job", Batch: "b1"}); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(out.String(), `{"id":"r1"`) {
		t.Errorf("standard output has %q", out.String())
	}
	for _, dir := range []string{"one", "two"} {
		if _, err := os.Stat(filepath.Join(dir, "job", "accounts", "b1.json")); err != nil {
			t.Error(err)
		}
	}
}

func TestSeveralRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.Mkdir("a", 0o755); err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Symlink("a", "b"); err != nil {
			t.Fatal(err)
		}
	}
	tests := map[string]struct {
		urls []string
		says string
	}{
		"none":                           {nil, "no store given"},
		"an empty one":                   {[]string{"a", ""}, "no store given"},
		"standard output alone":          {[]string{"jsonl:-"}, "serves only after a store that does"},
		"standard output first":          {[]string{"jsonl:-", "a"}, "put it after another"},
		"lines in a file":                {[]string{"a", "jsonl:out"}, "write jsonl:- and send that to a file"},
		"standard output twice":          {[]string{"a", "jsonl:-", "jsonl:-"}, "are the same store"},
		"one folder in two spellings":    {[]string{"a", "file:./a"}, `"a" and "file:./a" are the same store: name it once`},
		"a password is not shown":        {[]string{"a", "s4://u:hunter2@h/x"}, "u:xxxxx@"},
		"a kind that is unknown":         {[]string{"a", "ftp://host/x"}, "supported: file:DIR, file:///DIR or a path; warc:DIR"},
		"a kind with a slip of the pen":  {[]string{"a", "josnl:-"}, "did you mean jsonl:?"},
		"a kind with a letter too many":  {[]string{"files:a"}, "did you mean file:?"},
		"a kind like none that there is": {[]string{"a", "mongodb://x"}, `unknown kind of store "mongodb"; supported`},
	}
	if runtime.GOOS != "windows" {
		tests["one folder under two names"] = struct {
			urls []string
			says string
		}{[]string{"a", "b"}, `"a" and "b" are the same store`}
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			s, err := Several(t.Context(), tt.urls, Options{Stdout: &bytes.Buffer{}})
			if err == nil {
				s.Close()
				t.Fatalf("Several(%q) succeeded", tt.urls)
			}
			if s != nil {
				t.Error("there is a store beside the error")
			}
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Several(%q) says %q, want it to say %q", tt.urls, err, tt.says)
			}
		})
	}
}

func TestAReaderTakesOne(t *testing.T) {
	for url, says := range map[string]string{
		"file:a,jsonl:-": "2 stores are named where one is read: name one of file:a, jsonl:-",
		"jsonl:-":        "serves only after a store that does",
	} {
		if s, err := Open(t.Context(), url, Options{MustExist: true}); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("Open(%q) = %v, %v, want it to say %q", url, s, err, says)
		}
	}
}

func TestSplit(t *testing.T) {
	tests := map[string][]string{
		"":                          {""},
		"out":                       {"out"},
		"file:out":                  {"file:out"},
		"file:out,jsonl:-":          {"file:out", "jsonl:-"},
		"out, FILE:///copy,jsonl:-": {"out", "FILE:///copy", "jsonl:-"},
		"a,b":                       {"a,b"},
		"file:a,b,file:c":           {"file:a,b", "file:c"},
		"pg://h1:5432,h2:5432/db":   {"pg://h1:5432,h2:5432/db"},
	}
	for list, want := range tests {
		if diff := cmp.Diff(want, Split(list)); diff != "" {
			t.Errorf("Split(%q) (-want +got):\n%s", list, diff)
		}
	}
}

func TestWritesStdout(t *testing.T) {
	if !WritesStdout([]string{"a", "JSONL:-"}) || WritesStdout([]string{"jsonl", "file:jsonl"}) {
		t.Error("WritesStdout does not tell")
	}
}

func TestNearest(t *testing.T) {
	for a, tt := range map[string]struct {
		b    string
		want int
	}{"": {"abc", 3}, "abc": {"abc", 0}, "kitten": {"sitting", 3}, "flaw": {"lawn", 2}} {
		if got := distance(a, tt.b); got != tt.want || distance(tt.b, a) != tt.want {
			t.Errorf("distance(%q, %q) = %d, want %d", a, tt.b, got, tt.want)
		}
	}
}
