package worker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcstore"
)

// archived is a record of a WARC file: of an exchange or, without one, of a body.
type archived struct {
	Path, Type, Status, Truncated, Profile string
	Payload                                string // its digest, as sent
}

// archive packs a job, demands that nothing is wrong with it, and reads its records but for metadata and requests. Each
// answer must have been asked for.
func archive(t *testing.T, s *warcstore.Store, job string) (list []archived) {
	t.Helper()
	err := s.Compact(t.Context(), job)
	for ; errors.Is(err, store.ErrBusy); err = s.Compact(t.Context(), job) { // the worker packs the job, too
		<-time.After(time.Millisecond)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(t.Context(), job, false, func(f store.Finding) { t.Errorf("Verify found %+v", f) }); err != nil {
		t.Fatal(err)
	}
	paths, err := s.Packed(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	asked, answers := map[string]bool{}, map[string]string{}
	for _, path := range paths {
		if !strings.HasSuffix(path, ".warc.gz") {
			continue
		}
		f, err := os.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		r := warc.NewReader(f)
		defer r.Close()
		for rec, err := r.Next(); err != io.EOF; rec, err = r.Next() {
			if err != nil {
				t.Fatal(err)
			}
			switch rec.Type() {
			case warc.Info, warc.Metadata:
			case warc.Request:
				asked[rec.Get("WARC-Concurrent-To")] = true
			default:
				a := archivedOf(t, rec)
				if a.Type != "resource" {
					answers[rec.Get("WARC-Record-ID")] = a.Path
				}
				list = append(list, a)
			}
		}
	}
	for id, path := range answers {
		if !asked[id] {
			t.Errorf("an answer of %s has no request", path)
		}
	}
	return list
}

func archivedOf(t *testing.T, rec *warc.Record) archived {
	t.Helper()
	block, err := io.ReadAll(rec)
	if err != nil {
		t.Fatal(err)
	}
	at, err := url.Parse(rec.Get("WARC-Target-URI"))
	if err != nil {
		t.Fatal(err)
	}
	a := archived{Path: at.Path, Type: string(rec.Type()), Truncated: rec.Get("WARC-Truncated"), Profile: rec.Get("WARC-Profile")}
	if rec.Type() != warc.Resource {
		head, payload, _ := bytes.Cut(block, []byte("\r\n\r\n"))
		a.Status, block = strings.Fields(string(head))[1], payload
	}
	a.Payload = digest(t, bytes.NewReader(block))
	return a
}

// says makes the origin answer a path with a status and these bytes.
func (f *fleet) says(path string, status int, body string, header ...string) {
	f.origin.Handle(path, func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	})
}

func TestAnArchiveHasWhatWasSent(t *testing.T) {
	f := newFleet(t)
	s, err := warcstore.Open(t.Context(), t.TempDir(), warcstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f.store = s
	defer f.start(nil)()

	page := strings.Repeat("a page ", 1000)
	coded := string(fetchtest.Encode("gzip", []byte(page)))
	large, err := io.ReadAll(fetchtest.Resumable(1, 3<<20))
	if err != nil {
		t.Fatal(err)
	}
	largeCoded := fetchtest.Encode("gzip", large)
	f.says("/plain", 200, "plain")
	f.says("/coded", 200, coded, "Content-Encoding", "gzip")
	f.says("/moved", 302, "go on", "Location", "/there")
	f.says("/there", 200, "arrived")
	f.says("/missing", 404, "not found")
	f.says("/empty", 200, "")
	f.origin.Handle("/large-coded", rangesOf(largeCoded, 2<<20, "gzip"))
	f.origin.Handle("/large-cut", rangesOf(largeCoded, 1<<19, "gzip")) // too little for the attempt not to count
	versioned := f.page("/versioned", `"1"`, "")

	spec := largeSpec()
	spec.Retries = 0
	var lines []string
	for _, path := range []string{"/plain", "/coded", "/moved", "/missing", "/empty", "/versioned", "/cut?announce=100&send=40",
		"/resumable?kb=4096&every=1536&seed=7", "/resumable?kb=2048&seed=8", "/large-coded", "/large-cut"} {
		lines = append(lines, f.origin.URL(path))
	}
	f.enqueue("first", spec, lines...)
	if got := f.await("first", within); got.OK != 8 || got.Recorded() != 11 {
		t.Errorf("status %+v", got)
	}
	records := f.byURL("first")
	f.wantWhole(records[lines[7]], 7, 4<<20)
	f.wantWhole(records[lines[8]], 8, 2<<20)
	f.wantWhole(records[lines[9]], 1, 3<<20)
	if got := f.body(records[lines[1]]); got != page {
		t.Errorf("a coded page reads as %d bytes, want %d decoded", len(got), len(page))
	}

	sum := func(r io.Reader) string { return digest(t, r) }
	text := func(s string) string { return sum(strings.NewReader(s)) }
	pieces := fetchtest.Resumable(7, 4<<20)
	piece := func(from, to int64) string { return sum(io.NewSectionReader(pieces, from<<10, (to-from)<<10)) }
	want := []archived{
		{Path: "/coded", Type: "response", Status: "200", Payload: text(coded)},
		{Path: "/cut", Type: "response", Status: "200", Truncated: "disconnect", Payload: text(strings.Repeat(".", 40))},
		{Path: "/empty", Type: "response", Status: "200", Payload: text("")},
		{Path: "/large-coded", Type: "response", Status: "200", Truncated: "disconnect", Payload: text(string(largeCoded[:2<<20]))},
		{Path: "/large-coded", Type: "response", Status: "206", Payload: text(string(largeCoded[2<<20:]))},
		{Path: "/large-coded", Type: "resource", Payload: text(string(large))},
		{Path: "/large-cut", Type: "response", Status: "200", Truncated: "disconnect", Payload: text(string(largeCoded[:1<<19]))},
		{Path: "/missing", Type: "response", Status: "404", Payload: text("not found")},
		{Path: "/moved", Type: "response", Status: "302", Payload: text("go on")},
		{Path: "/plain", Type: "response", Status: "200", Payload: text("plain")},
		{Path: "/resumable", Type: "response", Status: "200", Payload: sum(fetchtest.Resumable(8, 2<<20))},
		{Path: "/resumable", Type: "response", Status: "200", Truncated: "disconnect", Payload: piece(0, 1536)},
		{Path: "/resumable", Type: "response", Status: "206", Truncated: "disconnect", Payload: piece(1536, 3072)},
		{Path: "/resumable", Type: "response", Status: "206", Payload: piece(3072, 4096)},
		{Path: "/resumable", Type: "resource", Payload: sum(fetchtest.Resumable(7, 4<<20))},
		{Path: "/there", Type: "response", Status: "200", Payload: text("arrived")},
		{Path: "/versioned", Type: "response", Status: "200", Payload: text(versioned.body)},
	}
	inOrder := cmp.Transformer("sorted", func(list []archived) []string {
		var lines []string
		for _, a := range list {
			lines = append(lines, fmt.Sprintf("%+v", a))
		}
		slices.Sort(lines)
		return lines
	})
	if diff := cmp.Diff(want, archive(t, s, "first"), inOrder); diff != "" {
		t.Errorf("the archive (-want +got):\n%s", diff)
	}

	again := f.sinceSpec("first")
	unchanged := f.refetch("second", again, f.origin.URL("/versioned"))[f.origin.URL("/versioned")]
	if !unchanged.Unchanged || f.body(unchanged) != versioned.body {
		t.Errorf("record %+v", unchanged)
	}
	want = []archived{{Path: "/versioned", Type: "revisit", Status: "304", Profile: warc.ServerNotModified, Payload: text("")}}
	if diff := cmp.Diff(want, archive(t, s, "second")); diff != "" {
		t.Errorf("the archive of what is unchanged (-want +got):\n%s", diff)
	}
	for _, r := range f.byURL("first") { // after it was packed
		f.body(r)
	}
}

// rangesOf serves bytes, coded as it says ("" = not), whose first answer breaks off after so many.
func rangesOf(coded []byte, cut int, coding string) http.HandlerFunc {
	first := true
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"gz"`)
		if coding != "" {
			w.Header().Set("Content-Encoding", coding)
		}
		if first {
			first = false
			w.Header().Set("Content-Length", fmt.Sprint(len(coded)))
			_, _ = w.Write(coded[:cut])
			panic(http.ErrAbortHandler)
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(coded))
	}
}
