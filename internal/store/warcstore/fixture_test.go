package warcstore

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

const testJob = "job"

// answer is one exchange of a test.
type answer struct {
	url     string
	status  int
	body    []byte // as decoded
	gzipped bool
	fields  map[string][]string
	refers  *store.Capture
	plain   bool // without an exchange, as in a copy
	cut     string
}

var testTime = time.Date(2026, 3, 4, 5, 6, 7, 890_000, time.UTC)

func (a *answer) meta(t testing.TB) (meta store.BodyMeta, sent []byte) {
	t.Helper()
	meta = store.BodyMeta{URL: a.url, ContentType: "text/html; charset=utf-8", Refers: a.refers}
	if a.plain {
		return meta, nil
	}
	u, err := url.Parse(a.url)
	if err != nil {
		t.Fatal(err)
	}
	e := &store.Exchange{
		Method: "GET", Target: u.RequestURI(), Request: map[string][]string{"Host": {u.Host}, "User-Agent": {"test"}},
		Status: a.status, Reason: "OK", Protocol: "HTTP/2.0", RemoteAddr: "192.0.2.1:443", At: testTime,
		Response: map[string][]string{"Content-Type": {"text/html; charset=utf-8"}, "X-Test": {"1", "2"}},
	}
	for name, values := range a.fields {
		e.Response[name] = values
	}
	meta.Exchange = e
	if a.gzipped {
		e.Response["Content-Encoding"] = []string{"gzip"}
		e.Coded = true
		sent = gzipBytes(a.body)
	}
	return meta, sent
}

func gzipBytes(p []byte) []byte {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	z.Write(p)
	z.Close()
	return out.Bytes()
}

// fetch writes an answer to a unit.
func fetch(t testing.TB, u store.Unit, a answer) store.BodyRef {
	t.Helper()
	ref, err := tryFetch(t, u, a)
	if err != nil {
		t.Fatal(err)
	}
	return ref
}

func tryFetch(t testing.TB, u store.Unit, a answer) (store.BodyRef, error) {
	t.Helper()
	meta, sent := a.meta(t)
	w, err := u.Body(context.Background(), meta)
	if err != nil {
		return store.BodyRef{}, err
	}
	defer w.Abort()
	for len(sent) > 0 {
		n, err := w.(store.ExchangeWriter).Sent(sent[:min(len(sent), 10_000)])
		if err != nil {
			return store.BodyRef{}, err
		}
		sent = sent[n:]
	}
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, bytes.NewReader(a.body), make([]byte, 7000)); err != nil {
		return store.BodyRef{}, err
	}
	if a.cut != "" {
		return store.BodyRef{}, w.(store.ExchangeWriter).Cut(a.cut)
	}
	return w.Finish()
}

// record returns the record of an answer.
func record(batch string, n int, a answer, ref store.BodyRef) *store.Record {
	return &store.Record{
		ID: fmt.Sprintf("%s-%d", batch, n), Job: testJob, Batch: batch, URL: a.url, Method: "GET", Outcome: store.OK, Status: a.status,
		ContentType: "text/html; charset=utf-8", Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body, FetchedAt: testTime,
	}
}

// storeUnit commits a unit of these answers.
func storeUnit(t testing.TB, s *Store, batch string, answers ...answer) []*store.Record {
	t.Helper()
	records, err := tryUnit(t, s, batch, answers...)
	if err != nil {
		t.Fatal(err)
	}
	return records
}

func tryUnit(t testing.TB, s *Store, batch string, answers ...answer) (records []*store.Record, err error) {
	t.Helper()
	u, a, records, err := beginUnit(t, s, batch, answers...)
	if err != nil {
		return nil, err
	}
	_, won, err := u.Commit(context.Background(), a)
	if err == nil && !won {
		err = fmt.Errorf("unit %s is taken", batch)
	}
	return records, err
}

