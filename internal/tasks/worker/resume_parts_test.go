package worker_test

import (
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warcstore"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

// hasPart reports whether the beginning of a URL's body is kept.
func (f *fleet) hasPart(job tasks.JobID, url string) bool {
	f.t.Helper()
	kept, err := f.store.(store.Resumer).HasPart(f.t.Context(), string(job), string(tasks.NewRequestID(job, http.MethodGet, url, "", nil)))
	if err != nil {
		f.t.Fatal(err)
	}
	return kept
}

func TestNothingIsKeptForARequestThatFailedForGood(t *testing.T) {
	for _, kind := range []string{"file", "warc"} {
		t.Run(kind, func(t *testing.T) {
			f := newFleet(t)
			if kind == "warc" {
				s, err := warcstore.Open(t.Context(), t.TempDir(), warcstore.Options{})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = s.Close() })
				f.store = s
			}
			cut, silent := f.origin.URL("/cut-there"), f.origin.URL("/silent")
			var rests atomic.Int64
			f.origin.Handle("/cut-there", func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Etag", `"1"`)
				cutAfter(w, fetchtest.Resumable(1, whole), half/2) // too little for the attempt not to count
			})
			f.origin.Handle("/silent", func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") != "" {
					if !f.hasPart("all", silent) {
						t.Error("the rest is asked for, and nothing is kept")
					}
					rests.Add(1)
					panic(http.ErrAbortHandler) // no answer comes any more
				}
				w.Header().Set("Etag", `"1"`)
				cutAfter(w, fetchtest.Resumable(1, whole), half)
			})
			defer f.start(nil)()
			spec := largeSpec()
			spec.Retries = 0
			f.each(spec, map[string]string{"cut": cut, "without an answer": silent}, func(f *fleet, _ string, r *store.Record) {
				if r.Outcome != store.Failed || r.Attempts != 1 {
					f.t.Errorf("record %+v", r)
				}
				if f.hasPart("all", r.URL) {
					f.t.Error("the beginning of its body is kept")
				}
			})
			if rests.Load() == 0 {
				t.Error("the rest was never asked for")
			}
		})
	}
}

// Redis forgets the notes on large bodies with its data; an embedded one does with each run.
func TestAWorkerThatIsToldFindsBodiesThatRedisDoesNotKnowOf(t *testing.T) {
	for claim, told := range map[string]bool{"told": true, "not told": false} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			url := f.origin.URL("/resumable?kb=1536")
			part, err := f.store.(store.Resumer).Part(t.Context(), "one", string(tasks.NewRequestID("one", http.MethodGet, url, "", nil)))
			if err != nil {
				t.Fatal(err)
			}
			err = part.Begin(store.PartNote{URL: url, ETag: `"seed-1"`, Length: whole, Stretches: []store.Stretch{{At: time.Now()}}})
			if err == nil {
				_, err = io.Copy(part, io.LimitReader(fetchtest.Resumable(1, whole), half))
			}
			if err == nil {
				err = part.Release()
			}
			if err != nil {
				t.Fatal(err)
			}
			defer f.start(func(o *worker.Options) { o.Parts = told })()
			r := f.one(largeSpec(), url)
			f.wantWhole(r, 1, whole)
			resumed, sent := 0, int64(whole)
			if told {
				resumed, sent = 1, whole-half
			}
			if r.Resumed != resumed || f.origin.BodyBytes() != sent {
				t.Errorf("resumed %d times, %d bytes were sent; want %d and %d", r.Resumed, f.origin.BodyBytes(), resumed, sent)
			}
		})
	}
}

// A body that nobody moves is not shown as one on its way.
func TestABodyThatWasCutShowsAsCut(t *testing.T) {
	f := newFleet(t)
	for path, etag := range map[string]string{"/goes-on": `"1"`, "/begins-again": ""} {
		f.origin.Handle(path, func(w http.ResponseWriter, _ *http.Request) {
			if etag != "" {
				w.Header().Set("Etag", etag)
			}
			cutAfter(w, fetchtest.Resumable(1, whole), half)
		})
	}
	f.origin.Handle("/undecodable", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Etag", `"1"`)
		w.Header().Set("Content-Encoding", "gzip")
		w.Header().Set("Content-Length", fmt.Sprint(whole))
		_, _ = io.Copy(w, fetchtest.Resumable(1, whole))
	})
	defer f.start(nil)()
	spec := largeSpec()
	spec.RetryOn = "+decode"
	spec.Backoff.Base, spec.Backoff.Cap = tasks.Duration(time.Hour), tasks.Duration(time.Hour) // it is looked at meanwhile
	want := map[string]int64{f.origin.URL("/goes-on"): half, f.origin.URL("/begins-again"): 0, f.origin.URL("/undecodable"): 0}
	var urls []string
	for url := range want {
		urls = append(urls, url)
	}
	f.enqueue("cut", spec, urls...)
	for deadline := time.Now().Add(within); ; <-time.After(10 * time.Millisecond) {
		s, err := f.ledger.Status(t.Context(), "cut")
		if err != nil {
			t.Fatal(err)
		}
		if allCut(s.Large, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("all are cut, the status shows %+v", s.Large)
		}
	}
}

// allCut reports whether each of these URLs is there, as one that was cut and of which so many bytes are kept.
func allCut(bodies []ledger.Large, want map[string]int64) bool {
	for _, b := range bodies {
		if kept, ok := want[b.URL]; !ok || !b.Cut || b.Have != kept || b.Length != whole {
			return false
		}
	}
	return len(bodies) == len(want)
}
