package s3store

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/google/go-cmp/cmp"
)

func openArchiveParts(t *testing.T, url string) *Archive {
	t.Helper()
	s := openArchiveTest(t, url)
	s.piece = func(int) int64 { return testPiece }
	return s
}

// stretchOf is the exchange that brought the bytes of a part from one on.
func stretchOf(from, size int) store.Stretch {
	e := &store.Exchange{
		Method: "GET", Target: "/big", Request: map[string][]string{"Host": {"x.test"}}, Status: 200, Reason: "OK", Protocol: "HTTP/1.1",
		Response: map[string][]string{"Content-Type": {"application/pdf"}}, At: time.Date(2026, 1, 2, 3, 4, 5, from, time.UTC),
	}
	if from > 0 {
		e.Status, e.Reason = 206, "Partial Content"
		e.Response["Content-Range"] = []string{fmt.Sprintf("bytes %d-%d/%d", from, size-1, size)}
	}
	return store.Stretch{From: int64(from), At: e.At, Exchange: e}
}

// adoptIntoArchive makes a part a body of a committed unit, b1, and looks at what came of it.
func adoptIntoArchive(t *testing.T, s *Archive, p store.Part, data []byte) {
	t.Helper()
	u := beginArchive(t, s, "b1")
	ref, err := p.Adopt(t.Context(), u, store.BodyMeta{URL: "http://x.test/big", ContentType: "application/pdf"})
	if err != nil {
		t.Fatal(err)
	}
	if ref.Bytes != int64(len(data)) || ref.SHA256 != sumOf(data) || !strings.HasPrefix(ref.Body, "b1#") {
		t.Errorf("adopted as %+v", ref)
	}
	if err := p.Release(); err != nil {
		t.Errorf("Release after Adopt: %v", err)
	}
	r := &store.Record{ID: strings.Repeat("0", 40), Batch: "b1", Job: crashJob, URL: "http://x.test/big", Method: "GET", Outcome: store.OK,
		Status: 200, Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body}
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), account("b1", "d", r)); err != nil || !won {
		t.Fatalf("Commit: won %v, %v", won, err)
	}
	wantBodyBytes(t, s, crashJob, ref.Body, data)
	wantHas(t, s, "r1", false)
	if left := leftovers(t, s, crashJob); len(left) > 0 {
		t.Errorf("there are left %q", left)
	}
	wantSound(t, s, crashJob)
}

func sumOf(data []byte) string { return inMemory(data).sha }

