package warcstore

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/google/go-cmp/cmp"
)

// warcioFolder returns the folder in which npm warcio was installed: FLEET_WARCIO, or .tools of the repository.
func warcioFolder(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("FLEET_WARCIO")
	if dir == "" {
		dir, _ = filepath.Abs("../../../.tools")
	}
	if _, err := os.Stat(filepath.Join(dir, "node_modules", "warcio")); err == nil {
		if _, err = exec.LookPath("node"); err == nil {
			return dir
		}
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("node, or npm warcio in %s, is missing: make warcio", dir)
	}
	t.Skipf("node, or npm warcio in %s, is missing: make warcio", dir)
	return ""
}

// seen is a record as warcio sees it.
type seen struct {
	File, Type, URL, ID, RefersTo, ConcurrentTo, Truncated, Profile, Decoded string
	Offset, Length, Size, Got                                                int64
	Status                                                                   int
	BlockOK, PayloadOK                                                       bool
}

func warcioReads(t *testing.T, files []string) (list []seen) {
	t.Helper()
	cmd := exec.Command("node", append([]string{"testdata/read.mjs", warcioFolder(t)}, files...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || stderr.Len() > 0 {
		t.Fatalf("warcio: %v: %s", err, stderr.String())
	}
	lines := bufio.NewScanner(bytes.NewReader(out))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var s seen
		if err := json.Unmarshal(lines.Bytes(), &s); err != nil {
			t.Fatal(err)
		}
		list = append(list, s)
	}
	return list
}

// mixed are answers of every kind.
func mixed() []answer {
	same := text(1, 3000)
	return []answer{
		{url: "https://www.example.test/a?b=2&a=1", status: 200, body: same},
		{url: "https://example.test/again", status: 200, body: same},
		{url: "https://example.test/gzipped", status: 200, body: text(2, 50_000), gzipped: true},
		{url: "https://example.test/empty", status: 204},
		{url: "https://example.test/moved", status: 301, fields: map[string][]string{"Location": {"/a"}}},
		{url: "https://example.test:8443/large", status: 200, body: random(3, 3<<20)},
		{url: "https://example.test/large-gzipped", status: 200, body: text(4, 4<<20), gzipped: true},
		{url: "https://example.test/cut", status: 200, body: text(5, 9000), cut: "disconnect"},
		{url: "https://example.test/unchanged", status: 304, refers: &store.Capture{URL: "https://example.test/unchanged", At: testTime, SHA256: strings.Repeat("ab", 32)}},
		{url: "https://example.test/copied", plain: true, body: []byte("a copy")},
		{url: "https://example.test/error", status: 404, body: []byte("not found\r\n\r\n")},
	}
}

func TestWarcioReadsEverything(t *testing.T) {
	warcioFolder(t)
	dir := t.TempDir()
	s := openTest(t, dir, Options{Decoded: true})
	answers := mixed()
	for i := range 3 {
		storeUnit(t, s, "b"+string(rune('0'+i)), answers[i*3:min(len(answers), i*3+3+2*(i/2))]...)
	}
	for _, stage := range []string{"units", "merged"} {
		if stage == "merged" {
			if err := s.Compact(t.Context(), testJob); err != nil {
				t.Fatal(err)
			}
		}
		t.Run(stage, func(t *testing.T) { wantReadable(t, dir, answers) })
	}
	wantSound(t, s)
}

func wantReadable(t *testing.T, dir string, answers []answer) {
	t.Helper()
	files := filesWith(t, dir, ".warc.gz")
	list := warcioReads(t, files)
	count := map[string]int{}
	byURL := map[string]seen{}
	ids := map[string]bool{}
	for _, s := range list {
		count[s.Type]++
		if s.Got != s.Size || !s.BlockOK || !s.PayloadOK {
			t.Errorf("warcio reads %+v", s)
		}
		if ids[s.ID] {
			t.Errorf("record ID %s is there twice", s.ID)
		}
		ids[s.ID] = true
		if s.Type == "response" || s.Type == "revisit" {
			byURL[s.URL] = s
		}
	}
	want := map[string]int{"response": 8, "request": 10, "revisit": 2, "resource": 1, "metadata": 3 + 3, "conversion": 2}
	if strings.Contains(files[0], mergedFolder+sep) {
		want["warcinfo"] = 1
	}
	if diff := cmp.Diff(want, count); diff != "" {
		t.Errorf("records that warcio counts differ (-want +got):\n%s", diff)
	}
	for _, s := range list {
		if s.RefersTo != "" && !ids[s.RefersTo] || s.ConcurrentTo != "" && !ids[s.ConcurrentTo] {
			t.Errorf("%+v refers to a record that is not there", s)
		}
	}
	for _, a := range answers {
		if a.plain {
			continue
		}
		sum := sha256.Sum256(a.body)
		switch s := byURL[a.url]; {
		case s.Status != a.status || s.Truncated != a.cut:
			t.Errorf("%s reads as %+v", a.url, s)
		case s.Type == "response" && s.Decoded != hex.EncodeToString(sum[:]):
			t.Errorf("%s does not replay as it was sent", a.url)
		}
	}
}

// warcio's own index of a merged file is compared with ours, line by line.
func TestTheIndexIsWhatWarcioMakes(t *testing.T) {
	folder := warcioFolder(t)
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	storeUnit(t, s, "b1", mixed()...)
	if err := s.Compact(t.Context(), testJob); err != nil {
		t.Fatal(err)
	}
	file := filesWith(t, dir, ".warc.gz")[0]
	out, err := exec.Command("node", filepath.Join(folder, "node_modules", "warcio", "dist", "cli.js"), "cdx-index", file).Output()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := os.ReadFile(stemPath(file) + cdxjExt)
	if err != nil {
		t.Fatal(err)
	}
	want := parseLines(t, out)
	slices.SortStableFunc(want, func(a, b cdxLine) int { return strings.Compare(a.Key+" "+a.At, b.Key+" "+b.At) })
	if diff := cmp.Diff(want, parseLines(t, ours)); diff != "" {
		t.Errorf("the index differs from warcio's (-warcio +ours):\n%s", diff)
	}
	if !slices.IsSortedFunc(slices.Collect(bytes.Lines(ours)), bytes.Compare) {
		t.Errorf("the index is not sorted:\n%s", ours)
	}
}

type cdxLine struct {
	Key, At string
	Fields  map[string]string
}

func parseLines(t *testing.T, text []byte) (list []cdxLine) {
	t.Helper()
	for line := range bytes.Lines(text) {
		parts := strings.SplitN(string(line), " ", 3)
		l := cdxLine{Key: parts[0], At: parts[1]}
		if err := json.Unmarshal([]byte(parts[2]), &l.Fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		l.Fields["mime"], _, _ = strings.Cut(l.Fields["mime"], ";") // warcio has a resource's parameters, but no response's
		l.Fields["digest"] = strings.TrimPrefix(l.Fields["digest"], "sha256:")
		list = append(list, l)
	}
	return list
}

// The decoded copy of a coded body is a record of its own, and the body still reads from the one as sent.
func TestBodiesOfEveryKindComeBack(t *testing.T) {
	for _, compress := range []string{"gzip", "zstd"} {
		for _, decoded := range []bool{false, true} {
			dir := t.TempDir()
			s := openTest(t, dir, Options{Compress: compress, Decoded: decoded})
			answers := mixed()
			records := storeUnit(t, s, "b1", answers...)
			check := func() {
				for _, r := range records {
					i := slices.IndexFunc(answers, func(a answer) bool { return a.url == r.URL })
					wantBody(t, s, r, answers[i].body)
				}
			}
			check()
			if err := s.Compact(t.Context(), testJob); err != nil {
				t.Fatal(err)
			}
			check()
			wantSound(t, s)
			if left := tmpFiles(t, s); len(left) > 0 {
				t.Errorf("tmp holds %q", left)
			}
			if used := s.shop.Held(); used != 0 {
				t.Errorf("%d bytes of the budget are not given back", used)
			}
		}
	}
}
