package audit_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const job = tasks.JobID("audited")

// site is a fleet of one, with a site to fetch: real Redis, real files.
type site struct {
	t          *testing.T
	rdb        redis.UniversalClient
	ledger     *ledger.Ledger
	dispatcher *dispatch.Dispatcher
	dir        string
	store      *filestore.Store
	origin     *fetchtest.Origin
	ill        atomic.Bool // /sick answers 500 while it is
}

func newSite(t *testing.T) *site {
	t.Helper()
	s := &site{t: t, rdb: taskstest.Dial(t, redistest.Start(t).URL()), dir: t.TempDir(), origin: fetchtest.NewOrigin()}
	t.Cleanup(s.origin.Close)
	s.ledger = ledger.New(s.rdb)
	s.dispatcher = dispatch.New(s.rdb, s.ledger)
	var err error
	if s.store, err = filestore.Open(t.Context(), s.dir, filestore.Options{Sync: filestore.SyncOff}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.store.Close() })
	s.ill.Store(true)
	s.origin.Handle("/sick", func(w http.ResponseWriter, r *http.Request) {
		if s.ill.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = io.WriteString(w, "sick")
	})
	return s
}

func spec() tasks.Spec {
	s := tasks.DefaultSpec()
	s.HostRate, s.HostConns, s.Retries = 0, 0, 1
	s.Backoff = tasks.Backoff{Base: tasks.Duration(time.Millisecond), Factor: 1, Cap: tasks.Duration(time.Hour), Jitter: "none"}
	return s
}

// enqueue puts 25 requests into the job and seals it: 20 pages, one of each trouble.
func (s *site) enqueue(spec tasks.Spec) {
	s.t.Helper()
	ctx := s.t.Context()
	lines := []string{s.origin.URL("/status/404"), s.origin.URL("/sick"), s.origin.URL("/cut"),
		s.origin.URL("/redirect?to=" + s.origin.Host(2) + "/page/hop"), s.origin.URL("/loop")}
	for i := range 20 {
		lines = append(lines, s.origin.URL(fmt.Sprintf("/page/%d", i)))
	}
	if _, _, err := s.ledger.Create(ctx, job, spec, nil); err != nil {
		s.t.Fatal(err)
	}
	list := lists.Open([]string{"-"}, strings.NewReader(strings.Join(lines, "\n")), lists.Options{})
	defer list.Close()
	if err := enqueuer.New(s.ledger, s.dispatcher, enqueuer.Options{Job: job, Spec: spec}).Run(ctx, list); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.ledger.Seal(ctx, job); err != nil {
		s.t.Fatal(err)
	}
}

