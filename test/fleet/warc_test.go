//go:build unix

package fleet_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// warcioFolder is that in which npm warcio, an independent reader of WARC files, was installed.
func warcioFolder(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("FLEET_WARCIO")
	if dir == "" {
		dir, _ = filepath.Abs("../../.tools")
	}
	_, err := os.Stat(filepath.Join(dir, "node_modules", "warcio"))
	if err == nil {
		_, err = exec.LookPath("node")
	}
	if err == nil {
		return dir
	}
	if os.Getenv("CI") == "true" {
		t.Fatalf("node, or npm warcio in %s, is missing: make warcio", dir)
	}
	t.Skipf("node, or npm warcio in %s, is missing: make warcio", dir)
	return ""
}

// output is what a program prints. It must end well and have nothing to complain about.
func output(t testing.TB, name string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(name, args...)
	var complaints strings.Builder
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || complaints.Len() > 0 {
		t.Fatalf("%s %q: %v: %s", name, args, err, complaints.String())
	}
	return out
}

// archived is a WARC record as warcio reads it. Digests are those that warcio computed.
type archived struct {
	File, Type, URL, ID, RefersTo, ConcurrentTo, Truncated string
	Decoded                                                string // digest of a response's payload, content coding undone
	Status                                                 int
	Size, Got                                              int64
	BlockOK, PayloadOK                                     bool
}

// sundry is a list of pages, coded ones, twins, redirects, slow ones, errors and answers that are cut.
func (w *world) sundry() (urls []string) {
	for i := range 40 {
		here, there := w.origin.Host(1+i%4), w.origin.Host(1+(i+1)%4)
		urls = append(urls, fmt.Sprintf("%s/page/%d", here, i), fmt.Sprintf("%s/page/large/%d?size=%d", here, i, 3000*i))
		if i < 20 {
			urls = append(urls,
				fmt.Sprintf("%s/gzip?size=%d", here, 4000+i), fmt.Sprintf("%s/br?size=%d", here, 4000+i),
				fmt.Sprintf("%s/page/twin/%d", here, i), fmt.Sprintf("%s/page/twin/%d", there, i),
				fmt.Sprintf("%s/slow/%d?ms=20", here, i), fmt.Sprintf("%s/status/404?n=%d", here, i))
		}
		if i%4 == 0 {
			urls = append(urls, here+"/redirect?to="+url.QueryEscape(fmt.Sprintf("%s/page/hop/%d", there, i)))
		}
	}
	return append(urls, w.origin.URL("/cut?announce=5000&send=3000"), w.origin.URL("/status/204"))
}

// replays is what warcio must replay a page of the origin as, nil for what is none.
func replays(t testing.TB, raw string) []byte {
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	switch first, _, _ := strings.Cut(u.Path[1:], "/"); first {
	case "page", "gzip", "br":
		size, _ := strconv.Atoi(u.Query().Get("size"))
		page := fetchtest.Page(u.Path, size)
		if first == "br" { // which warcio leaves as it is
			return fetchtest.Encode(first, page)
		}
		return page
	case "slow":
		return fetchtest.Page(u.Path, 0)
	}
	return nil
}

// TestWARCFilesAreWhatTheOriginSent has a worker fill a WARC store, and gives its files to programs that are none of ours.
func TestWARCFilesAreWhatTheOriginSent(t *testing.T) {
	t.Parallel()
	warcio := warcioFolder(t)
	w := newWorld(t)
	dir := filepath.Join(t.TempDir(), "archive")
	w.store = "warc:" + dir
	urls := w.sundry()
	worker := w.worker("archivist")
	if res := w.enqueue(urls, with(unlimited, "--retries", "0")...); res.Accepted != int64(len(urls)) {
		t.Fatalf("%d of %d URLs were accepted", res.Accepted, len(urls))
	}
	w.ends(time.Minute)
	units := w.packed(dir)
	worker.terminate(20 * time.Second)

	files, err := filepath.Glob(filepath.Join(dir, job, "warc", "*.warc.gz"))
	if err != nil || len(files) != 1 {
		t.Fatalf("the job is in %q (%v), want one file", files, err)
	}
	output(t, "gzip", "-t", files[0])
	exported := w.exported()
	records := readWARC(t, warcio, files[0])
	wantCounts(t, units, exported, records)
	wantReplay(t, exported, records)
	wantIndex(t, warcio, files[0])
	if said := w.fleetCommand("verify"); !strings.Contains(said, fmt.Sprintf(" %d records", len(urls))) {
		t.Errorf("fleet verify says %q, want it to have read %d records", said, len(urls))
	}
	w.audit()
}

// packed waits until the job's units are in WARC files, and returns how many there were.
func (w *world) packed(dir string) (units int) {
	await(w.t, time.Minute, "the units are packed", func() bool {
		left, err := os.ReadDir(filepath.Join(dir, job, "units"))
		indexes, _ := filepath.Glob(filepath.Join(dir, job, "warc", "*.units"))
		return (err == nil && len(left) == 0 || os.IsNotExist(err)) && len(indexes) > 0
	})
	return int(w.audit().Units)
}

// fleetCommand runs a command about the job's store, which must end well, and returns what it prints.
func (w *world) fleetCommand(name string, extra ...string) string {
	w.t.Helper()
	p := start(w.t, command{name: "fleet", args: with([]string{name, job, "--store", w.store}, extra...)})
	if code := p.exit(time.Minute); code != 0 {
		w.t.Errorf("fleet %s: exit code %d, want 0", name, code)
	}
	return p.stdout.String()
}

