package worker_test

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// half of a body of whole bytes is there when the tests of this file ask for the rest.
const half, whole = 1 << 20, 3 << 19

// each fetches URLs in one job, and then has a subtest look at the record of each.
func (f *fleet) each(spec tasks.Spec, claims map[string]string, look func(f *fleet, claim string, r *store.Record)) {
	f.t.Helper()
	f.enqueue("all", spec, slices.Sorted(maps.Values(claims))...)
	f.await("all", within)
	records := f.byURL("all")
	for claim, url := range claims {
		f.t.Run(claim, func(t *testing.T) {
			sub := *f
			sub.t = t
			if records[url] == nil {
				t.Fatalf("no record of %s", url)
			}
			look(&sub, claim, records[url])
		})
	}
}

// cutAfter sends so many bytes of a body that it announces whole, and breaks off.
func cutAfter(w http.ResponseWriter, body io.Reader, n int64) {
	w.Header().Set("Content-Length", fmt.Sprint(whole))
	_, _ = io.Copy(w, io.LimitReader(body, n))
	_ = http.NewResponseController(w).Flush()
	panic(http.ErrAbortHandler)
}

// ranged answers with 206 and these fields (name, value, ...), and n bytes of another body.
func ranged(n int64, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", half, whole-1, whole))
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(http.StatusPartialContent)
		_, _ = io.Copy(w, io.LimitReader(fetchtest.Resumable(9, whole), n))
	}
}

func TestAChangedBodyStartsOver(t *testing.T) {
	const tag, date = `"seed-1"`, "Mon, 02 Feb 2015 03:04:05 GMT"
	tests := map[string]struct {
		validator, value string
		misfit           http.HandlerFunc // answers the request for the rest
	}{
		"another version": {"Etag", tag, nil}, // If-Range fails: 200 with all of it
		"a range of it that was not asked for": {"Etag", tag,
			ranged(5, "Etag", tag, "Content-Range", "bytes 5-9/1572864")},
		"a range of another version":      {"Etag", tag, ranged(half, "Etag", `"seed-2"`)},
		"a range of another date":         {"Last-Modified", date, ranged(half, "Last-Modified", "Mon, 02 Feb 2015 03:04:06 GMT")},
		"a range without its ETag":        {"Etag", tag, ranged(half)},
		"a range with a date for an ETag": {"Etag", tag, ranged(half, "Last-Modified", date)},
		"a range without its date":        {"Last-Modified", date, ranged(half)},
		"a range of another length":       {"Etag", tag, ranged(half, "Etag", tag, "Content-Range", "bytes 1048576-1572863/1572865")},
		"a range longer than it says":     {"Etag", tag, ranged(half+7, "Etag", tag, "Content-Length", fmt.Sprint(half+7))},
		"a range shorter than it says":    {"Etag", tag, ranged(half-7, "Etag", tag, "Content-Length", fmt.Sprint(half-7))},
		"no such range": {"Etag", tag, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Range", "bytes */100")
			w.WriteHeader(http.StatusRequestedRangeNotSatisfiable)
		}},
	}
	f := newFleet(t)
	urls := map[string]string{}
	for claim, tt := range tests {
		var asked atomic.Int64
		path := fmt.Sprint("/changing/", len(urls))
		urls[claim] = f.origin.URL(path)
		f.origin.Handle(path, func(w http.ResponseWriter, r *http.Request) {
			n := asked.Add(1)
			switch {
			case n == 1:
				w.Header().Set(tt.validator, tt.value)
				cutAfter(w, fetchtest.Resumable(1, whole), half)
			case n == 2 && (r.Header.Get("Range") == "" || r.Header.Get("If-Range") != tt.value):
				t.Errorf("%s: the rest was asked for with %v", claim, r.Header)
			case n == 2 && tt.misfit != nil:
				tt.misfit(w, r)
				return
			}
			w.Header().Set("Etag", `"seed-3"`)
			http.ServeContent(w, r, "", time.Time{}, fetchtest.Resumable(3, whole))
		})
	}
	defer f.start(nil)()
	f.each(largeSpec(), urls, func(f *fleet, _ string, r *store.Record) {
		f.wantWhole(r, 3, whole)
		if r.Resumed != 0 {
			f.t.Errorf("resumed %d times, though it began anew", r.Resumed)
		}
	})
}

