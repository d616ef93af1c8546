package worker_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

const within = 30 * time.Second

// one runs a job of one line to its end and returns its record.
func (f *fleet) one(spec tasks.Spec, line string) *store.Record {
	f.t.Helper()
	f.enqueue("one", spec, line)
	if s := f.await("one", within); s.Accepted != 1 || s.Recorded() != 1 {
		f.t.Fatalf("status %+v", s)
	}
	records := f.records("one")
	if len(records) != 1 {
		f.t.Fatalf("%d records", len(records))
	}
	for _, r := range records {
		return r
	}
	return nil
}

func (f *fleet) body(r *store.Record) string {
	f.t.Helper()
	if r.Body == "" {
		return ""
	}
	b, err := f.store.OpenBody(f.t.Context(), r.BodyOf(), r.Body)
	if err != nil {
		f.t.Fatal(err)
	}
	defer func() { _ = b.Close() }()
	data, err := io.ReadAll(b)
	if err != nil || int64(len(data)) != r.Bytes {
		f.t.Errorf("body of %d bytes (%v), the record says %d", len(data), err, r.Bytes)
	}
	return string(data)
}

func (f *fleet) echo(r *store.Record) (e fetchtest.Echo) {
	f.t.Helper()
	if err := json.Unmarshal([]byte(f.body(r)), &e); err != nil {
		f.t.Fatal(err)
	}
	return e
}

// list returns the tasks that asynq has in one state.
func (f *fleet) list(state asynq.TaskState) []*asynq.TaskInfo {
	f.t.Helper()
	i := asynq.NewInspectorFromRedisClient(f.rdb)
	from := map[asynq.TaskState]func(string, ...asynq.ListOption) ([]*asynq.TaskInfo, error){
		asynq.TaskStateScheduled: i.ListScheduledTasks, asynq.TaskStateRetry: i.ListRetryTasks, asynq.TaskStateArchived: i.ListArchivedTasks,
		asynq.TaskStatePending: i.ListPendingTasks,
	}
	infos, err := from[state]("default")
	if err != nil {
		f.t.Fatal(err)
	}
	return infos
}

// awaitOne waits until asynq has one task in a state.
func (f *fleet) awaitOne(state asynq.TaskState) *asynq.TaskInfo {
	f.t.Helper()
	for deadline := time.Now().Add(within); time.Now().Before(deadline); <-time.After(20 * time.Millisecond) {
		if infos := f.list(state); len(infos) == 1 {
			return infos[0]
		}
	}
	f.t.Fatalf("no task is %s after %s", state, within)
	return nil
}

func TestARedirectWithinItsHostIsFollowed(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	from := f.origin.URL("/redirect?to=/redirect%3Fto%3D%2Fpage%2F1%26code%3D307&code=301")
	r := f.one(fastSpec(), from)
	want := []store.Redirect{{URL: from, Status: 301}, {URL: f.origin.URL("/redirect?to=/page/1&code=307"), Status: 307}}
	if r.URL != from || r.FinalURL != f.origin.URL("/page/1") || r.Status != 200 || r.Attempts != 1 {
		t.Errorf("record %+v", r)
	}
	if diff := cmp.Diff(len(want), len(r.Redirects)); diff != "" || r.Redirects[0] != want[0] || r.Redirects[1].Status != 307 {
		t.Errorf("redirects %+v, want %+v", r.Redirects, want)
	}
	if f.body(r) != string(fetchtest.Page("/page/1", 0)) {
		t.Error("the body is not the page's")
	}
	if n := len(f.list(asynq.TaskStateScheduled)); n != 0 {
		t.Errorf("%d tasks left", n)
	}
}

