package worker_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

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

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// fleet is what the tests of this package run: a real Redis, a store (of files, unless a test puts another there), and one
// worker in this process.
type fleet struct {
	t      *testing.T
	redis  *redistest.Server
	rdb    redis.UniversalClient
	ledger *ledger.Ledger
	dir    string
	store  store.Store
	origin *fetchtest.Origin
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	f := &fleet{t: t, redis: redistest.Start(t), dir: t.TempDir(), origin: fetchtest.NewOrigin()}
	t.Cleanup(f.origin.Close)
	f.rdb = f.client()
	f.ledger = ledger.New(f.rdb)
	s, err := filestore.Open(t.Context(), f.dir, filestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f.store = s
	return f
}

func (f *fleet) client() redis.UniversalClient {
	f.t.Helper()
	return taskstest.Dial(f.t, f.redis.URL())
}

// start runs a worker until the returned function is called, which waits for it.
func (f *fleet) start(change func(*worker.Options)) (stop func()) {
	f.t.Helper()
	fetcher := fetch.New(fetch.Options{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	opts := worker.Options{
		Redis: f.client(), Store: f.store, Fetcher: fetcher, Gate: newGate(f.client()),
		Logger: zerolog.New(zerolog.NewTestWriter(f.t)).Level(zerolog.InfoLevel), DrainTimeout: 5 * time.Second,
	}
	if change != nil {
		change(&opts)
	}
	w, err := worker.New(f.t.Context(), opts)
	if err != nil {
		f.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	return func() {
		cancel()
		if err := <-done; err != nil {
			f.t.Errorf("worker: %v", err)
		}
		fetcher.Close()
	}
}

// enqueue puts lines into a job and seals it.
func (f *fleet) enqueue(job tasks.JobID, spec tasks.Spec, lines ...string) enqueuer.Counts {
	f.t.Helper()
	ctx := f.t.Context()
	spec, _, err := f.ledger.Create(ctx, job, spec, nil)
	if err != nil {
		f.t.Fatal(err)
	}
	e := enqueuer.New(f.ledger, dispatch.New(f.rdb, f.ledger), enqueuer.Options{Job: job, Spec: spec,
		OnBadLine: func(l lists.Line) { f.t.Logf("bad line %d: %v", l.Number, l.Err) }})
	r := lists.Open([]string{"-"}, strings.NewReader(strings.Join(lines, "\n")), lists.Options{})
	defer r.Close()
	if err := e.Run(ctx, r); err != nil {
		f.t.Fatal(err)
	}
	if _, err := f.ledger.Seal(ctx, job); err != nil {
		f.t.Fatal(err)
	}
	return e.Counts()
}

// await waits until the job has ended and returns its status.
func (f *fleet) await(job tasks.JobID, limit time.Duration) ledger.Status {
	f.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		s, err := f.ledger.Status(f.t.Context(), job)
		if err != nil {
			f.t.Fatal(err)
		}
		if s.State == "ended" {
			return s
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("job %s has not ended after %s: %+v", job, limit, s)
		}
		<-time.After(20 * time.Millisecond)
	}
}

// records returns every record of the job, by URL and generation.
func (f *fleet) records(job tasks.JobID) map[string]*store.Record {
	f.t.Helper()
	got := map[string]*store.Record{}
	for unit, err := range f.store.Units(f.t.Context(), string(job)) {
		if err != nil {
			f.t.Fatal(err)
		}
		for r, err := range f.store.Records(f.t.Context(), string(job), unit) {
			if err != nil {
				f.t.Fatal(err)
			}
			key := fmt.Sprintf("%s#%d", r.URL, r.Generation)
			if got[key] != nil {
				f.t.Errorf("two records of %s", key)
			}
			got[key] = r
		}
	}
	return got
}

func fastSpec() tasks.Spec {
	s := tasks.DefaultSpec()
	s.Robots = "ignore" // its own tests obey it
	s.HostRate, s.HostConns = 0, 0
	s.Backoff = tasks.Backoff{Base: tasks.Duration(10 * time.Millisecond), Factor: 2, Cap: tasks.Duration(time.Second), Jitter: "none"}
	return s
}

func TestEveryURLOfAListIsStoredOnce(t *testing.T) {
	f := newFleet(t)
	stop := f.start(nil)
	defer stop()
	var lines []string
	for i := range 300 {
		lines = append(lines, f.origin.URL(fmt.Sprintf("/page/%d", i)))
	}
	lines = append(lines, lines[:50]...)
	counts := f.enqueue("list", fastSpec(), lines...)
	if counts.Accepted != 300 || counts.Duplicates != 50 {
		t.Errorf("counts = %+v, want 300 accepted and 50 duplicates", counts)
	}
	s := f.await("list", 30*time.Second)
	if s.OK != 300 || s.Accepted != 300 || s.Open != 0 {
		t.Errorf("status = %+v", s)
	}
	if n := len(f.records("list")); n != 300 {
		t.Errorf("%d records, want 300", n)
	}
}

// newGate keeps limits in rdb, as a fleet does.
func newGate(rdb redis.UniversalClient) worker.Gate {
	return hosts.NewFleet(hosts.NewRedis(rdb, asynqkeys.CallLua, nil))
}