// work runs a worker until the job is as it should be.
func (s *site) work(until func(ledger.Status) bool) {
	s.t.Helper()
	fetcher := fetch.New(fetch.Options{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	defer fetcher.Close()
	w, err := worker.New(s.t.Context(), worker.Options{Redis: s.rdb, Store: s.store, Fetcher: fetcher, Gate: hosts.NewFleet(hosts.NewRedis(s.rdb, asynqkeys.CallLua, nil)), Logger: zerolog.Nop()})
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(s.t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	for deadline := time.Now().Add(30 * time.Second); ; <-time.After(20 * time.Millisecond) {
		status := s.status()
		if until(status) {
			break
		}
		if time.Now().After(deadline) {
			s.t.Errorf("after 30s: %+v", status)
			break
		}
	}
	cancel()
	if err := <-done; err != nil {
		s.t.Error(err)
	}
}

func ended(s ledger.Status) bool { return s.State == "ended" }

func (s *site) status() ledger.Status {
	s.t.Helper()
	status, err := s.ledger.Status(s.t.Context(), job)
	if err != nil {
		s.t.Fatal(err)
	}
	return status
}

func (s *site) audit() *audit.Report {
	s.t.Helper()
	r, err := (&audit.Auditor{Redis: s.rdb, Ledger: s.ledger, Store: s.store}).Audit(s.t.Context(), job, 1)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

// wantProblem checks that the audit names a problem by these words.
func (s *site) wantProblem(words ...string) {
	s.t.Helper()
	r := s.audit()
	for _, p := range r.Problems {
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(p, w) }) {
			return
		}
	}
	s.t.Errorf("no problem names %q: %q", words, r.Problems)
}

func TestAnHonestJobPasses(t *testing.T) {
	s := newSite(t)
	s.enqueue(spec())
	if r := s.audit(); !r.OK() || r.Open != 25 || r.Recorded != 0 || r.Accepted != 25 {
		t.Errorf("before: %+v", r)
	}
	s.work(ended)
	if r := s.audit(); !r.OK() || r.Open != 0 || r.Recorded != 25 || r.Records != 25 || r.State != "ended" {
		t.Errorf("after: %+v", r)
	}
	if st := s.status(); st.OK != 21 || st.HTTPErr != 2 || st.Failed != 2 {
		t.Errorf("status %+v", st)
	}
}

// files returns the files of one kind that hold more than nothing, in order of their names.
func (s *site) files(kind string) []string {
	s.t.Helper()
	paths, err := filepath.Glob(filepath.Join(s.dir, string(job), kind, "*"))
	if err != nil {
		s.t.Fatal(err)
	}
	return slices.DeleteFunc(paths, func(p string) bool { info, err := os.Stat(p); return err != nil || info.Size() == 0 })
}

func (s *site) rewrite(path string, change func([]byte) []byte) {
	s.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := os.WriteFile(path, change(data), 0o644); err != nil {
		s.t.Fatal(err)
	}
}

func firstLine(data []byte) []byte {
	line, _, _ := bytes.Cut(data, []byte("\n"))
	return append(line, '\n')
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	ctx := context.Background()
	stats := "fetchfleet:{" + string(job) + "}:stats"
	for name, c := range map[string]struct {
		tamper func(s *site)
		words  []string
	}{
		"a record removed": {func(s *site) {
			s.rewrite(s.files("records")[0], func(b []byte) []byte { return b[len(firstLine(b)):] })
		}, []string{"the account names request", "its record is not there"}},
		"a record twice in its unit": {func(s *site) {
			s.rewrite(s.files("records")[0], func(b []byte) []byte { return append(b, firstLine(b)...) })
		}, []string{"has two records of generation 0"}},
		"a record also in another unit": {func(s *site) {
			var line []byte
			s.rewrite(s.files("records")[0], func(b []byte) []byte { line = firstLine(b); return b })
			s.rewrite(s.files("records")[1], func(b []byte) []byte { return append(b, line...) })
		}, []string{"has two records of generation 0"}},
		"a unit removed": {func(s *site) {
			unit := strings.TrimSuffix(filepath.Base(s.files("records")[0]), ".jsonl")
			for _, kind := range []string{"records", "accounts"} {
				for _, p := range s.files(kind) {
					if strings.HasPrefix(filepath.Base(p), unit) {
						_ = os.Remove(p)
					}
				}
			}
		}, []string{"accepted 25 requests", "unaccounted for"}},
		"a foreign record": {func(s *site) { s.foreign() }, []string{"has a record, but was never accepted"}},
		"a broken account": {func(s *site) {
			s.rewrite(s.files("accounts")[0], func(b []byte) []byte { return b[:len(b)/2] })
		}, []string{"unit "}},
		"a counter off": {func(s *site) { s.rdb.HIncrBy(ctx, stats, "ok", 1) }, []string{"counts 22 requests ok, the store has 21"}},
		"accepted off":  {func(s *site) { s.rdb.HIncrBy(ctx, stats, "accepted", 1) }, []string{"accepted 26 requests, but 25 are recorded"}},
		"open off":      {func(s *site) { s.rdb.HIncrBy(ctx, stats, "open", 1) }, []string{"counts 1 open requests, its open batches hold 0"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSite(t)
			s.enqueue(spec())
			s.work(ended)
			c.tamper(s)
			s.wantProblem(c.words...)
		})
	}
}

// foreign commits a unit of a request that nobody has accepted.
func (s *site) foreign() {
	s.t.Helper()
	ctx, id := s.t.Context(), string(tasks.NewRequestID(job, "GET", "http://foreign/", "", nil))
	u, err := s.store.Begin(ctx, string(job), "foreign")
	if err != nil {
		s.t.Fatal(err)
	}
	err = u.Add(&store.Record{ID: id, Job: string(job), Batch: "foreign", URL: "http://foreign/", Method: "GET", Outcome: store.OK})
	if err != nil {
		s.t.Fatal(err)
	}
	a := &store.Account{V: 1, Job: string(job), Batch: "foreign", Worker: "w", Delivery: "d",
		Entries: []store.Entry{{ID: id, Fate: store.Recorded, Outcome: store.OK}}}
	if _, won, err := u.Commit(ctx, a); err != nil || !won {
		s.t.Fatalf("commit: %v, %v", won, err)
	}
}

func TestABatchThatNobodyWillBringBackIsStranded(t *testing.T) {
	s := newSite(t)
	s.enqueue(spec())
	inspector := asynq.NewInspectorFromRedisClient(s.rdb)
	infos, err := inspector.ListPendingTasks("default")
	if err != nil || len(infos) < 3 {
		t.Fatalf("%d tasks, %v", len(infos), err)
	}
	gone, parked := infos[0].ID, infos[1].ID
	if err := errors.Join(inspector.DeleteTask("default", gone), inspector.ArchiveTask("default", parked)); err != nil {
		t.Fatal(err)
	}
	s.wantProblem("batch "+gone+" is open", "asynq has no task for it")
	s.wantProblem("batch "+parked+" is open", "its asynq task is archived")
	if r := s.audit(); !slices.Equal(slices.Sorted(slices.Values(r.Stranded)), slices.Sorted(slices.Values([]string{gone, parked}))) {
		t.Errorf("stranded: %q", r.Stranded)
	}
}

func TestAnotherStoreIsRefused(t *testing.T) {
	s := newSite(t)
	s.enqueue(spec())
	s.work(ended)
	other, err := filestore.Open(t.Context(), t.TempDir(), filestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = other.Close() }()
	_, err = (&audit.Auditor{Redis: s.rdb, Ledger: s.ledger, Store: other}).Audit(t.Context(), job, 1)
	if _, ok := errors.AsType[*ledger.OtherStoreError](err); !ok {
		t.Errorf("error = %v", err)
	}
}

// rebuilt is the job as the store alone tells it, in a Redis that knows nothing else.
func (s *site) rebuilt(spec tasks.Spec) *ledger.Ledger {
	s.t.Helper()
	ctx := s.t.Context()
	l := ledger.New(taskstest.Embedded(s.t))
	if _, _, err := l.Create(ctx, job, spec, nil); err != nil {
		s.t.Fatal(err)
	}
	n, err := audit.Rebuild(ctx, l, s.store, job, spec)
	if err != nil || n != s.status().Recorded() {
		s.t.Errorf("rebuilt %d records, %v; want %d", n, err, s.status().Recorded())
	}
	return l
}

func (s *site) wantSame(l *ledger.Ledger) {
	s.t.Helper()
	got, err := l.Status(s.t.Context(), job)
	ignore := cmpopts.IgnoreFields(ledger.Status{}, "State", "Created", "Ended", "Rate", "Store", "Outbox")
	if diff := cmp.Diff(s.status(), got, ignore); err != nil || diff != "" {
		s.t.Errorf("%v %s", err, diff)
	}
	want, err := s.ledger.OpenBatches(s.t.Context(), job)
	if err != nil {
		s.t.Fatal(err)
	}
	open, err := l.OpenBatches(s.t.Context(), job)
	if diff := cmp.Diff(want, open); err != nil || diff != "" {
		s.t.Errorf("open batches: %v %s", err, diff)
	}
}

func TestTheStoreAloneTellsTheLedger(t *testing.T) {
	s := newSite(t)
	s.enqueue(spec())
	s.work(ended)
	s.wantSame(s.rebuilt(spec()))
}

func TestTheStoreAloneTellsWhatIsToBeTriedAgain(t *testing.T) {
	s := newSite(t)
	slow := spec()
	slow.Backoff.Base = tasks.Duration(time.Hour) // two requests are to be tried again, and wait
	s.enqueue(slow)
	s.work(func(st ledger.Status) bool { return st.Open == 2 && st.Recorded() == 23 })
	if r := s.audit(); !r.OK() || r.Open != 2 || r.Recorded != 23 {
		t.Errorf("audit: %+v", r)
	}
	s.wantSame(s.rebuilt(slow))
}

// each collects the records that count, by URL.
func (s *site) each() map[string]*store.Record {
	s.t.Helper()
	got := map[string]*store.Record{}
	err := audit.Each(s.t.Context(), s.store, job, func(r *store.Record) error {
		if got[r.URL] != nil {
			s.t.Errorf("%s comes twice", r.URL)
		}
		got[r.URL] = r
		return nil
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return got
}

func TestFailuresAreTakenAgain(t *testing.T) {
	s := newSite(t)
	s.enqueue(spec())
	s.work(ended)
	s.ill.Store(false)
	ctx := t.Context()
	taken := map[tasks.RequestID]bool{}
	again := func() {
		t.Helper()
		err := audit.Failures(ctx, s.store, job, func(r ledger.Retake) error {
			_, ok, err := s.ledger.Retake(ctx, job, r)
			taken[r.Request] = taken[r.Request] || ok
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.dispatcher.Drain(ctx, job, 0); err != nil {
			t.Fatal(err)
		}
	}
	again()
	again() // a second press does nothing
	if r := s.audit(); !r.OK() || r.Open != 4 || r.Recorded != 21 {
		t.Errorf("while they are taken again: %+v", r)
	}
	s.work(ended)
	if st := s.status(); st.OK != 22 || st.HTTPErr != 1 || st.Failed != 2 || st.Accepted != 25 || len(taken) != 4 {
		t.Errorf("status %+v, %d taken", st, len(taken))
	}
	if r := s.audit(); !r.OK() || r.Records != 29 || r.Recorded != 25 {
		t.Errorf("audit: %+v", r)
	}
	records := s.each()
	sick := records[s.origin.URL("/sick")]
	if len(records) != 25 || sick == nil || sick.Generation != 1 || sick.Outcome != store.OK {
		t.Errorf("%d records count, that of /sick is %+v", len(records), sick)
	}
	generations, err := audit.Generations(ctx, s.store, job)
	if err != nil || len(generations) != 4 || slices.ContainsFunc(slices.Collect(maps.Values(generations)), func(n int) bool { return n != 1 }) {
		t.Errorf("generations %v, %v", generations, err)
	}
	s.wantSame(s.rebuilt(spec()))
	again() // in the generation after that
	if st := s.status(); st.Open != 3 {
		t.Errorf("status %+v, want the three that fail still open", st)
	}
}
