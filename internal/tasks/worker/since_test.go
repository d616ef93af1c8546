package worker_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/earlier"
	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// sinceSpec refers to an earlier job in the fleet's own store.
func (f *fleet) sinceSpec(earlier tasks.JobID) tasks.Spec {
	f.t.Helper()
	s := fastSpec()
	var err error
	if s.SinceStore, err = f.store.Identity(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	s.Since = earlier
	return s
}

// refetch is again, and returns the records by URL.
func (f *fleet) refetch(job tasks.JobID, spec tasks.Spec, lines ...string) map[string]*store.Record {
	f.t.Helper()
	f.again(job, spec, lines...)
	return f.byURL(job)
}

// again makes the requests of an earlier job again, or with lines those, to the job's end.
func (f *fleet) again(job tasks.JobID, spec tasks.Spec, lines ...string) {
	f.t.Helper()
	ctx := f.t.Context()
	spec, _, err := f.ledger.Create(ctx, job, spec, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	opts := enqueuer.Options{Job: job, Spec: spec}
	if len(lines) > 0 {
		index, err := earlier.NewIndex(ctx, f.store, spec.Since)
		if err != nil {
			f.t.Fatal(err)
		}
		defer func() {
			if err := index.Close(); err != nil {
				f.t.Error(err)
			}
		}()
		opts.Earlier = index.Find
	}
	e := enqueuer.New(f.ledger, dispatch.New(f.rdb, f.ledger), opts)
	if len(lines) > 0 {
		list := lists.Open([]string{"-"}, strings.NewReader(strings.Join(lines, "\n")), lists.Options{})
		defer list.Close()
		err = e.Run(ctx, list)
	} else {
		err = e.Refetch(ctx, func(ctx context.Context, do func(enqueuer.Again) error) error {
			_, err := earlier.Requests(ctx, f.store, spec.Since, do)
			return err
		})
	}
	if err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.ledger.Seal(ctx, job); err != nil {
		f.t.Fatal(err)
	}
	f.await(job, within)
}

// byURL are the records of a job by URL.
func (f *fleet) byURL(job tasks.JobID) map[string]*store.Record {
	f.t.Helper()
	out := map[string]*store.Record{}
	for key, r := range f.records(job) {
		url, _, _ := strings.Cut(key, "#")
		out[url] = r
	}
	return out
}

// page is a page with validators that remembers the conditions it was asked under.
type page struct {
	mu             sync.Mutex
	etag, modified string
	body           string
	fails          int // how often it answers 500 before anything else
	asked          []string
}

func (p *page) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, r.Method+" "+r.Header.Get("If-None-Match")+"|"+r.Header.Get("If-Modified-Since"))
	if p.fails > 0 {
		p.fails--
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	if p.etag != "" {
		w.Header().Set("ETag", p.etag)
	}
	match, since := r.Header.Get("If-None-Match"), r.Header.Get("If-Modified-Since")
	if match != "" && match == p.etag || match == "" && since != "" && since == p.modified {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if p.modified != "" {
		w.Header().Set("Last-Modified", p.modified)
	}
	w.Header().Set("Content-Type", "text/x-page")
	_, _ = io.WriteString(w, p.body)
}

// seen returns the conditions since the last call.
func (p *page) seen() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := p.asked
	p.asked = nil
	return out
}

func (p *page) change(etag, modified, body string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.etag, p.modified, p.body = etag, modified, body
}

// page adds one to the origin.
func (f *fleet) page(path, etag, modified string) *page {
	p := &page{etag: etag, modified: modified, body: "the body of " + path}
	f.origin.Handle(path, p.ServeHTTP)
	return p
}

const (
	monday  = "Mon, 16 Nov 2026 08:00:00 GMT"
	tuesday = "Tue, 17 Nov 2026 08:00:00 GMT"
)

func TestAnUnchangedPageIsNotSentAgain(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	pages := map[string]*page{
		"/strong": f.page("/strong", `"a,b"`, ""), "/weak": f.page("/weak", `W/"a"`, ""),
		"/modified": f.page("/modified", "", monday), "/both": f.page("/both", `"2"`, monday),
		"/odd": f.page("/odd", `unquoted \ tag`, ""), "/none": f.page("/none", "", ""), "/star": f.page("/star", "*", ""),
	}
	var lines []string
	for path := range pages {
		lines = append(lines, f.origin.URL(path))
	}
	f.enqueue("first", fastSpec(), lines...)
	f.await("first", within)
	first := f.byURL("first")
	for path, p := range pages {
		if got := p.seen(); cmp.Diff([]string{"GET |"}, got) != "" {
			t.Errorf("%s was asked %q at first", path, got)
		}
	}
	second := f.refetch("second", f.sinceSpec("first"))
	want := map[string]string{
		"/strong": `GET "a,b"|`, "/weak": `GET W/"a"|`, "/modified": "GET |" + monday, "/both": `GET "2"|` + monday,
		"/odd": `GET unquoted \ tag|`, "/none": "GET |", "/star": "GET |",
	}
	for path, p := range pages {
		a, b := first[f.origin.URL(path)], second[f.origin.URL(path)]
		if got := p.seen(); cmp.Diff([]string{want[path]}, got) != "" {
			t.Errorf("%s was asked %q, want %q", path, got, want[path])
		}
		if f.body(b) != p.body || b.SHA256 != a.SHA256 || b.Bytes != a.Bytes || b.ContentType != "text/x-page" || b.Outcome != store.OK {
			t.Errorf("%s: record %+v", path, b)
		}
		if fresh := path == "/none" || path == "/star"; fresh {
			if b.Status != 200 || b.Unchanged || b.BodyJob != "" {
				t.Errorf("%s without validators: %+v", path, b)
			}
		} else if b.Status != 304 || !b.Unchanged || b.BodyJob != "first" || b.Body != a.Body || b.Error != nil {
			t.Errorf("%s: %+v, want an unchanged one", path, b)
		}
	}
	s := f.await("second", within)
	bytes := int64(len(pages["/none"].body) + len(pages["/star"].body))
	if s.OK != 7 || s.Recorded() != 7 || s.Unchanged != 5 || s.Bytes != bytes {
		t.Errorf("status %+v, want 7 ok, 5 of them unchanged, and %d bytes: what was not sent does not count", s, bytes)
	}
	rebuilt := ledger.New(taskstest.Embedded(t)) // from the store alone, as fleet run does
	if _, _, err := rebuilt.Create(t.Context(), "second", f.sinceSpec("first"), nil); err != nil {
		t.Fatal(err)
	}
	if _, err := audit.Rebuild(t.Context(), rebuilt, f.store, "second", f.sinceSpec("first")); err != nil {
		t.Fatal(err)
	}
	if r, err := rebuilt.Status(t.Context(), "second"); err != nil || r.OK != s.OK || r.Unchanged != s.Unchanged || r.Bytes != s.Bytes {
		t.Errorf("rebuilt: %+v, %v", r, err)
	}
}

func TestAChangedPageIsFetchedAnew(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	tagged, dated := f.page("/tagged", `"1"`, monday), f.page("/dated", "", monday)
	f.enqueue("first", fastSpec(), f.origin.URL("/tagged"), f.origin.URL("/dated"))
	f.await("first", within)
	tagged.change(`"2"`, monday, "new")
	dated.change("", tuesday, "newer")
	for url, r := range f.refetch("second", f.sinceSpec("first")) {
		want := map[string]string{f.origin.URL("/tagged"): "new", f.origin.URL("/dated"): "newer"}[url]
		if r.Status != 200 || r.Unchanged || r.BodyJob != "" || f.body(r) != want {
			t.Errorf("%s: %+v", url, r)
		}
	}
}

// Each job hands on what it was told, and the body stays where it is.
func TestAChainOfJobsRefersToTheBodyItself(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	tagged, dated := f.page("/tagged", `"1"`, monday), f.page("/dated", "", monday) // their 304 has no Last-Modified
	url := f.origin.URL("/tagged")
	f.enqueue("a", fastSpec(), url, f.origin.URL("/dated"))
	f.await("a", within)
	for _, step := range []struct{ job, since, bodyJob tasks.JobID }{{"b", "a", "a"}, {"c", "b", "a"}} {
		tagged.seen()
		dated.seen()
		for url, r := range f.refetch(step.job, f.sinceSpec(step.since)) {
			if !r.Unchanged || r.BodyJob != string(step.bodyJob) || !strings.HasPrefix(f.body(r), "the body of") {
				t.Errorf("%s in %s: %+v, want the body of job %s", url, step.job, r, step.bodyJob)
			}
		}
		if a, b := tagged.seen(), dated.seen(); cmp.Diff([]string{`GET "1"|` + monday, "GET |" + monday}, append(a, b...)) != "" {
			t.Errorf("%s asked by %q and %q", step.job, a, b)
		}
	}
	tagged.change(`"2"`, tuesday, "new")
	if r := f.refetch("d", f.sinceSpec("c"))[url]; r.Unchanged || f.body(r) != "new" {
		t.Errorf("changed: %+v", r)
	}
	if r := f.refetch("e", f.sinceSpec("d"))[url]; !r.Unchanged || r.BodyJob != "d" || f.body(r) != "new" {
		t.Errorf("after the change: %+v, want the body of job d", r)
	}
}

// A validator means something to the URL that gave it, and to no other on the way.
func TestOnlyTheURLThatAnsweredIsAskedConditionally(t *testing.T) {
	f := newFleet(t)
	other := f.origin.Host(2)
	target := f.page("/target", `"1"`, "")
	f.origin.Handle("/tar|get", target.ServeHTTP)
	var mu sync.Mutex
	turned := map[string]string{"/here": f.origin.URL("/target?a"), "/away": other + "/tar|get"} // the pipe is sent escaped
	var leaked []string
	for path := range turned {
		f.origin.Handle(path, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			if r.Header.Get("If-None-Match") != "" {
				leaked = append(leaked, path)
			}
			http.Redirect(w, r, turned[path], http.StatusFound)
		})
	}
	defer f.start(nil)()
	here, away := f.origin.URL("/here"), f.origin.URL("/away")
	f.enqueue("first", fastSpec(), here, away)
	f.await("first", within)
	target.seen()
	second := f.refetch("second", f.sinceSpec("first"))
	if got := target.seen(); cmp.Diff([]string{`GET "1"|`, `GET "1"|`}, got) != "" || len(leaked) > 0 {
		t.Errorf("the target was asked %q, validators went to %q", got, leaked)
	}
	for url, r := range second {
		if !r.Unchanged || r.BodyJob != "first" || f.body(r) != target.body || len(r.Redirects) != 1 {
			t.Errorf("%s: %+v", url, r)
		}
	}
	mu.Lock()
	turned["/here"], turned["/away"] = f.origin.URL("/target?elsewhere"), f.origin.URL("/target?home")
	mu.Unlock()
	for url, r := range f.refetch("third", f.sinceSpec("second")) {
		if r.Unchanged || r.Status != 200 || f.body(r) != target.body {
			t.Errorf("%s leads elsewhere now: %+v", url, r)
		}
	}
	if got := target.seen(); cmp.Diff([]string{"GET |", "GET |"}, got) != "" {
		t.Errorf("other URLs were asked %q", got)
	}
}

