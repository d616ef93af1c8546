package audit_test

import (
	"context"
	"fmt"
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// counting counts what is asked of a store.
type counting struct {
	store.Store
	asked map[string]int
	twice []string // units of which something was asked again
	seen  map[string]bool
}

func (s *counting) ask(what, unit string) {
	s.asked[what]++
	if s.seen[what+unit] {
		s.twice = append(s.twice, what+" of "+unit)
	}
	s.seen[what+unit] = true
}

func (s *counting) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	s.asked["lists"]++
	return s.Store.Units(ctx, job)
}

func (s *counting) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	s.ask("account", unit)
	return s.Store.Account(ctx, job, unit)
}

func (s *counting) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	s.ask("records", unit)
	return s.Store.Records(ctx, job, unit)
}

func (s *counting) ReadUnit(ctx context.Context, job, unit string) (*store.Account, iter.Seq2[*store.Record, error], error) {
	s.ask("unit", unit)
	return store.ReadUnit(ctx, s.Store, job, unit)
}

// smallUnit is a unit of one request.
func smallUnit(i int) (*store.Account, *store.Record) {
	batch, url := fmt.Sprintf("b%05d", i), fmt.Sprintf("http://a.example/%d", i)
	r := &store.Record{ID: string(tasks.NewRequestID(job, "GET", url, "", nil)), Job: string(job), Batch: batch, URL: url, Method: "GET",
		Outcome: store.OK, Attempts: 1, Worker: "w"}
	return &store.Account{V: store.AccountVersion, Job: string(job), Batch: batch, Worker: "w", Delivery: "d",
		Entries: []store.Entry{{ID: r.ID, Fate: store.Recorded, Outcome: store.OK}}}, r
}

// ledgerOf is that of a job whose requests are those of so many small units.
func ledgerOf(t *testing.T, units int) *audit.Auditor {
	t.Helper()
	ctx, rdb := t.Context(), taskstest.Embedded(t)
	l := ledger.New(rdb)
	if _, _, err := l.Create(ctx, job, spec(), nil); err != nil {
		t.Fatal(err)
	}
	to := l.Restore(job, units)
	for i := range units {
		_, r := smallUnit(i)
		if err := to.Recorded(ctx, tasks.RequestID(r.ID), 0, ledger.Counter{Name: string(store.OK), Add: 1}); err != nil {
			t.Fatal(err)
		}
	}
	if err := to.Close(ctx); err != nil {
		t.Fatal(err)
	}
	return &audit.Auditor{Redis: rdb, Ledger: l}
}

// wantLinear audits a job of so many small units, which must be whole, with one look at each.
func wantLinear(t *testing.T, s store.Store, units int) {
	t.Helper()
	a := ledgerOf(t, units)
	c := &counting{Store: s, asked: map[string]int{}, seen: map[string]bool{}}
	a.Store = c
	report, err := a.Audit(t.Context(), job, 1)
	if err != nil {
		t.Fatal(err)
	}
	if n := int64(units); !report.OK() || report.Units != n || report.Records != n || report.Recorded != n || report.Open != 0 {
		t.Errorf("audit of %d units: %+v", units, report)
	}
	want := map[string]int{"lists": 1, "unit": units}
	if diff := cmp.Diff(want, c.asked); diff != "" || len(c.twice) > 0 {
		t.Errorf("what the audit asks of the store differs; twice for %q (-want +got):\n%s", c.twice, diff)
	}
}

func sizes(t *testing.T) []int {
	if testing.Short() {
		return []int{1000}
	}
	return []int{1000, 10_000}
}

// In files, what an audit costs is counted in calls to the system, where that counts them.
func TestAnAuditOfManySmallUnitsInFilesIsLinear(t *testing.T) {
	var few float64
	for _, units := range sizes(t) {
		s, err := filestore.Open(t.Context(), t.TempDir(), filestore.Options{Sync: filestore.SyncOff})
		if err != nil {
			t.Fatal(err)
		}
		for i := range units {
			a, r := smallUnit(i)
			commit(t, s, a, r)
		}
		before := readCalls()
		wantLinear(t, s, units)
		each := float64(readCalls()-before) / float64(units)
		t.Logf("%d units: %.2f reads each, those of the ledger among them", units, each)
		if few == 0 {
			few = each
		}
		if each > 1.05*few {
			t.Errorf("%.2f reads a unit with %d units, %.2f with the fewest", each, units, few)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

func commit(t *testing.T, s store.Store, a *store.Account, r *store.Record) {
	t.Helper()
	u, err := s.Begin(t.Context(), a.Job, a.Unit())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = u.Discard() }()
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Fatalf("commit of %s: won %t, %v", a.Unit(), won, err)
	}
}

// On S3 it is counted in requests, which are what is paid for.
func TestAnAuditOfManySmallUnitsOnS3IsLinear(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	for _, units := range sizes(t) {
		prefix := fmt.Sprint("linear-", units)
		for i := range units {
			a, r := smallUnit(i)
			server.Plant(prefix, a, r)
		}
		o, err := s3store.Parse(s3test.URL(proxy.Addr(), prefix))
		if err != nil {
			t.Fatal(err)
		}
		s, err := s3store.Open(t.Context(), o)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Identity(t.Context()); err != nil {
			t.Fatal(err)
		}
		proxy.Reset()
		wantLinear(t, s, units)
		// The pages of the listing, and the account of each unit, which has the records.
		want := map[string]int{"GET": (units+999)/1000 + units}
		if diff := cmp.Diff(want, proxy.Calls()); diff != "" {
			t.Errorf("requests for an audit of %d units (-want +got):\n%s", units, diff)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