// exported are the records that fleet export writes.
func (w *world) exported() (records []store.Record) {
	w.t.Helper()
	file := filepath.Join(w.t.TempDir(), "exported.jsonl")
	w.fleetCommand("export", "--format", "jsonl", "--out", file)
	text, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range bytes.Lines(text) {
		var r store.Record
		if err := json.Unmarshal(line, &r); err != nil {
			w.t.Fatal(err)
		}
		records = append(records, r)
	}
	return records
}

// readWARC has warcio read every record of a file.
func readWARC(t testing.TB, warcio, file string) (records []archived) {
	t.Helper()
	script := filepath.Join("..", "..", "internal", "store", "warcstore", "testdata", "read.mjs")
	lines := bufio.NewScanner(bytes.NewReader(output(t, "node", script, warcio, file)))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var r archived
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatal(err)
		}
		if r.Got != r.Size || !r.BlockOK || !r.PayloadOK {
			t.Errorf("warcio does not read as it was written: %+v", r)
		}
		records = append(records, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return records
}

// wantCounts holds how many records there are of each type against what the job's records say was exchanged.
func wantCounts(t testing.TB, units int, exported []store.Record, records []archived) {
	t.Helper()
	answers, filled := 0, map[string]bool{}
	for _, r := range exported {
		answers += len(r.Redirects)
		if r.Status != 0 || r.Headers != nil { // one that was cut has no status
			answers++
		}
		filled[r.Batch] = true
	}
	got := map[string]int{}
	for _, r := range records {
		got[r.Type]++
	}
	if got["revisit"] == 0 { // how many depends on which were committed when the others came
		t.Errorf("%d answers are revisit records, though some were the same", got["revisit"])
	}
	got["response"] += got["revisit"] // which of two that came together is the first is open
	delete(got, "revisit")
	// Of each unit the records, if it has any, and the account.
	want := map[string]int{"warcinfo": 1, "request": answers, "response": answers, "metadata": units + len(filled)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("records by type differ from what fleet export says (-want +got):\n%s", diff)
	}
}

// wantReplay holds what warcio replays of each URL against what the origin sent.
func wantReplay(t testing.TB, exported []store.Record, records []archived) {
	t.Helper()
	byID, byURL := map[string]archived{}, map[string]archived{}
	for _, r := range records {
		byID[r.ID] = r
		if r.Type == "response" || r.Type == "revisit" {
			byURL[r.URL] = r
		}
	}
	compared := 0
	for _, e := range exported {
		r, ok := byURL[e.FinalURL]
		cut := e.Error != nil && e.Error.Class == "body_cut"
		if !ok || r.Status != e.Status && !cut {
			t.Errorf("%s: status %d in the WARC file (%v), want %d", e.FinalURL, r.Status, ok, e.Status)
			continue
		}
		if cut != (r.Truncated != "") {
			t.Errorf("%s: cut: %v, and the WARC file says %q", e.FinalURL, cut, r.Truncated)
		}
		if r.Type == "revisit" {
			if r = byID[r.RefersTo]; r.Type != "response" {
				t.Errorf("%s: a revisit of %+v, want of a response", e.FinalURL, r)
			}
		}
		page := replays(t, e.FinalURL)
		if page == nil {
			continue
		}
		compared++
		if sum := sha256.Sum256(page); r.Decoded != hex.EncodeToString(sum[:]) {
			t.Errorf("%s replays as other bytes than the origin sent", e.FinalURL)
		}
	}
	if compared < 150 {
		t.Errorf("%d pages were compared with what the origin sent, want 150 or more", compared)
	}
}

// wantIndex holds our CDXJ index of a file against the one that warcio makes.
func wantIndex(t testing.TB, warcio, file string) {
	t.Helper()
	theirs := indexLines(t, output(t, "node", filepath.Join(warcio, "node_modules", "warcio", "dist", "cli.js"), "cdx-index", file))
	text, err := os.ReadFile(strings.TrimSuffix(file, ".warc.gz") + ".cdxj")
	if err != nil {
		t.Fatal(err)
	}
	ours := indexLines(t, text)
	if diff := cmp.Diff(theirs, ours); diff != "" || len(ours) == 0 {
		t.Errorf("%d lines of the index differ from warcio's (-warcio +ours):\n%.3000s", len(ours), diff)
	}
	if !slices.IsSortedFunc(slices.Collect(bytes.Lines(text)), bytes.Compare) {
		t.Error("the index is not sorted")
	}
}

// indexLines are the lines of an index as "KEY TIME OFFSET" and their fields. What two programs may write in two ways
// is made alike: parameters of a content type, the name of the digest.
func indexLines(t testing.TB, text []byte) map[string]map[string]string {
	t.Helper()
	all := map[string]map[string]string{}
	for line := range bytes.Lines(text) {
		parts := strings.SplitN(string(line), " ", 3)
		var fields map[string]string
		if err := json.Unmarshal([]byte(parts[2]), &fields); err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		fields["mime"], _, _ = strings.Cut(fields["mime"], ";")
		fields["digest"] = strings.TrimPrefix(fields["digest"], "sha256:")
		all[parts[0]+" "+parts[1]+" "+fields["offset"]] = fields
	}
	return all
}