// What goes on at another host is that host's work: a batch of its own, with the same request in it.
func TestARedirectToAnotherHostLeavesItsBatch(t *testing.T) {
	f := newFleet(t)
	other := f.origin.Host(2)
	defer f.start(nil)()
	from := f.origin.URL("/redirect?code=307&to=" + other + "/echo")
	line := fmt.Sprintf(`{"url":%q,"method":"PUT","body":"x=1","headers":{"Authorization":"Bearer secret","Cookie":"a=b","X-Keep":"1"},"meta":{"n":1}}`, from)
	spec := fastSpec()
	spec.Header = tasks.Header{"X-Job": {"j"}, "Cookie": {"job=secret"}}
	r := f.one(spec, line)
	id := tasks.NewRequestID("one", "PUT", from, "", []byte("x=1"))
	listed := tasks.ListedBatchID("one", []int64{tasks.RequestHash("one", "PUT", from, "", []byte("x=1"))})
	if r.ID != string(id) || r.URL != from || r.FinalURL != other+"/echo" || r.Method != "PUT" || r.Batch == string(listed) || r.Attempts != 1 {
		t.Errorf("record %+v, want that of %s", r, id)
	}
	if len(r.Redirects) != 1 || r.Redirects[0] != (store.Redirect{URL: from, Status: 307}) || string(r.Meta) != `{"n":1}` {
		t.Errorf("redirects %+v, meta %s", r.Redirects, r.Meta)
	}
	e := f.echo(r)
	if e.Method != "PUT" || e.Body != "x=1" || e.Header.Get("X-Keep") != "1" || e.Header.Get("X-Job") != "j" {
		t.Errorf("the other host got %+v", e)
	}
	for _, secret := range []string{"Authorization", "Cookie"} {
		if got := e.Header.Get(secret); got != "" {
			t.Errorf("%s went over to the other host: %q", secret, got)
		}
	}
	if n := f.origin.Total(); n != 2 {
		t.Errorf("%d requests reached the origin, want 2", n)
	}
}

func TestAttemptsGoAlongToAnotherHost(t *testing.T) {
	f := newFleet(t)
	other := f.origin.Host(2)
	tries := 0
	f.origin.Handle("/first-fails", func(w http.ResponseWriter, r *http.Request) {
		if tries++; tries == 1 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		http.Redirect(w, r, other+"/status/500", http.StatusFound)
	})
	defer f.start(nil)()
	spec := fastSpec()
	spec.Retries = 2
	r := f.one(spec, f.origin.URL("/first-fails"))
	if r.Attempts != 3 || r.Status != 500 || r.Outcome != store.HTTPError || f.origin.Count("/status/500") != 2 {
		t.Errorf("record %+v, the other host was asked %d times; want 3 attempts in all, 2 of them there", r, f.origin.Count("/status/500"))
	}
}

func TestRedirectsThatNeverEnd(t *testing.T) {
	f := newFleet(t)
	f.origin.Host(2)
	f.origin.Handle("/ping", func(w http.ResponseWriter, r *http.Request) {
		next := map[bool]string{true: f.origin.URL("/ping"), false: f.origin.Host(2) + "/ping"}[strings.HasPrefix(r.Host, "127.0.0.2")]
		http.Redirect(w, r, next, http.StatusFound)
	})
	defer f.start(nil)()
	f.enqueue("loops", fastSpec(), f.origin.URL("/loop"), f.origin.URL("/ping"))
	f.await("loops", within)
	records := f.records("loops")
	if len(records) != 2 {
		t.Errorf("%d records, want 2", len(records))
	}
	for url, r := range records {
		if r.Outcome != store.Failed || r.Error.Class != "too_many_redirects" || r.Attempts != 1 || len(r.Redirects) != 20 {
			t.Errorf("%s: %s %+v after %d attempts and %d redirects", url, r.Outcome, r.Error, r.Attempts, len(r.Redirects))
		}
	}
}

func TestACutBodyIsTriedAgainAndNeverASuccess(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	spec := fastSpec()
	spec.Retries = 2
	r := f.one(spec, f.origin.URL("/cut"))
	if r.Outcome != store.Failed || r.Error.Class != "body_cut" || r.Attempts != 3 || r.Body != "" || r.Bytes != 0 || f.origin.Total() != 3 {
		t.Errorf("record %+v (%+v) after %d requests", r, r.Error, f.origin.Total())
	}
	info := f.awaitOne(asynq.TaskStateArchived)
	if !strings.HasPrefix(info.LastErr, "body_cut: ") || !strings.Contains(info.LastErr, "(attempts: 3)") {
		t.Errorf("archived with %q", info.LastErr)
	}
}