func TestRequestsThatSayWhatTheyWantAreLeftAlone(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	p := f.page("/p", `"1"`, "")
	url := f.origin.URL("/p")
	keyed := func(key, rest string) string { return fmt.Sprintf(`{"url":%q,"key":%q%s}`, url, key, rest) }
	first := []string{url, keyed("inm", ""), keyed("ims", ""), keyed("range", ""), keyed("post", `,"method":"POST"`),
		keyed("head", `,"method":"HEAD"`), keyed("body", `,"method":"GET","body":"x"`), keyed("meta", `,"meta":7`)}
	f.enqueue("first", fastSpec(), first...)
	f.await("first", within)
	p.seen()
	second := []string{url, keyed("inm", `,"headers":{"if-none-match":"\"own\""}`), keyed("ims", `,"headers":{"If-Modified-Since":"x"}`),
		keyed("range", `,"headers":{"Range":"bytes=0-"}`), keyed("post", `,"method":"POST"`), keyed("head", `,"method":"HEAD"`),
		keyed("body", `,"method":"GET","body":"x"`), keyed("meta", `,"meta":8`), keyed("new", "")}
	f.again("second", f.sinceSpec("first"), second...)
	got := map[string]int{}
	for _, asked := range p.seen() {
		got[asked]++
	}
	want := map[string]int{`GET "1"|`: 2, `GET "own"|`: 1, "GET |x": 1, "GET |": 3, "POST |": 1, `HEAD "1"|`: 1}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	unchanged := 0
	for _, r := range f.all("second") {
		if r.Unchanged {
			unchanged++
		}
	}
	if unchanged != 3 {
		t.Errorf("%d unchanged, want the plain one, the one with meta and the HEAD", unchanged)
	}
}

