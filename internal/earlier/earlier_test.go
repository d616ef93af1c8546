package earlier_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/earlier"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const job = tasks.JobID("monday")

var noon = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// answer is the record of a page with validators.
func answer(change func(*store.Record)) *store.Record {
	r := &store.Record{
		Job: string(job), Batch: "b", URL: "http://h/1", FinalURL: "http://h/1", Method: "GET", Outcome: store.OK, Status: 200,
		Headers: map[string][]string{"Etag": {`W/"1"`}, "Last-Modified": {"yesterday"}}, ContentType: "text/plain", Bytes: 5,
		SHA256: "aa", Body: "bodies/aa/aa.txt", FetchedAt: noon, Attempts: 1,
	}
	if change != nil {
		change(r)
	}
	if r.ID == "" {
		r.ID = string(tasks.NewRequestID(job, r.Method, r.URL, "", nil))
	}
	return r
}

func TestWhatARecordTellsOfItsRequest(t *testing.T) {
	whole := func(change func(*tasks.Since)) *tasks.Since {
		s := &tasks.Since{ETag: `W/"1"`, LastModified: "yesterday", FetchedAt: noon, Body: "bodies/aa/aa.txt", Bytes: 5, SHA256: "aa", ContentType: "text/plain"}
		if change != nil {
			change(s)
		}
		return s
	}
	set := func(name, value string) func(*store.Record) {
		return func(r *store.Record) { r.Headers[name] = []string{value} }
	}
	modifiedOnly := whole(func(s *tasks.Since) { s.ETag = "" })
	for name, c := range map[string]struct {
		change func(*store.Record)
		want   *tasks.Since
	}{
		"both validators":                  {nil, whole(nil)},
		"a HEAD":                           {func(r *store.Record) { r.Method = "HEAD" }, whole(nil)},
		"no ETag":                          {func(r *store.Record) { delete(r.Headers, "Etag") }, modifiedOnly},
		"an ETag that asks for any change": {set("Etag", "*"), modifiedOnly},
		"an ETag too long":                 {set("Etag", `"`+strings.Repeat("a", 2000)+`"`), modifiedOnly},
		"an ETag with a line":              {set("Etag", "\"a\r\nX: y\""), modifiedOnly},
		"an ETag not in UTF-8":             {set("Etag", "\"\uFFFD\""), modifiedOnly},
		"an empty page":                    {func(r *store.Record) { r.Bytes, r.Body = 0, "" }, whole(func(s *tasks.Since) { s.Bytes, s.Body = 0, "" })},
		"a redirect": {func(r *store.Record) {
			r.FinalURL, r.Redirects = "http://g/2", []store.Redirect{{URL: "http://h/1", Status: 302}}
		}, whole(func(s *tasks.Since) { s.URL = "http://g/2" })},
		"a URL that is sent escaped": {func(r *store.Record) { r.URL, r.FinalURL = "http://h/a|b", "http://h/a%7Cb" }, whole(nil)},
		"an unchanged one": {func(r *store.Record) { r.Status, r.Unchanged, r.BodyJob = 304, true, "sunday" },
			whole(func(s *tasks.Since) { s.BodyJob, s.FetchedAt = "sunday", time.Time{} })},

		"a POST":           {func(r *store.Record) { r.Method = "POST" }, nil},
		"no validators":    {func(r *store.Record) { r.Headers = nil }, nil},
		"an error":         {func(r *store.Record) { r.Outcome, r.Status = store.HTTPError, 404 }, nil},
		"a part":           {func(r *store.Record) { r.Status = 206 }, nil},
		"no content":       {func(r *store.Record) { r.Status = 204 }, nil},
		"an unasked 304":   {func(r *store.Record) { r.Outcome, r.Status = store.HTTPError, 304 }, nil},
		"a failure midway": {func(r *store.Record) { r.Outcome = store.Failed }, nil},
		"one not fetched":  {func(r *store.Record) { r.Outcome, r.Status, r.Headers = store.Skipped, 0, nil }, nil},
	} {
		if diff := cmp.Diff(c.want, earlier.Of(answer(c.change))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

// stored commits records, those of each slice as one unit of that generation.
func stored(t testing.TB, generations ...[]*store.Record) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(t.Context(), filepath.Join(t.TempDir(), "store"), filestore.Options{Sync: filestore.SyncOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	for generation, records := range generations {
		for n := 0; len(records) > 0; n++ {
			some := records[:min(len(records), 1000)]
			records = records[len(some):]
			commit(t, s, fmt.Sprintf("b%d", n), generation, some)
		}
	}
	return s
}

func commit(t testing.TB, s store.Store, batch string, generation int, records []*store.Record) {
	t.Helper()
	unit, err := s.Begin(t.Context(), string(job), store.UnitName(batch, generation))
	if err != nil {
		t.Fatal(err)
	}
	a := &store.Account{V: 1, Job: string(job), Batch: batch, Generation: generation}
	for _, r := range records {
		r.Batch, r.Generation = batch, generation
		if err := unit.Add(r); err != nil {
			t.Fatal(err)
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: r.Outcome})
	}
	if _, won, err := unit.Commit(t.Context(), a); err != nil || !won {
		t.Fatal(won, err)
	}
}

func index(t testing.TB, s store.Store) *earlier.Index {
	t.Helper()
	x, err := earlier.NewIndex(t.Context(), s, job)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := x.Close(); err != nil {
			t.Error(err)
		}
	})
	return x
}

func find(t testing.TB, x *earlier.Index, method, url, key string) *tasks.Since {
	t.Helper()
	s, err := x.Find(method, url, key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func numbered(n int) *store.Record {
	return answer(func(r *store.Record) {
		r.URL = fmt.Sprintf("http://h/%d", n)
		r.FinalURL, r.Headers = r.URL, map[string][]string{"Etag": {fmt.Sprintf(`"%d"`, n)}}
	})
}

func TestAnIndexFindsEveryRequestOfItsJobAndNoOther(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	var records []*store.Record
	for n := range 5000 {
		records = append(records, numbered(n))
	}
	records = append(records, answer(func(r *store.Record) { // the same URL by another method, and under a key
		r.Method, r.Headers = "HEAD", map[string][]string{"Etag": {`"head"`}}
	}), answer(func(r *store.Record) {
		r.ID, r.Headers = string(tasks.NewRequestID(job, "GET", r.URL, "k", nil)), map[string][]string{"Etag": {`"keyed"`}}
	}))
	x := index(t, stored(t, records))
	if got := x.Tally(); got != (earlier.Tally{Records: 5002, Conditional: 5002}) {
		t.Errorf("tally %+v", got)
	}
	for n := range 5000 {
		if s := find(t, x, "GET", fmt.Sprintf("http://h/%d", n), ""); s == nil || s.ETag != fmt.Sprintf(`"%d"`, n) || s.Body == "" {
			t.Fatalf("request %d: %+v", n, s)
		}
	}
	if s := find(t, x, "HEAD", "http://h/1", ""); s == nil || s.ETag != `"head"` {
		t.Errorf("HEAD: %+v", s)
	}
	if s := find(t, x, "GET", "http://h/1", "k"); s == nil || s.ETag != `"keyed"` {
		t.Errorf("keyed: %+v", s)
	}
	for _, other := range [][3]string{{"GET", "http://h/5000", ""}, {"GET", "http://h/1", "K"}, {"HEAD", "http://h/2", ""}, {"POST", "http://h/1", ""}} {
		if s := find(t, x, other[0], other[1], other[2]); s != nil {
			t.Errorf("%v: %+v", other, s)
		}
	}
}

// Half an id can be the same by chance: the rest decides.
func TestRequestsWithHalfAnIDInCommonAreToldApart(t *testing.T) {
	mine := numbered(1)
	twin := func(tail string) *store.Record {
		return answer(func(r *store.Record) {
			r.URL, r.Headers = "http://twin/"+tail, map[string][]string{"Etag": {`"twin"`}}
			r.ID = mine.ID[:16] + strings.Repeat(tail, 16)
		})
	}
	if s := find(t, index(t, stored(t, []*store.Record{twin("0"), mine, twin("f")})), "GET", mine.URL, ""); s == nil || s.ETag != `"1"` {
		t.Errorf("among twins: %+v", s)
	}
	if s := find(t, index(t, stored(t, []*store.Record{twin("0"), twin("f")})), "GET", mine.URL, ""); s != nil {
		t.Errorf("only twins are there: %+v", s)
	}
}

func TestTheHighestGenerationIsWhatCounts(t *testing.T) {
	first, replayed := numbered(1), numbered(1)
	replayed.Headers = map[string][]string{"Etag": {`"new"`}}
	if s := find(t, index(t, stored(t, []*store.Record{first}, []*store.Record{replayed})), "GET", first.URL, ""); s == nil || s.ETag != `"new"` {
		t.Errorf("replayed with success: %+v", s)
	}
	failed := answer(func(r *store.Record) { r.Outcome, r.Status = store.HTTPError, 500 })
	s := stored(t, []*store.Record{numbered(1)}, []*store.Record{failed})
	if s := find(t, index(t, s), "GET", first.URL, ""); s != nil {
		t.Errorf("replayed without: %+v", s)
	}
	tally, err := earlier.Requests(t.Context(), s, job, func(a enqueuer.Again) error {
		if a.Since != nil {
			t.Errorf("asked by %+v", a.Since)
		}
		return nil
	})
	if err != nil || tally != (earlier.Tally{Records: 1}) {
		t.Errorf("tally %+v, %v", tally, err)
	}
}

func TestTheRequestsOfAJobAreThoseThatRecordsTell(t *testing.T) {
	meta := answer(func(r *store.Record) { r.URL, r.Meta = "http://h/meta", []byte(`{"n":1}`) })
	head := answer(func(r *store.Record) { r.URL, r.Method, r.Headers = "http://h/head", "HEAD", nil })
	post := answer(func(r *store.Record) { r.URL, r.Method = "http://h/post", "POST" })
	failed := answer(func(r *store.Record) { r.URL, r.Outcome, r.Status = "http://h/failed", store.Failed, 0 })
	s := stored(t, []*store.Record{meta, head, post, failed})
	got := map[string]string{}
	tally, err := earlier.Requests(t.Context(), s, job, func(a enqueuer.Again) error {
		got[a.Method+" "+a.URL] = fmt.Sprintf("%s %t", a.Meta, a.Since != nil)
		return nil
	})
	want := map[string]string{"GET http://h/meta": `{"n":1} true`, "HEAD http://h/head": " false", "GET http://h/failed": " false"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil || tally != (earlier.Tally{Records: 4, Conditional: 1, Left: 1}) {
		t.Errorf("%v, %+v: %s", err, tally, diff)
	}
	stop := errors.New("stop")
	if _, err := earlier.Requests(t.Context(), s, job, func(enqueuer.Again) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("error %v, want that of do", err)
	}
}

func TestAJobThatTheStoreDoesNotHaveIsNamed(t *testing.T) {
	s := stored(t, []*store.Record{numbered(1)})
	if err := earlier.Check(t.Context(), s, job); err != nil {
		t.Error(err)
	}
	if err := earlier.Check(t.Context(), s, "sunday"); err == nil || !strings.HasSuffix(err.Error(), "has no results of job sunday") {
		t.Errorf("error %v", err)
	}
}

func TestNoTemporaryFileIsLeft(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	t.Setenv("TMP", dir) // where Windows keeps them
	s := stored(t, []*store.Record{numbered(1)})
	left := func() int {
		t.Helper()
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	before := left()
	x, err := earlier.NewIndex(t.Context(), s, job)
	if err != nil || left() != before+1 {
		t.Fatalf("%v, %d files", err, left())
	}
	if err := x.Close(); err != nil || left() != before {
		t.Errorf("%v, %d files after Close", err, left())
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := earlier.NewIndex(ctx, s, job); err == nil || left() != before {
		t.Errorf("%v, %d files after a failure", err, left())
	}
}

// A map of ids and validators would take twenty times as much.
func TestAnIndexTakes16BytesARequest(t *testing.T) {
	const n = 20_000
	records := make([]*store.Record, n)
	for i := range records {
		records[i] = numbered(i)
	}
	s := stored(t, records)
	before := heap()
	x := index(t, s)
	each := float64(heap()-before) / n
	if find(t, x, "GET", "http://h/7", "") == nil || each > 32 {
		t.Errorf("%.1f bytes a request, want about 16", each)
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