func TestABodyIsStoredDecoded(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	for _, coding := range []string{"gzip", "br", "zstd", "deflate"} {
		f.enqueue(tasks.JobID(coding), fastSpec(), f.origin.URL("/"+coding+"?size=5000"))
		f.await(tasks.JobID(coding), within)
		for url, r := range f.records(tasks.JobID(coding)) {
			if f.body(r) != string(fetchtest.Page("/"+coding, 5000)) || r.Bytes != 5000 {
				t.Errorf("%s: %d bytes are not the page", url, r.Bytes)
			}
		}
	}
}

func TestAFinalAnswerStaysInItsBatchWithItsBody(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	f.enqueue("mixed", fastSpec(), f.origin.URL("/page/1"), f.origin.URL("/page/2"), f.origin.URL("/status/404"), f.origin.URL("/page/3"))
	s := f.await("mixed", within)
	if s.OK != 3 || s.HTTPErr != 1 || s.Classes["http_404"] != 1 || s.Open != 0 {
		t.Errorf("status %+v", s)
	}
	records := f.records("mixed")
	missing, neighbour := records[f.origin.URL("/status/404")+"#0"], records[f.origin.URL("/page/3")+"#0"]
	if missing.Status != 404 || f.body(missing) != "404 Not Found\n" || missing.Attempts != 1 || missing.Batch != neighbour.Batch {
		t.Errorf("record %+v, its neighbour is in %s", missing, neighbour.Batch)
	}
	if n := len(f.list(asynq.TaskStateArchived)); n != 0 {
		t.Errorf("%d tasks in the archive", n)
	}
}

func TestARequestIsTheJobsUnlessItsLineSaysOtherwise(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	spec := fastSpec()
	spec.Method, spec.Data, spec.UserAgent = "POST", []byte("job=1"), "agent/1"
	spec.Header = tasks.Header{"X-Job": {"j"}, "X-Both": {"job"}}
	url := f.origin.URL("/echo")
	f.enqueue("echo", spec, url+"?plain",
		`{"url":"`+url+`?own","method":"PATCH","body":"own=1","headers":{"x-both":"line","x-line":"l"}}`)
	f.await("echo", within)
	records := f.records("echo")
	plain, own := f.echo(records[url+"?plain#0"]), f.echo(records[url+"?own#0"])
	if plain.Method != "POST" || plain.Body != "job=1" || plain.Header.Get("X-Job") != "j" || plain.Header.Get("X-Both") != "job" ||
		plain.Header.Get("User-Agent") != "agent/1" {
		t.Errorf("plain: %+v", plain)
	}
	if own.Method != "PATCH" || own.Body != "own=1" || own.Header.Get("X-Job") != "j" || own.Header.Get("X-Line") != "l" ||
		fmt.Sprint(own.Header["X-Both"]) != "[line]" || own.Header.Get("User-Agent") != "agent/1" {
		t.Errorf("own: %+v", own)
	}
}

func TestALargeRequestBodyIsSentAndThenGone(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	large := strings.Repeat("0123456789", 2000)
	r := f.one(fastSpec(), fmt.Sprintf(`{"url":%q,"body":%q}`, f.origin.URL("/echo"), large))
	if e := f.echo(r); e.Method != "POST" || e.Body != large {
		t.Errorf("sent: %s with %d bytes", e.Method, len(e.Body))
	}
	for deadline := time.Now().Add(within); ; <-time.After(20 * time.Millisecond) {
		keys, err := f.rdb.Keys(t.Context(), "fetchfleet:{one}:body:*").Result()
		if err == nil && len(keys) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left in Redis: %v, %v", keys, err)
		}
	}
}

