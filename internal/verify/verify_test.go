package verify_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/verify"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const job = "verified"

// site is a job of units in a folder.
type site struct {
	t     *testing.T
	dir   string
	store *filestore.Store
}

func newSite(t *testing.T) *site {
	t.Helper()
	dir := t.TempDir()
	s, err := filestore.Open(t.Context(), dir, filestore.Options{Sync: filestore.SyncOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return &site{t: t, dir: dir, store: s}
}

func ids(unit string, i int) string { return fmt.Sprintf("%s-%d", unit, i) }

func (s *site) add(batch string, generation int, bodies ...string) []*store.Record {
	s.t.Helper()
	return fill(s.t, s.store, batch, generation, bodies...)
}

// fill commits a unit of one record for each body.
func fill(t testing.TB, s store.Store, batch string, generation int, bodies ...string) []*store.Record {
	t.Helper()
	a := &store.Account{V: 1, Job: job, Batch: batch, Generation: generation, Worker: "w", Delivery: "d"}
	u, err := s.Begin(t.Context(), job, a.Unit())
	if err != nil {
		t.Fatal(err)
	}
	var records []*store.Record
	for i, text := range bodies {
		w, err := u.Body(t.Context(), store.BodyMeta{URL: "http://x.test/", ContentType: "text/html"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, text); err != nil {
			t.Fatal(err)
		}
		ref, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		r := &store.Record{ID: ids(batch, i), Job: job, Batch: batch, Generation: generation, URL: "http://x.test/", Method: "GET",
			Outcome: store.OK, Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body}
		if err := u.Add(r); err != nil {
			t.Fatal(err)
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: r.Outcome, Bytes: r.Bytes})
		records = append(records, r)
	}
	commit(t, u, a)
	return records
}

func commit(t testing.TB, u store.Unit, a *store.Account) {
	t.Helper()
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Fatalf("commit: won %v, %v", won, err)
	}
}

func (s *site) verify(o verify.Options) *verify.Report {
	s.t.Helper()
	r, err := verify.Run(s.t.Context(), s.store, job, o)
	if err != nil {
		s.t.Fatal(err)
	}
	return r
}

func (s *site) path(parts ...string) string {
	return filepath.Join(append([]string{s.dir, job}, parts...)...)
}

func (s *site) rewrite(path string, change func([]byte) []byte) {
	s.t.Helper()
	data, err := os.ReadFile(path)
	if err == nil {
		err = os.WriteFile(path, change(data), 0o644)
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

func TestASoundJobPasses(t *testing.T) {
	s := newSite(t)
	s.add("b1", 0, "one", "two", "", strings.Repeat("three", 50_000))
	s.add("b1", 1, "one")
	s.add("b2", 0)
	s.add("b3", 0, "one", "one")
	want := verify.Figures{Units: 4, Records: 7, Bodies: 3, BytesRead: 3 + 3 + 250_000}
	for _, concurrency := range []int{1, 8} {
		r := s.verify(verify.Options{Concurrency: concurrency})
		if diff := cmp.Diff(want, r.Figures); diff != "" || !r.OK() || r.Job != job || r.Store != s.store.String() {
			t.Errorf("%d at once: %+v, figures (-want +got):\n%s", concurrency, r, diff)
		}
	}
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	flip := func(b []byte) []byte { b[len(b)/2] ^= 1; return b }
	half := func(b []byte) []byte { return b[:len(b)/2] }
	firstLine := func(b []byte) []byte { return b[:bytes.IndexByte(b, '\n')+1] }
	small, large := "hello, world", strings.Repeat("large ", 100_000)
	type finding struct{ kind, where, what string }
	for claim, c := range map[string]struct {
		tamper func(s *site, r []*store.Record)
		want   []finding
	}{
		"a byte of a body flipped": {func(s *site, r []*store.Record) { s.rewrite(s.path(r[0].Body), flip) },
			[]finding{{"digest", "BODY0", "the record of request b1-0 in unit b1 says SHA0"}}},
		"a byte of a large body flipped": {func(s *site, r []*store.Record) { s.rewrite(s.path(r[1].Body), flip) },
			[]finding{{"digest", "BODY1", "the record of request b1-1 in unit b1 says SHA1"}}},
		"a body truncated": {func(s *site, r []*store.Record) { s.rewrite(s.path(r[1].Body), half) },
			[]finding{{"length", "BODY1", "has 300000 bytes, the record of request b1-1 in unit b1 says 600000"}}},
		"a body with more behind it": {func(s *site, r []*store.Record) {
			s.rewrite(s.path(r[0].Body), func(b []byte) []byte { return append(b, b...) })
		}, []finding{{"length", "BODY0", "has more than the 12 bytes"}}},
		"a body deleted": {func(s *site, r []*store.Record) { _ = os.Remove(s.path(r[0].Body)) },
			[]finding{{"missing", "BODY0", "body of request b1-0 in unit b1: "}}},
		"a folder in the place of a body": {func(s *site, r []*store.Record) {
			_ = os.Remove(s.path(r[0].Body))
			_ = os.Mkdir(s.path(r[0].Body), 0o755)
		}, []finding{{"torn", "BODY0", "body of request b1-0 in unit b1: "}}},
		"a records file deleted": {func(s *site, _ []*store.Record) { _ = os.Remove(s.path("records", "b1.jsonl")) },
			[]finding{{"missing", "unit b1", "its records are gone"}}},
		"a line of records torn": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("records", "b1.jsonl"), func(b []byte) []byte { return b[:len(b)-20] })
		}, []finding{{"torn", "unit b1", "(2 records could be read, the account names 3)"}}},
		"a line of records with a byte flipped": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("records", "b1.jsonl"), func(b []byte) []byte { b[1] = 'x'; return b })
		}, []finding{{"torn", "unit b1", "(0 records could be read, the account names 3)"}}},
		"a record removed": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("records", "b1.jsonl"), func(b []byte) []byte { return b[len(firstLine(b)):] })
		}, []finding{{"missing", "unit b1", "the account names request b1-0 as recorded, but its record is not there"}}},
		"a record twice in its unit": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("records", "b1.jsonl"), func(b []byte) []byte { return append(b, firstLine(b)...) })
		}, []finding{{"structure", "unit b1", "request b1-0 has two records of generation 0: both are in this unit"}}},
		"a record also in another unit": {func(s *site, r []*store.Record) {
			a := &store.Account{V: 1, Job: job, Batch: "b2", Entries: []store.Entry{{ID: r[0].ID, Fate: store.Recorded, Outcome: store.OK, Bytes: r[0].Bytes}}}
			u, err := s.store.Begin(s.t.Context(), job, "b2")
			if err != nil {
				s.t.Fatal(err)
			}
			twin := *r[0]
			twin.Batch = "b2"
			if err := u.Add(&twin); err != nil {
				s.t.Fatal(err)
			}
			commit(s.t, u, a)
		}, []finding{{"structure", "unit b", "request b1-0 has two records of generation 0: the other is in another unit"}}},
		"a record that the account does not know": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("records", "b1.jsonl"), func(b []byte) []byte {
				return append(b, bytes.Replace(firstLine(b), []byte("b1-0"), []byte("b1-9"), 1)...)
			})
		}, []finding{{"structure", "unit b1", "request b1-9 is recorded, but not in the account"}}},
		"a record of another generation and outcome": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("records", "b1.jsonl"), func(b []byte) []byte {
				b = bytes.Replace(b, []byte(`"generation":0`), []byte(`"generation":7`), 1)
				return bytes.Replace(b, []byte(`"ok"`), []byte(`"failed"`), 1)
			})
		}, []finding{
			{"structure", "unit b1", "request b1-0: its record says failed and 12 bytes, the account ok and 12"},
			{"structure", "unit b1", "request b1-0: its record is of batch b1, generation 7, job verified"}}},
		"an account torn": {func(s *site, _ []*store.Record) { s.rewrite(s.path("accounts", "b1.json"), half) },
			[]finding{{"torn", "unit b1", "is damaged"}}},
		"an account of another unit": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("accounts", "b1.json"), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"batch":"b1"`), []byte(`"batch":"b1","generation":4`), 1)
			})
		}, []finding{
			{"structure", "unit b1", "its account is of unit b1.4 of job verified"},
			{"structure", "unit b1", "request b1-0: its record is of batch b1, generation 0, job verified"},
			{"structure", "unit b1", "request b1-1: "}, {"structure", "unit b1", "request b1-2: "}}},
		"an account that names a request twice and an unknown fate": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("accounts", "b1.json"), func(b []byte) []byte {
				return bytes.Replace(b, []byte(`"entries":[`), []byte(`"entries":[{"id":"b1-0","fate":"lost"},`), 1)
			})
		}, []finding{
			{"structure", "unit b1", `the account says "lost" of request b1-0: no such fate is known`},
			{"structure", "unit b1", "the account names request b1-0 twice"}}},
		"a digest without bytes": {func(s *site, _ []*store.Record) {
			s.rewrite(s.path("records", "b1.jsonl"), func(b []byte) []byte { return bytes.Replace(b, []byte("e3b0c4"), []byte("e3b0c5"), 1) })
		}, []finding{{"digest", "unit b1", "request b1-2: its record has no bytes and the digest e3b0c5"}}},
	} {
		t.Run(claim, func(t *testing.T) {
			s := newSite(t)
			records := s.add("b1", 0, small, large, "")
			c.tamper(s, records)
			var problems []store.Finding
			r := s.verify(verify.Options{Found: func(f store.Finding) {
				if !f.Note { // a body whose record is gone is an orphan, which is allowed
					problems = append(problems, f)
				}
			}})
			fill := strings.NewReplacer("BODY0", records[0].Body, "BODY1", records[1].Body, "SHA0", records[0].SHA256, "SHA1", records[1].SHA256)
			if len(problems) != len(c.want) || r.Problems != int64(len(c.want)) || r.OK() {
				t.Fatalf("found %+v, want %+v", problems, c.want)
			}
			for i, want := range c.want {
				got := problems[i]
				if got.Kind != want.kind || !strings.HasPrefix(got.Where, fill.Replace(want.where)) || !strings.Contains(got.What, fill.Replace(want.what)) {
					t.Errorf("found %+v, want %+v", got, want)
				}
			}
		})
	}
}

func TestABodyThatManyRecordsShareIsReadOnceAndNamedOnce(t *testing.T) {
	s := newSite(t)
	text := strings.Repeat("shared ", 1000)
	var body string
	for i := range 30 {
		body = s.add(fmt.Sprint("b", i), 0, text, text)[0].Body
	}
	s.rewrite(s.path(body), func(b []byte) []byte { return b[1:] })
	if r := s.verify(verify.Options{}); r.Bodies != 1 || r.BytesRead != 6999 || r.Problems != 1 {
		t.Errorf("%+v, want one body read and one problem", r)
	}
}

func TestUnchangedBodiesAreReadWhereTheyLie(t *testing.T) {
	s := newSite(t)
	earlier := s.add("b1", 0, "kept in the earlier job")[0]
	const later = "later"
	u, err := s.store.Begin(t.Context(), later, "b9")
	if err != nil {
		t.Fatal(err)
	}
	r := *earlier
	r.ID, r.Job, r.Batch, r.Unchanged, r.BodyJob = "r9", later, "b9", true, job
	if err := u.Add(&r); err != nil {
		t.Fatal(err)
	}
	commit(t, u, &store.Account{V: 1, Job: later, Batch: "b9", Entries: []store.Entry{{ID: "r9", Fate: store.Recorded, Outcome: store.OK, Bytes: r.NewBytes()}}})
	report, err := verify.Run(t.Context(), s.store, later, verify.Options{})
	if err != nil || !report.OK() || report.Bodies != 1 {
		t.Errorf("%+v, %v", report, err)
	}
	if err := os.Remove(s.path(r.Body)); err != nil {
		t.Fatal(err)
	}
	report, err = verify.Run(t.Context(), s.store, later, verify.Options{})
	if err != nil || report.Problems != 1 || report.Findings[0].Where != "job "+job+", "+r.Body || report.Findings[0].Kind != "missing" {
		t.Errorf("%+v, %v", report, err)
	}
}

func TestNamesByURLAreVerifiedLikeDigests(t *testing.T) {
	s := newSite(t)
	named, err := filestore.Open(t.Context(), s.dir, filestore.Options{Names: filestore.NamesPath, Sync: filestore.SyncOff})
	if err != nil {
		t.Fatal(err)
	}
	defer named.Close()
	s.add("b1", 0, "by its digest")
	records := fill(t, named, "b2", 0, "one", "two", strings.Repeat("three", 50_000))
	if r := s.verify(verify.Options{}); !r.OK() || r.Bodies != 4 || r.Notes != 0 {
		t.Errorf("%+v", r)
	}
	s.rewrite(s.path(records[1].Body), func(b []byte) []byte { return []byte("owt") })
	r := s.verify(verify.Options{})
	if r.Problems != 1 || r.Findings[0].Kind != "digest" || r.Findings[0].Where != records[1].Body || !strings.HasPrefix(records[1].Body, "bodies/x.test/index~") {
		t.Errorf("%+v", r)
	}
}

func TestAShareOfTheBodiesIsRead(t *testing.T) {
	s := newSite(t)
	for i := range 20 {
		var bodies []string
		for n := range 20 {
			bodies = append(bodies, fmt.Sprint("body ", i, n, rand.Text()))
		}
		s.add(fmt.Sprint("b", i), 0, bodies...)
	}
	for text, want := range map[string]struct{ least, most int64 }{"all": {400, 400}, "none": {0, 0}, "100%": {400, 400}, "25%": {40, 180}, "0%": {0, 0}} {
		var share verify.Share
		if err := share.UnmarshalText([]byte(text)); err != nil {
			t.Fatal(err)
		}
		r := s.verify(verify.Options{Bodies: share})
		if r.Bodies < want.least || r.Bodies > want.most || r.Bodies+r.Unread != 400 || !r.OK() {
			t.Errorf("%s: %+v, want %d to %d bodies", text, r.Figures, want.least, want.most)
		}
	}
	for _, text := range []string{"", "some", "5", "-1%", "101%", "NaN%", "%"} {
		if err := new(verify.Share).UnmarshalText([]byte(text)); err == nil {
			t.Errorf("%q is taken for a share", text)
		}
	}
}

func TestAJobThatIsNotThereIsNoSoundOne(t *testing.T) {
	s := newSite(t)
	s.add("b1", 0, "one")
	_, err := verify.Run(t.Context(), s.store, "verfied", verify.Options{})
	if !errors.Is(err, verify.ErrNoUnits) || !strings.Contains(err.Error(), "verfied") || !strings.Contains(err.Error(), s.store.String()) {
		t.Errorf("error %v", err)
	}
}

// ill is a store whose bodies cannot be opened.
type ill struct {
	store.Store
	asked atomic.Int64
}

var errGone = errors.New("the server is gone")

func (s *ill) OpenBody(context.Context, string, string) (io.ReadCloser, error) {
	s.asked.Add(1)
	return nil, errGone
}
func (s *ill) Check(context.Context) error { return errGone }

func TestAStoreInTroubleIsGivenUpOn(t *testing.T) {
	s := newSite(t)
	for i := range 40 {
		s.add(fmt.Sprint("b", i), 0, fmt.Sprint("body ", i))
	}
	sick := &ill{Store: s.store}
	report, err := verify.Run(t.Context(), sick, job, verify.Options{Concurrency: 1})
	if !errors.Is(err, errGone) || report.Problems == 0 || sick.asked.Load() > 30 {
		t.Errorf("%d problems after %d bodies, error %v", report.Problems, sick.asked.Load(), err)
	}
}

func TestACancelledRunEnds(t *testing.T) {
	s := newSite(t)
	s.add("b1", 0, "one")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errGone)
	if _, err := verify.Run(ctx, s.store, job, verify.Options{}); !errors.Is(err, errGone) && !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAJobThatGoesOnIsSound(t *testing.T) {
	s := newSite(t)
	s.add("first", 0, "first")
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				s.add(fmt.Sprint("b", i), 0, fmt.Sprint("body ", i), strings.Repeat(fmt.Sprint(i), 100_000))
			}
		}
	}()
	defer func() { close(stop); <-ended }()
	for deadline := time.Now().Add(30 * time.Second); ; {
		r := s.verify(verify.Options{Repair: true})
		if !r.OK() {
			t.Errorf("%+v", r)
		}
		if r.Units > 100 || t.Failed() {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %d units", r.Units)
		}
	}
}

func TestMemoryDoesNotGrowWithABody(t *testing.T) {
	s := newSite(t)
	s.add("b1", 0, strings.Repeat("0123456789abcdef", 4<<20)) // 64 MiB
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	s.verify(verify.Options{})
	runtime.ReadMemStats(&after)
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%d bytes were allocated", got)
	}
}