// all are the records of a job.
func (f *fleet) all(job tasks.JobID) (out []*store.Record) {
	f.t.Helper()
	for unit, err := range f.store.Units(f.t.Context(), string(job)) {
		if err != nil {
			f.t.Fatal(err)
		}
		for r, err := range f.store.Records(f.t.Context(), string(job), unit) {
			if err != nil {
				f.t.Fatal(err)
			}
			out = append(out, r)
		}
	}
	return out
}

func TestAJobWithABodyForAllAsksUnconditionally(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	p := f.page("/p", `"1"`, "")
	f.enqueue("first", fastSpec(), f.origin.URL("/p"))
	f.await("first", within)
	p.seen()
	spec := f.sinceSpec("first")
	spec.Data = []byte("q=1")
	r := f.refetch("second", spec, f.origin.URL("/p"))[f.origin.URL("/p")]
	if got := p.seen(); cmp.Diff([]string{"GET |"}, got) != "" || r.Unchanged {
		t.Errorf("asked %q, record %+v", got, r)
	}
}

func TestA304ThatNobodyAskedForIsAnError(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	r := f.one(fastSpec(), f.origin.URL("/status/304"))
	if r.Outcome != store.HTTPError || r.Status != 304 || r.Unchanged || r.Error.Class != "http_304" {
		t.Errorf("record %+v", r)
	}
}