// shapes tells the records of a unit that are no metadata: type, status, whether cut, digest of the payload.
func shapes(t *testing.T, s *Archive, unit string) (list []string) {
	t.Helper()
	o, err := s.c.get(t.Context(), s.keys.unit(crashJob, unit, warc.Gzip), 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	r := warc.NewReader(bytes.NewReader(o.data))
	defer r.Close()
	r.Verify = true
	for {
		rec, err := r.Next()
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
		if rec.Type() == warc.Metadata {
			continue
		}
		said := string(rec.Type())
		if head, payload, ok := bytes.Cut(block, []byte("\r\n\r\n")); ok && said == "response" {
			said += " " + strings.Fields(string(head))[1]
			block = payload
		}
		if cut := rec.Get("WARC-Truncated"); cut != "" {
			said += " " + cut
		}
		if said != "request" {
			said += " " + sumOf(block)
		}
		list = append(list, said)
	}
}

func TestAPartBecomesRecordsOfAnArchive(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	data := random(7, 2*testPiece+1000)
	sum := func(from, to int) string { return sumOf(data[from:to]) }
	for claim, tt := range map[string]struct {
		size int
		cuts []int
		want []string
	}{
		"of less than a piece": {size: 1000, want: []string{"response 200 " + sum(0, 1000), "request"}},
		"in one exchange":      {size: len(data), want: []string{"response 200 " + sum(0, len(data)), "request"}},
		"in three": {size: len(data), cuts: []int{1000, testPiece + 1000}, want: []string{
			"response 200 disconnect " + sum(0, 1000), "request",
			"response 206 disconnect " + sum(1000, testPiece+1000), "request",
			"response 206 " + sum(testPiece+1000, len(data)), "request",
			"resource " + sum(0, len(data)),
		}},
	} {
		t.Run(claim, func(t *testing.T) {
			url := server.URL(strings.ReplaceAll(claim, " ", "-")) + "&format=warc"
			n := store.PartNote{URL: "http://x.test/big", ETag: `"v1"`, Length: int64(tt.size), Coding: "identity",
				Stretches: []store.Stretch{stretchOf(0, tt.size)}}
			s := openArchiveParts(t, url)
			p := take(t, s, "r1")
			if err := p.Begin(n); err != nil {
				t.Fatal(err)
			}
			for _, cut := range append(tt.cuts, tt.size) {
				if _, err := p.Write(data[p.Size():cut]); err != nil {
					t.Fatal(err)
				}
				if cut == tt.size {
					break
				}
				if err := p.Release(); err != nil {
					t.Fatal(err)
				}
				s = openArchiveParts(t, url) // the next worker
				p = take(t, s, "r1")
				if err := p.Stretch(stretchOf(cut, tt.size)); err != nil || p.Size() != int64(cut) {
					t.Fatalf("%d bytes are kept, want %d; Stretch: %v", p.Size(), cut, err)
				}
			}
			for _, other := range []*Archive{s, openArchiveParts(t, url)} {
				if _, err := other.Part(t.Context(), crashJob, "r1"); !errors.Is(err, store.ErrBusy) {
					t.Errorf("a second Part = %v, want ErrBusy", err)
				}
			}
			adoptIntoArchive(t, s, p, data[:tt.size])
			if diff := cmp.Diff(tt.want, shapes(t, s, "b1")); diff != "" {
				t.Errorf("records (-want +got):\n%s", diff)
			}
		})
	}
}

// What the server lost or spoilt becomes no body, and the next attempt starts over.
func TestASpoiltPartIsNotAdopted(t *testing.T) {
	server := s3test.Start(t)
	s := openArchiveParts(t, server.URL("spoilt")+"&format=warc")
	p := take(t, s, "r1")
	if err := p.Begin(note(testPiece + 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(random(1, testPiece+1)); err != nil {
		t.Fatal(err)
	}
	if err := p.(*part).finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.c.put(t.Context(), p.(*part).up.key, inMemory(random(2, testPiece+1)), "", condition{}); err != nil {
		t.Fatal(err)
	}
	u := beginArchive(t, s, "b1")
	if _, err := p.Adopt(t.Context(), u, store.BodyMeta{}); !errors.Is(err, errDamaged) {
		t.Errorf("Adopt = %v, want errDamaged", err)
	}
	if size := u.Size(); size != 0 {
		t.Errorf("the unit has %d bytes", size)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	wantHas(t, s, "r1", false)
	if left := leftovers(t, s, crashJob); len(left) > 0 {
		t.Errorf("there are left %q", left)
	}
}

func TestAnArchivesPartIsForUnitsOfItsJob(t *testing.T) {
	server := s3test.Start(t)
	url := server.URL("foreign") + "&format=warc"
	s, twin := openArchiveParts(t, url), openArchiveParts(t, url)
	p := take(t, s, "r1")
	if err := p.Begin(note(1)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	for claim, begin := range map[string]func() (store.Unit, error){
		"another job":   func() (store.Unit, error) { return s.Begin(t.Context(), "other", "b1") },
		"another store": func() (store.Unit, error) { return twin.Begin(t.Context(), crashJob, "b1") },
	} {
		u, err := begin()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Adopt(t.Context(), u, store.BodyMeta{}); err == nil {
			t.Errorf("a unit of %s took the part", claim)
		}
		if err := u.Discard(); err != nil {
			t.Error(err)
		}
	}
	if p.Size() != 1 {
		t.Errorf("the part has %d bytes", p.Size())
	}
}

func TestAnArchivesSweepAndVerifyKnowParts(t *testing.T) {
	server := s3test.Start(t)
	url := server.URL("known") + "&format=warc"
	s, other := openArchiveParts(t, url), openArchiveParts(t, url)
	data := random(1, testPiece+1000)
	held := take(t, s, "r1")
	for _, p := range []store.Part{held, take(t, s, "left")} {
		if err := p.Begin(note(len(data))); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(data); err != nil {
			t.Fatal(err)
		}
		if p != held {
			if err := p.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := make(map[string]string)
	for _, f := range findings(t, other, crashJob, true) {
		got[f.Where] = fmt.Sprintf("%s %v %v", f.Kind, f.Note, f.Mended)
	}
	want := map[string]string{s.keys.partState(crashJob, "r1"): "temporary true false", s.keys.partState(crashJob, "left"): "temporary true false"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("findings (-want +got):\n%s", diff)
	}
	if n, err := other.Sweep(t.Context(), crashJob, time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep of what is an hour old removed %d, %v", n, err)
	}
	wantHas(t, s, "left", true)
	if n, err := other.Sweep(t.Context(), crashJob, 0); n == 0 || err != nil {
		t.Errorf("Sweep removed %d, %v", n, err)
	}
	wantHas(t, s, "left", false)
	adoptIntoArchive(t, s, held, data)
}
