package worker_test

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// largeSpec resumes bodies from 1 MiB on and gives nothing up early.
func largeSpec() tasks.Spec {
	s := tasks.DefaultSpec()
	s.Robots, s.HostRate, s.ResumeAbove, s.Retries = "ignore", 0, 1<<20, 2
	s.Backoff = tasks.Backoff{Base: tasks.Duration(10 * time.Millisecond), Factor: 1, Cap: tasks.Duration(time.Second), Jitter: "none"}
	return s
}

func digest(t *testing.T, r io.Reader) string {
	t.Helper()
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (f *fleet) wantWhole(r *store.Record, seed int, size int64) {
	f.t.Helper()
	want := digest(f.t, fetchtest.Resumable(seed, size))
	if r.Outcome != store.OK || r.Status != http.StatusOK || r.Bytes != size || r.SHA256 != want {
		f.t.Fatalf("record %+v (%+v), want %d bytes with digest %s", r, r.Error, size, want)
	}
	b, err := f.store.OpenBody(f.t.Context(), r.Job, r.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	defer b.Close()
	if got := digest(f.t, b); got != want {
		f.t.Errorf("the body that is kept has digest %s, want %s", got, want)
	}
}

func TestACutBodyGoesOnFromWhereItWas(t *testing.T) {
	for claim, query := range map[string]string{"known by its ETag": "", "known by its date": "&by=date"} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			defer f.start(nil)()
			const size = 40 << 20
			r := f.one(largeSpec(), f.origin.URL("/resumable?kb=40960&every=4096"+query))
			f.wantWhole(r, 1, size)
			if r.Attempts != 1 {
				t.Errorf("%d attempts are counted, though each moved the body on", r.Attempts)
			}
			if r.Resumed != 9 {
				t.Errorf("resumed %d times, want 9: ten pieces", r.Resumed)
			}
			if got := r.Headers["Content-Length"]; len(got) != 1 || got[0] != fmt.Sprint(size) || r.Headers["Content-Range"] != nil {
				t.Errorf("the header describes a piece: %v", r.Headers)
			}
			if sent := f.origin.BodyBytes(); sent > size*105/100 {
				t.Errorf("%d bytes were sent for %d", sent, size)
			}
		})
	}
}

func TestWhatCannotBeKnownAgainStartsOver(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	r := f.one(largeSpec(), f.origin.URL("/resumable?kb=4096&every=2048&by=nothing"))
	if r.Outcome != store.Failed || r.Error.Class != "body_cut" || r.Attempts != 3 {
		t.Errorf("record %+v", r)
	}
	if sent := f.origin.BodyBytes(); sent != 3*2<<20 {
		t.Errorf("%d bytes were sent, want 2 MiB each time", sent)
	}
}

func TestSmallBodiesStartOver(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	spec := largeSpec()
	spec.ResumeAbove = tasks.ResumeNever
	if r := f.one(spec, f.origin.URL("/resumable?kb=4096&every=2048")); r.Outcome != store.Failed || r.Attempts != 3 {
		t.Errorf("record %+v", r)
	}
}

func TestACodedBodyGoesOnAsSent(t *testing.T) {
	f := newFleet(t)
	page, err := io.ReadAll(fetchtest.Resumable(4, 3<<20))
	if err != nil {
		t.Fatal(err)
	}
	coded := fetchtest.Encode("gzip", page)
	var asked atomic.Int64
	f.origin.Handle("/coded", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"gz"`)
		w.Header().Set("Content-Encoding", "gzip")
		if asked.Add(1) == 1 {
			w.Header().Set("Content-Length", fmt.Sprint(len(coded)))
			w.Write(coded[:2<<20])
			panic(http.ErrAbortHandler)
		}
		if got := r.Header.Get("Accept-Encoding"); !strings.Contains(got, "gzip") {
			t.Errorf("the rest is asked for with Accept-Encoding %q", got)
		}
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(string(coded)))
	})
	defer f.start(nil)()
	r := f.one(largeSpec(), f.origin.URL("/coded"))
	f.wantWhole(r, 4, 3<<20)
	if r.Resumed != 1 {
		t.Errorf("resumed %d times, want 1", r.Resumed)
	}
}

func TestAttemptsThatMoveNothingCount(t *testing.T) {
	f := newFleet(t)
	var asked atomic.Int64
	f.origin.Handle("/stuck", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"s"`)
		w.Header().Set("Content-Length", "4194304")
		if asked.Add(1) > 1 {
			w.Header().Set("Content-Range", "bytes 2097152-4194303/4194304")
			w.Header().Set("Content-Length", "2097152")
			w.WriteHeader(http.StatusPartialContent)
			io.WriteString(w, "") // and not a byte of it
			panic(http.ErrAbortHandler)
		}
		io.Copy(w, io.LimitReader(fetchtest.Resumable(1, 4<<20), 2<<20))
		panic(http.ErrAbortHandler)
	})
	defer f.start(nil)()
	r := f.one(largeSpec(), f.origin.URL("/stuck"))
	if r.Outcome != store.Failed || r.Attempts != 3 || asked.Load() != 4 {
		t.Errorf("record %+v after %d requests; want 3 attempts and one that moved the body", r, asked.Load())
	}
}

func TestLargeBodiesAreSeenOnTheirWay(t *testing.T) {
	f := newFleet(t)
	half, end := make(chan struct{}), make(chan struct{})
	f.origin.Handle("/slow", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Etag", `"s"`)
		w.Header().Set("Content-Length", "4194304")
		io.Copy(w, io.LimitReader(fetchtest.Resumable(1, 4<<20), 2<<20))
		http.NewResponseController(w).Flush()
		close(half)
		select {
		case <-end:
		case <-r.Context().Done():
		}
		body := fetchtest.Resumable(1, 4<<20)
		body.Seek(2<<20, io.SeekStart)
		io.Copy(w, body)
	})
	defer f.start(nil)()
	url := f.origin.URL("/slow")
	f.enqueue("one", largeSpec(), url)
	<-half
	for deadline := time.Now().Add(within); ; <-time.After(50 * time.Millisecond) {
		s, err := f.ledger.Status(t.Context(), "one")
		if err != nil {
			t.Fatal(err)
		}
		if len(s.Large) == 1 && s.Large[0].Have == 2<<20 && s.Large[0].Length == 4<<20 && s.Large[0].URL == url && !s.Large[0].Cut {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("half of it is there, the status shows %+v", s.Large)
		}
	}
	close(end)
	f.await("one", within)
	left, err := f.ledger.LargeBodies(t.Context(), "one")
	if err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestAPartInOtherHandsIsWaitedFor(t *testing.T) {
	f := newFleet(t)
	url := f.origin.URL("/resumable?kb=4096&every=2048")
	part, err := f.store.(store.Resumer).Part(t.Context(), "one", string(tasks.NewRequestID("one", http.MethodGet, url, "", nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.start(nil)()
	f.enqueue("one", largeSpec(), url)
	for deadline := time.Now().Add(within); f.origin.Count("/resumable?kb=4096&every=2048") == 0; <-time.After(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing was asked for")
		}
	}
	if err := part.Release(); err != nil {
		t.Fatal(err)
	}
	f.await("one", within)
	for _, r := range f.records("one") {
		f.wantWhole(r, 1, 4<<20)
		if r.Attempts != 1 || r.Resumed != 1 {
			t.Errorf("%d attempts, resumed %d times: want one, that waited", r.Attempts, r.Resumed)
		}
	}
}