func beginUnit(t testing.TB, s *Store, batch string, answers ...answer) (store.Unit, *store.Account, []*store.Record, error) {
	t.Helper()
	u, err := s.Begin(context.Background(), testJob, batch)
	if err != nil {
		return nil, nil, nil, err
	}
	t.Cleanup(func() { u.Discard() })
	account := &store.Account{V: store.AccountVersion, Job: testJob, Batch: batch, Delivery: "d", Entries: []store.Entry{}}
	var records []*store.Record
	for n, a := range answers {
		ref, err := tryFetch(t, u, a)
		if err != nil {
			return nil, nil, nil, err
		}
		if a.cut != "" {
			continue
		}
		r := record(batch, n, a, ref)
		if err := u.Add(r); err != nil {
			return nil, nil, nil, err
		}
		records = append(records, r)
		account.Entries = append(account.Entries, store.Entry{ID: r.ID, Fate: store.Recorded})
	}
	return u, account, records, nil
}

// wantBody demands that a record's body reads as these bytes.
func wantBody(t testing.TB, s *Store, r *store.Record, want []byte) {
	t.Helper()
	sum := sha256.Sum256(want)
	if r.Bytes != int64(len(want)) || r.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("record %s has %d bytes, digest %s, want %d, %x", r.ID, r.Bytes, r.SHA256, len(want), sum)
	}
	if len(want) == 0 {
		if r.Body != "" {
			t.Errorf("record %s of no bytes has body %s", r.ID, r.Body)
		}
		return
	}
	b, err := s.OpenBody(context.Background(), r.Job, r.Body)
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	got, err := io.ReadAll(io.LimitReader(b, int64(len(want))+1))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("body %s has %d bytes (error %v), want %d", r.Body, len(got), err, len(want))
	}
}

// findings returns what Verify finds that is wrong.
func findings(t testing.TB, s *Store, job string, repair bool) []store.Finding {
	t.Helper()
	return slices.DeleteFunc(withNotes(t, s, job, repair), func(f store.Finding) bool { return f.Note })
}

// withNotes returns all that Verify finds.
func withNotes(t testing.TB, s *Store, job string, repair bool) []store.Finding {
	t.Helper()
	var list []store.Finding
	if err := s.Verify(context.Background(), job, repair, func(f store.Finding) { list = append(list, f) }); err != nil {
		t.Errorf("Verify: %v", err)
	}
	return list
}

// wantSound demands that nothing is wrong with any job, and that gzip agrees.
func wantSound(t testing.TB, s *Store) {
	t.Helper()
	for job, err := range s.Jobs(context.Background()) {
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range findings(t, s, job, false) {
			t.Errorf("Verify found %+v", f)
		}
	}
	wantGzip(t, s.dir)
}

// wantGzip demands that gzip -t and zstd -t find nothing wrong with any file.
func wantGzip(t testing.TB, dir string) {
	t.Helper()
	for tool, files := range map[string][]string{"gzip": filesWith(t, dir, ".warc.gz"), "zstd": filesWith(t, dir, ".warc.zst")} {
		for len(files) > 0 {
			n := min(len(files), 200)
			out, err := exec.Command(tool, append([]string{"-t", "-q"}, files[:n]...)...).CombinedOutput()
			if _, missing := err.(*exec.Error); missing && (os.Getenv("CI") != "true" || tool == "zstd") {
				break
			}
			if err != nil {
				t.Errorf("%s -t: %v: %s", tool, err, out)
			}
			files = files[n:]
		}
	}
}

func filesWith(t testing.TB, dir, ext string) (files []string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && strings.HasSuffix(path, ext) {
			files = append(files, path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func tmpFiles(t testing.TB, s *Store) []string {
	t.Helper()
	names, err := readNames(s.jobPath(testJob, tmpFolder))
	if err != nil {
		t.Fatal(err)
	}
	return names
}

// text returns n bytes that compress as text does, and differ for each seed.
func text(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	words := strings.Fields("the of and to in is that for it as was with be by on not he his but at are this have from or had an they which one you were her all she there would their we him been has when who will more no if out so said what up its about into than them can only other new some could time these two may then do first any my now such like our over man me even most made after also did many before must through back years where much your way well down should because each just those people mr how too little state good very make world still own see men work long get here between both life being under never day same another know while last might us great old year off come since against go came right used take three")
	b := make([]byte, 0, n+16)
	for len(b) < n {
		b = append(append(b, words[r.IntN(len(words))]...), ' ')
		if r.IntN(12) == 0 {
			b = append(b, "</p>\n<p class=\"x\">"...)
		}
	}
	return b[:n]
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}).Read(b)
	return b
}