func TestMoreBytesThanWereAnnouncedAreRefused(t *testing.T) {
	f := newFleet(t)
	f.origin.Handle("/more", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"1"`)
		if r.Header.Get("Range") == "" {
			cutAfter(w, fetchtest.Resumable(9, whole), half)
		}
		ranged(half+7, "Etag", `"1"`)(w, r) // its length is said by Content-Range alone
	})
	defer f.start(nil)()
	if r := f.one(largeSpec(), f.origin.URL("/more")); r.Outcome != store.Failed || r.Error.Class != "protocol" || r.Body != "" {
		t.Errorf("record %+v (%+v), want class protocol", r, r.Error)
	}
}

// A body that is another one each time would be fetched for ever.
func TestAnAttemptThatBeganAnewCounts(t *testing.T) {
	for claim, tt := range map[string]struct {
		other http.HandlerFunc // answers requests for the rest; nil: with all of the next version
		asked int64            // how often the server is asked
	}{
		"answered with the whole of another version": {nil, 1 + 3},
		"answered with a range of another version":   {ranged(half, "Etag", `"other"`), 1 + 3*2},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			var asked atomic.Int64
			f.origin.Handle("/another", func(w http.ResponseWriter, r *http.Request) {
				n := asked.Add(1)
				if n > tt.asked { // it ends all the same
					return
				}
				if r.Header.Get("Range") != "" && tt.other != nil {
					tt.other(w, r)
					return
				}
				w.Header().Set("Etag", fmt.Sprintf(`"version-%d"`, n))
				cutAfter(w, fetchtest.Resumable(int(n), whole), half)
			})
			defer f.start(nil)()
			r := f.one(largeSpec(), f.origin.URL("/another"))
			if r.Outcome != store.Failed || r.Error.Class != "body_cut" || r.Attempts != 3 || asked.Load() != tt.asked {
				t.Errorf("record %+v after %d requests, want 3 attempts, and the first one that is not counted, in %d", r, asked.Load(), tt.asked)
			}
		})
	}
}

// The record of an attempt names the URL as it was sent, which is not always how Go spells what was enqueued.
func TestURLsThatAreSentInAnotherSpellingAreResumed(t *testing.T) {
	f := newFleet(t)
	body, err := io.ReadAll(fetchtest.Resumable(5, whole))
	if err != nil {
		t.Fatal(err)
	}
	urls := map[string]string{}
	for path, served := range map[string]string{"/a|b": "/a|b", "/q?q=a|b": "/q", "/%C3%A4": "/ä"} {
		urls[path] = f.origin.URL(path)
		f.origin.Handle(served, rangesOf(body, half, ""))
	}
	defer f.start(nil)()
	f.each(largeSpec(), urls, func(f *fleet, _ string, r *store.Record) {
		f.wantWhole(r, 5, whole)
		if r.Resumed != 1 {
			f.t.Errorf("resumed %d times, want 1", r.Resumed)
		}
	})
}

func TestWhoAsksForACodingHasTheBodyAsSent(t *testing.T) {
	page, err := io.ReadAll(fetchtest.Resumable(4, whole))
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		sent   []byte
		coding string
	}{
		"one coding":                {fetchtest.Encode("gzip", page), "gzip"},
		"more than are ever undone": {page, "gzip, gzip, gzip, gzip"},
		"one that is none":          {page, "identity"},
		"one that is not known":     {page, "x-other"},
		"one that it only claims":   {page, "gzip"},
	}
	f := newFleet(t)
	urls := map[string]string{}
	for claim, tt := range tests {
		path := fmt.Sprint("/coded/", len(urls))
		urls[claim] = f.origin.URL(path)
		f.origin.Handle(path, rangesOf(tt.sent, half, tt.coding))
	}
	defer f.start(nil)()
	spec := largeSpec()
	spec.Header = tasks.Header{"Accept-Encoding": {"gzip"}}
	f.each(spec, urls, func(f *fleet, claim string, r *store.Record) {
		sent := tests[claim].sent
		if r.Outcome != store.OK || r.Resumed != 1 || r.Bytes != int64(len(sent)) || r.SHA256 != digest(f.t, bytes.NewReader(sent)) {
			f.t.Errorf("record %+v (%+v), want the %d bytes that were sent", r, r.Error, len(sent))
		}
	})
}

// What the worker is to undo it must be able to.
func TestALargeBodyThatCannotBeDecodedFails(t *testing.T) {
	page, err := io.ReadAll(fetchtest.Resumable(4, whole))
	if err != nil {
		t.Fatal(err)
	}
	f := newFleet(t)
	f.origin.Handle("/many", rangesOf(page, half, "gzip, gzip, gzip, gzip"))
	f.origin.Handle("/claimed", rangesOf(page, half, "gzip"))
	defer f.start(nil)()
	f.each(largeSpec(), map[string]string{
		"more codings than are undone": f.origin.URL("/many"),
		"not what it says":             f.origin.URL("/claimed"),
	}, func(f *fleet, _ string, r *store.Record) {
		if r.Outcome != store.Failed || r.Error.Class != "decode" {
			f.t.Errorf("record %+v (%+v), want class decode", r, r.Error)
		}
	})
}