// Trouble shows where people look for it: the first wait under Scheduled, later ones under Retry, with the error.
func TestWaitsAreShownInAsynq(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	spec := fastSpec()
	spec.Backoff = tasks.Backoff{Base: tasks.Duration(2 * time.Second), Factor: 1000, Cap: tasks.Duration(time.Hour), Jitter: "none"}
	f.enqueue("busy", spec, f.origin.URL("/always429"))
	info := f.awaitOne(asynq.TaskStateScheduled)
	batch, err := tasks.ParseBatch(tasks.BatchID(info.ID), info.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if !batch.Carried || batch.Waits != 1 || batch.Attempts != 0 || batch.LastError != "http_429: the server answered 429" || batch.WaitSince == 0 {
		t.Errorf("scheduled as %+v", batch)
	}
	again := f.awaitOne(asynq.TaskStateRetry)
	if again.ID != info.ID || again.Retried != 0 || again.LastErr != "http_429: the server answered 429" {
		t.Errorf("waits again as %+v", again)
	}
	if left := time.Until(again.NextProcessAt); left < 30*time.Minute || left > time.Hour {
		t.Errorf("due in %s, want about 33 minutes", left)
	}
	if s, err := f.ledger.Status(t.Context(), "busy"); err != nil || s.Open != 1 || s.Recorded() != 0 {
		t.Errorf("status %+v, %v", s, err)
	}
}

func TestAttemptsAreShownInAsynq(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	spec := fastSpec()
	spec.Backoff = tasks.Backoff{Base: tasks.Duration(2 * time.Second), Factor: 1000, Cap: tasks.Duration(time.Hour), Jitter: "none"}
	f.enqueue("broken", spec, f.origin.URL("/status/500"))
	info := f.awaitOne(asynq.TaskStateScheduled)
	batch, err := tasks.ParseBatch(tasks.BatchID(info.ID), info.Payload)
	if err != nil || batch.Attempts != 1 || batch.Waits != 0 || batch.LastError != "http_500: the server answered 500" {
		t.Errorf("scheduled as %+v, %v", batch, err)
	}
	if again := f.awaitOne(asynq.TaskStateRetry); again.ID != info.ID || again.Retried != 1 || !strings.HasPrefix(again.LastErr, "http_500") {
		t.Errorf("waits again as %+v", again)
	}
}

// Run on an archived task takes its request again: a new record in the next generation, and the figures move with it.
func TestRunOnAnArchivedTaskReplaysIt(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	healthy := make(chan struct{})
	f.origin.Handle("/ill", func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-healthy:
			_, _ = io.WriteString(w, "well")
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	spec := fastSpec()
	spec.Retries = 1
	f.enqueue("replay", spec, f.origin.URL("/ill"))
	if s := f.await("replay", within); s.HTTPErr != 1 || s.Classes["http_500"] != 1 {
		t.Fatalf("status %+v", s)
	}
	info := f.awaitOne(asynq.TaskStateArchived)
	run := func() {
		t.Helper()
		if err := asynq.NewInspectorFromRedisClient(f.rdb).RunTask("default", info.ID); err != nil {
			t.Fatal(err)
		}
	}
	run() // still ill: archived again, with another text
	for deadline := time.Now().Add(within); ; <-time.After(20 * time.Millisecond) {
		if again := f.list(asynq.TaskStateArchived); len(again) == 1 && again[0].LastErr != info.LastErr {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("not archived again")
		}
	}
	if s := f.await("replay", within); s.HTTPErr != 1 || s.Accepted != 1 || s.Open != 0 {
		t.Errorf("after a replay that failed: %+v", s)
	}
	close(healthy)
	run()
	for deadline := time.Now().Add(within); ; <-time.After(20 * time.Millisecond) {
		s := f.await("replay", within)
		if s.OK == 1 && s.HTTPErr == 0 && s.Recorded() == 1 && len(s.Classes) == 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("status %+v", s)
		}
	}
	records := f.records("replay")
	if r := records[f.origin.URL("/ill")+"#2"]; len(records) != 3 || r == nil || r.Outcome != store.OK || r.Attempts != 1 {
		t.Errorf("records %v, the newest %+v", len(records), r)
	}
}
