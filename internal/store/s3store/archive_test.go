package s3store

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/warcstore"
	"github.com/google/go-cmp/cmp"
)

// wantArchiveSound demands that nothing is wrong with any job.
func wantArchiveSound(t *testing.T, url string) {
	t.Helper()
	s := openArchiveTest(t, url)
	jobs := make(map[string]bool)
	for o, err := range s.c.list(context.Background(), string(s.keys)) {
		if err != nil {
			t.Error(err)
			return
		}
		if job, _, ok := strings.Cut(strings.TrimPrefix(o.Key, string(s.keys)), "/"); ok {
			jobs[job] = true
		}
	}
	for job := range jobs {
		err := s.Verify(context.Background(), job, false, func(f store.Finding) { t.Errorf("Verify found %+v", f) })
		if err != nil {
			t.Error(err)
		}
	}
}

func beginArchive(t *testing.T, s *Archive, name string) *archiveUnit {
	t.Helper()
	u, err := s.Begin(t.Context(), crashJob, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Discard() })
	return u.(*archiveUnit)
}

// fetchTo writes an answer as a worker does, gzipped on the way where coded says so.
func fetchTo(t *testing.T, u store.Unit, url string, data []byte, coded bool) *store.Record {
	t.Helper()
	e := &store.Exchange{
		Method: "GET", Target: "/", Request: map[string][]string{"Host": {"x.test"}}, Status: 200, Reason: "OK", Protocol: "HTTP/1.1",
		Response: map[string][]string{"Content-Type": {"text/html"}}, At: time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC), Coded: coded,
	}
	var sent bytes.Buffer
	if coded {
		e.Response["Content-Encoding"] = []string{"gzip"}
		z := gzip.NewWriter(&sent)
		z.Write(data)
		z.Close()
	}
	w, err := u.Body(t.Context(), store.BodyMeta{URL: url, ContentType: "text/html", Exchange: e})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Abort()
	if _, err := w.(store.ExchangeWriter).Sent(sent.Bytes()); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	r := &store.Record{
		ID: hex.EncodeToString(sha256.New().Sum([]byte(url)))[:40], Job: crashJob, URL: url, Method: "GET", Outcome: store.OK, Status: 200,
		Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body,
	}
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	return r
}

// A copy of the prefix in a folder is a store of package warcstore, and can be merged there.
func TestACopyOfAnArchiveIsAFolderOfWARCFiles(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	for _, kind := range []string{"gzip", "zstd"} {
		t.Run(kind, func(t *testing.T) {
			s := openArchiveTest(t, server.URL("copied-"+kind)+"&format=warc&compress="+kind)
			s.piece, s.onePut = func(int) int64 { return 5 << 20 }, 1<<20
			want := make(map[string][]*store.Record)
			bodies := make(map[string][]byte)
			for n := range 5 {
				batch := fmt.Sprint("b", n)
				u := beginArchive(t, s, batch)
				for i, size := range []int{0, 100, 30_000, 6 << 20}[:min(n, 4)] {
					url := fmt.Sprintf("http://x.test/%d/%d", n, i)
					bodies[url] = random(uint64(i), size) // the same in each unit: later ones are revisits
					r := fetchTo(t, u, url, bodies[url], i%2 == 1)
					r.Batch = batch
					want[batch] = append(want[batch], r)
				}
				if _, won, err := u.Commit(t.Context(), account(batch, "d", want[batch]...)); err != nil || !won {
					t.Fatalf("Commit: won %v, %v", won, err)
				}
			}
			id, err := s.Identity(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			dir := download(t, &s.base)
			folder, err := warcstore.Open(t.Context(), dir, warcstore.Options{MustExist: true})
			if err != nil {
				t.Fatal(err)
			}
			defer folder.Close()
			if got, err := folder.Identity(t.Context()); err != nil || got != id {
				t.Errorf("the copy has identity %q, %v, want %q", got, err, id)
			}
			for _, when := range []string{"copied", "merged"} {
				for batch, records := range want {
					wantSameUnit(t, s, folder, batch)
					for _, r := range records {
						if r.Bytes > 0 {
							wantBodyBytes(t, s, crashJob, r.Body, bodies[r.URL])
							wantBodyBytes(t, folder, crashJob, r.Body, bodies[r.URL])
						}
					}
				}
				err := folder.Verify(t.Context(), crashJob, false, func(f store.Finding) { t.Errorf("once %s Verify found %+v", when, f) })
				if err != nil {
					t.Error(err)
				}
				if err := folder.Compact(t.Context(), crashJob); err != nil {
					t.Fatal(err)
				}
			}
			if r := want["b4"]; r[1].Body != want["b2"][1].Body {
				t.Errorf("the body of the same bytes is %s, want that of an earlier unit, %s", r[1].Body, want["b2"][1].Body)
			}
		})
	}
}

// wantSameUnit demands that two stores say the same of a unit.
func wantSameUnit(t *testing.T, a, b store.Store, unit string) {
	t.Helper()
	accountA, errA := a.Account(t.Context(), crashJob, unit)
	accountB, errB := b.Account(t.Context(), crashJob, unit)
	if diff := cmp.Diff(accountA, accountB); diff != "" || errA != nil || errB != nil {
		t.Errorf("the accounts of %s differ: %v, %v\n%s", unit, errA, errB, diff)
	}
	list := func(s store.Store) (out []*store.Record) {
		for r, err := range s.Records(t.Context(), crashJob, unit) {
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, r)
		}
		return out
	}
	if diff := cmp.Diff(list(a), list(b)); diff != "" {
		t.Errorf("the records of %s differ:\n%s", unit, diff)
	}
}