func TestAWorkerWithAnotherStoreFetchesAnew(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	p := f.page("/p", `"1"`, "")
	f.enqueue("first", fastSpec(), f.origin.URL("/p"))
	f.await("first", within)
	p.seen()
	spec := f.sinceSpec("first")
	spec.SinceStore = "another"
	r := f.refetch("second", spec)[f.origin.URL("/p")]
	if got := p.seen(); cmp.Diff([]string{"GET |"}, got) != "" || r.Unchanged || f.body(r) != p.body {
		t.Errorf("asked %q, record %+v", got, r)
	}
}

func TestARequestThatIsTriedAgainStaysConditional(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	p := f.page("/p", `"1"`, "")
	f.enqueue("first", fastSpec(), f.origin.URL("/p"))
	f.await("first", within)
	p.seen()
	p.mu.Lock()
	p.fails = 2 // it leaves its batch, and comes back by asynq's retry
	p.mu.Unlock()
	r := f.refetch("second", f.sinceSpec("first"))[f.origin.URL("/p")]
	want := []string{`GET "1"|`, `GET "1"|`, `GET "1"|`}
	if got := p.seen(); cmp.Diff(want, got) != "" || !r.Unchanged || r.Attempts != 3 || f.body(r) != p.body {
		t.Errorf("asked %q, record %+v", got, r)
	}
}

// Whatever changed, and whatever servers do about validators: asking only for changes ends with what fetching
// everything again would end with.
func TestAskingForChangesBringsWhatFetchingAllBrings(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	random := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	var lines []string
	for i := range 120 {
		by := []string{"both", "weak", "etag", "modified", "none"}[random.IntN(5)]
		url := f.origin.URL(fmt.Sprintf("/versioned/%d?by=%s", i, by))
		if random.IntN(4) == 0 {
			url = f.origin.URL("/redirect?to=" + strings.NewReplacer("?", "%3F", "=", "%3D").Replace(url))
		}
		lines = append(lines, url)
	}
	lines = append(lines, f.origin.URL("/status/404"), f.origin.URL("/gzip?size=3000"))
	f.enqueue("job0", fastSpec(), lines...)
	f.await("job0", within)
	for round := 1; round <= 3; round++ {
		for i := range 120 {
			if random.IntN(5) == 0 {
				f.ask(fmt.Sprintf("/change/%d", i))
			}
		}
		earlier, job, anew := tasks.JobID(fmt.Sprintf("job%d", round-1)), tasks.JobID(fmt.Sprintf("job%d", round)), tasks.JobID(fmt.Sprintf("anew%d", round))
		var given []string
		if round == 2 {
			given = lines
		}
		since := f.contents(f.refetch(job, f.sinceSpec(earlier), given...))
		f.enqueue(anew, fastSpec(), lines...)
		f.await(anew, within)
		if diff := cmp.Diff(f.contents(f.byURL(anew)), since); diff != "" {
			t.Fatalf("round %d (-all anew +since):\n%s", round, diff)
		}
		unchanged := 0
		for _, r := range f.byURL(job) {
			if r.Unchanged {
				unchanged++
			}
		}
		if unchanged < 30 {
			t.Errorf("round %d: only %d of 120 pages are unchanged", round, unchanged)
		}
	}
}

// contents are what a job's records say and hold, by URL.
func (f *fleet) contents(records map[string]*store.Record) map[string]string {
	out := make(map[string]string, len(records))
	for url, r := range maps.All(records) {
		out[url] = fmt.Sprintf("%s %s %s %d %s %s", r.Outcome, r.FinalURL, r.ContentType, r.Bytes, r.SHA256, f.body(r))
	}
	return out
}

// ask makes a request of the test's own.
func (f *fleet) ask(path string) {
	f.t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(f.origin.URL(path))
	if err != nil {
		f.t.Fatal(err)
	}
	_ = resp.Body.Close()
}