// download copies all objects of a store into a folder.
func download(t *testing.T, s *base) string {
	t.Helper()
	dir := t.TempDir()
	for o, err := range s.c.list(t.Context(), string(s.keys)) {
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.c.get(t.Context(), o.Key, 1<<30)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(dir, filepath.FromSlash(strings.TrimPrefix(o.Key, string(s.keys))))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, got.data, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A small unit costs one call, and so does each look at it.
func TestCallsOfAnArchive(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openArchiveTest(t, s3test.URL(proxy.Addr(), "calls")+"&format=warc")
	if _, err := s.Identity(t.Context()); err != nil {
		t.Fatal(err)
	}
	proxy.Reset()
	want := func(what, method string) {
		t.Helper()
		if diff := cmp.Diff(map[string]int{method: 1}, proxy.Calls()); diff != "" {
			t.Errorf("calls of %s (-want +got):\n%s", what, diff)
		}
		proxy.Reset()
	}
	u := beginArchive(t, s, "b1")
	var records []*store.Record
	data := text(30_000)
	for n := range 32 {
		records = append(records, fetchTo(t, u, fmt.Sprint("http://x.test/", n), append(random(uint64(n), 100), data...), true))
	}
	if _, _, err := u.Commit(t.Context(), account("b1", "d", records...)); err != nil {
		t.Fatal(err)
	}
	want("Commit", "PUT")
	if _, err := s.Account(t.Context(), crashJob, "b1"); err != nil {
		t.Error(err)
	}
	want("Account", "GET")
	for _, err := range s.Records(t.Context(), crashJob, "b1") {
		if err != nil {
			t.Error(err)
		}
	}
	want("Records", "GET")
	wantBodyBytes(t, s, crashJob, records[3].Body, append(random(3, 100), data...))
	want("OpenBody", "GET")
	for _, err := range s.Units(t.Context(), crashJob) {
		if err != nil {
			t.Error(err)
		}
	}
	want("Units", "GET")
}

func text(n int) []byte { return bytes.Repeat([]byte("<p>as pages are: "), n/16) }

func TestArchiveVerifyNamesWhatIsWrong(t *testing.T) {
	server := s3test.Start(t)
	s := openArchiveTest(t, server.URL("verify")+"&format=warc")
	for n := range 4 {
		name := fmt.Sprint("b", n)
		u := beginArchive(t, s, name)
		r := fetchTo(t, u, "http://x.test/"+name, random(uint64(n), 50_000), false)
		if _, _, err := u.Commit(t.Context(), account(name, "d", r)); err != nil {
			t.Fatal(err)
		}
	}
	change := func(unit, to string, do func([]byte) []byte) {
		t.Helper()
		o, err := s.c.get(t.Context(), s.keys.unit(crashJob, unit, "gzip"), 1<<20)
		if err == nil {
			_, err = s.c.put(t.Context(), to, inMemory(do(o.data)), "", condition{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	key := func(unit string) string { return s.keys.unit(crashJob, unit, "gzip") }
	change("b0", key("b0"), func(b []byte) []byte { return b[:len(b)/2] })
	change("b1", key("b1"), func(b []byte) []byte { b[1000] ^= 1; return b })
	change("b2", key("renamed"), bytes.Clone)
	change("b2", key("empty"), func([]byte) []byte { return nil })
	change("b2", s.keys.folder(crashJob, "warc")+"job-00001.warc.gz", bytes.Clone)
	if _, err := s.c.start(t.Context(), key("b9"), ""); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		key("b0"): "structure", key("b1"): "structure", key("renamed"): "structure", key("empty"): "structure",
		s.keys.folder(crashJob, "warc") + "job-00001.warc.gz": "orphan", key("b9"): "temporary",
	}
	for _, repair := range []bool{false, true} {
		got := make(map[string]string)
		for _, f := range findings(t, s, crashJob, repair) {
			got[f.Where] = f.Kind
			if f.Mended != (repair && f.Kind == "temporary") {
				t.Errorf("with repair %v: %+v", repair, f)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("findings (-want +got):\n%s", diff)
		}
	}
	if left := leftovers(t, s, crashJob); len(left) > 0 {
		t.Errorf("after repair there are %q", left)
	}
}

func TestOpenArchiveSaysWhatIsWrong(t *testing.T) {
	server := s3test.Start(t)
	put := func(key, text string) {
		t.Helper()
		s := openTest(t, server.URL(""))
		if _, err := s.c.put(t.Context(), key, inMemory([]byte(text)), "", condition{}); err != nil {
			t.Fatal(err)
		}
	}
	put("newer/.fetchfleet-warc", `{"layout":9,"identity":"0123456789abcdef0123","compress":"gzip"}`+"\n")
	put("zstd/.fetchfleet-warc", `{"layout":1,"identity":"0123456789abcdef0123","compress":"zstd"}`+"\n")
	put("damaged/.fetchfleet-warc", `{"lay`)
	put("file/.fetchfleet-store", strings.Repeat("0", 32)+"\n")
	tests := map[string]struct {
		prefix, more string
		must         bool
		want         string
	}{
		"a newer version":       {prefix: "newer", want: "use a newer one"},
		"another compression":   {prefix: "zstd", more: "&compress=gzip", want: "compress=zstd"},
		"a damaged layout":      {prefix: "damaged", want: "holds no layout"},
		"a store of bodies":     {prefix: "file", want: "format=file"},
		"none where there must": {prefix: "none", must: true, want: "there is no store"},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			o, err := Parse(server.URL(tt.prefix) + "&format=warc" + tt.more)
			if err != nil {
				t.Fatal(err)
			}
			o.MustExist = tt.must
			s, err := OpenArchive(t.Context(), o)
			if err == nil {
				s.Close()
				t.Fatal("OpenArchive succeeded")
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("OpenArchive = %v, want %q in it", err, tt.want)
			}
		})
	}
}
