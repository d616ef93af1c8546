package several

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
)

func TestMain(m *testing.M) {
	crash.Main(crashChild)
	goleak.VerifyTestMain(m)
}

func TestConformance(t *testing.T) {
	tests := map[string]func(t *testing.T) func() []store.Store{
		"two folders": func(t *testing.T) func() []store.Store {
			a, b := t.TempDir(), t.TempDir()
			return func() []store.Store { return []store.Store{folder(t, a), folder(t, b)} }
		},
		"a folder and lines": func(t *testing.T) func() []store.Store {
			a, p := t.TempDir(), &pipe{}
			return func() []store.Store { return []store.Store{folder(t, a), lines(t, p)} }
		},
		"lines between two folders": func(t *testing.T) func() []store.Store {
			a, p, b := t.TempDir(), &pipe{}, t.TempDir()
			return func() []store.Store { return []store.Store{folder(t, a), lines(t, p), folder(t, b)} }
		},
	}
	for claim, stores := range tests {
		t.Run(claim, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
				open := stores(t)
				reopen := func() store.Store {
					all := open()
					s := New(Options{}, all[0], all[1:]...)
					t.Cleanup(func() { s.Close() })
					return s
				}
				return reopen(), reopen
			})
		})
	}
}

func TestEveryStoreGetsTheUnit(t *testing.T) {
	one, two, p := folder(t, t.TempDir()), archived(t, false), &pipe{}
	s := New(Options{}, one, two, lines(t, p))
	pages := []page{{"a", "alpha"}, {"b", ""}, {"c", strings.Repeat("long ", 100_000)}, {"d", "alpha"}}
	committed(t, s, "b1", "d1", pages...)
	committed(t, s, "b2", "d2")
	wantSame(t, one, two, 2)
	if diff := cmp.Diff(map[string]int{"a": 1, "b": 1, "c": 1, "d": 1}, p.lines()); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	if !strings.Contains(p.b.String(), `"body":"bodies/`) {
		t.Errorf("lines do not say where the first store has a body:\n%s", p.b.String())
	}
}

func TestTheLoserOfARaceLeavesTheWinnersUnitEverywhere(t *testing.T) {
	one, two := folder(t, t.TempDir()), folder(t, t.TempDir())
	s := New(Options{}, one, two)
	late, account := begun(t, s, "b1", "late", page{"a", "mine"})
	committed(t, one, "b1", "early", page{"a", "theirs"}) // and its worker died before the second store had it
	winner, won, err := late.Commit(t.Context(), account)
	if err != nil || won || winner.Delivery != "early" {
		t.Fatalf("Commit = %v, won %v, %v", winner, won, err)
	}
	wantSame(t, one, two, 1)
}

func TestARedeliveryCopiesWhatIsMissing(t *testing.T) {
	n := &notes{}
	one, two, p := folder(t, t.TempDir()), archived(t, false), &pipe{}
	s := New(Options{Note: n.note}, one, two, lines(t, p))
	committed(t, one, "b1", "d1", page{"a", "alpha"}, page{"b", ""})
	committed(t, one, "b2", "d2")
	for range 2 {
		if a, err := s.Account(t.Context(), job, "b1"); err != nil || a.Delivery != "d1" {
			t.Fatalf("Account = %v, %v", a, err)
		}
	}
	if got := p.lines()["a"]; got != 2 {
		t.Errorf("record a was written %d times for two deliveries, want 2: a pipe has no memory", got)
	}
	if _, err := s.Account(t.Context(), job, "b3"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Account of nothing = %v, want ErrNotFound", err)
	}
	if err := base(s).CopyMissing(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	wantSame(t, one, two, 2)
	n.want(t)
}

// base is the Store of what New returned.
func base(s store.Store) *Store {
	if r, ok := s.(*resumer); ok {
		return r.Store
	}
	return s.(*Store)
}

func TestAUnitThatCameAnotherWayStays(t *testing.T) {
	n := &notes{}
	one, two := folder(t, t.TempDir()), folder(t, t.TempDir())
	s := New(Options{Note: n.note}, one, two)
	committed(t, two, "b1", "other", page{"z", "old"})
	committed(t, s, "b1", "d1", page{"a", "new"})
	if a, err := two.Account(t.Context(), job, "b1"); err != nil || a.Delivery != "other" {
		t.Errorf("the second store has %v, %v", a, err)
	}
	n.want(t, "unit b1 is there already, as delivery other left it")
}

// A body that no writer of the unit wrote: one of an earlier job, or a part that was adopted.
func TestBodiesFromElsewhereAreCopiedAtCommit(t *testing.T) {
	n := &notes{}
	one, two := folder(t, t.TempDir()), archived(t, false)
	s := New(Options{Note: n.note}, one, two)
	earlier, err := one.Begin(t.Context(), "job-0", "b0")
	if err != nil {
		t.Fatal(err)
	}
	ref, err := write(t.Context(), earlier, store.BodyMeta{ContentType: "text/html"}, "from before")
	if err != nil {
		t.Fatal(err)
	}
	same, err := write(t.Context(), earlier, store.BodyMeta{ContentType: "text/html"}, "alpha") // as this unit has one
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := earlier.Commit(t.Context(), &store.Account{V: 1, Job: "job-0", Batch: "b0"}); err != nil {
		t.Fatal(err)
	}
	u, account := begun(t, s, "b1", "d1", page{"a", "alpha"})
	gone := store.BodyRef{Bytes: 1, SHA256: ref.SHA256, Body: "bodies/ab/gone.html"}
	for _, ref := range []store.BodyRef{ref, same, gone} {
		r := &store.Record{ID: ref.Body, Job: job, Batch: "b1", URL: "http://x.test/", Unchanged: true, Bytes: ref.Bytes,
			SHA256: ref.SHA256, Body: ref.Body, BodyJob: "job-0"}
		if err := u.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := u.Commit(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	got := contents(t, two)["b1"]
	if diff := cmp.Diff([]string{"alpha", "from before", "alpha", ""}, got.Bodies); diff != "" {
		t.Errorf("bodies in the second store (-want +got):\n%s", diff)
	}
	if r := got.Records[1]; r.BodyJob != "" || !r.Unchanged {
		t.Errorf("the copy says %+v, want it unchanged and in its own job", r)
	}
	n.want(t, "bodies/ab/gone.html goes without its body")
}

func TestARecordThatALaterStoreRefusesStopsNobody(t *testing.T) {
	tests := map[string]struct {
		spoil func(*archive)
		notes []string
		want  map[string]bool // id → its headers are there
	}{
		"kept bare": {
			func(a *archive) {
				a.record = func(r *store.Record) error {
					if r.Headers != nil && r.ID == "a" {
						return refuse("a header")
					}
					return nil
				}
			}, []string{"a header"}, map[string]bool{"a": false, "b": true},
		},
		"left out": {
			func(a *archive) {
				a.record = func(r *store.Record) error {
					if r.ID == "a" {
						return refuse("the id")
					}
					return nil
				}
			}, []string{"the id", "record \"a\" is left out"}, map[string]bool{"b": true},
		},
		"refused at commit": {
			func(a *archive) {
				times := 0
				a.commit = func() error {
					if times++; times == 1 {
						return refuse("something")
					}
					return nil
				}
			}, []string{"something"}, map[string]bool{"a": false, "b": false},
		},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			n := &notes{}
			one, two := folder(t, t.TempDir()), archived(t, false)
			tt.spoil(two)
			committed(t, New(Options{Note: n.note}, one, two), "b1", "d1", page{"a", "alpha"}, page{"b", "beta"})
			n.want(t, tt.notes...)
			got := map[string]bool{}
			c := contents(t, two)["b1"]
			for i, r := range c.Records {
				got[r.ID] = r.Headers != nil
				if want := map[string]string{"a": "alpha", "b": "beta"}[r.ID]; c.Bodies[i] != want {
					t.Errorf("record %s has body %q, want %q", r.ID, c.Bodies[i], want)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("records of the second store (-want +got):\n%s", diff)
			}
			if c := contents(t, one)["b1"]; len(c.Records) != 2 {
				t.Errorf("the first store has %d records", len(c.Records))
			}
		})
	}
}

func TestABodyThatALaterStoreRefusesStopsNobody(t *testing.T) {
	n := &notes{}
	one, two := folder(t, t.TempDir()), archived(t, false)
	two.body = func(m store.BodyMeta) error {
		if strings.HasSuffix(m.URL, "/a") {
			return refuse("that name")
		}
		return nil
	}
	committed(t, New(Options{Note: n.note}, one, two), "b1", "d1", page{"a", "alpha"}, page{"b", "beta"})
	n.want(t, "that name")
	if diff := cmp.Diff([]string{"", "beta"}, contents(t, two)["b1"].Bodies); diff != "" {
		t.Errorf("bodies (-want +got):\n%s", diff)
	}
	if r := contents(t, two)["b1"].Records[0]; r.Bytes != 5 || r.SHA256 == "" {
		t.Errorf("the record is %+v, want it to say what the body was", r)
	}
}

func TestALaterStoreInTroubleIsTheStoresTrouble(t *testing.T) {
	away := errors.New("connection refused")
	tests := map[string]func(*archive){
		"when a body begins":  func(a *archive) { a.body = func(store.BodyMeta) error { return away } },
		"when a record comes": func(a *archive) { a.record = func(*store.Record) error { return away } },
		"when it commits":     func(a *archive) { a.commit = func() error { return away } },
	}
	for claim, spoil := range tests {
		t.Run(claim, func(t *testing.T) {
			one, two := folder(t, t.TempDir()), archived(t, false)
			s := New(Options{}, one, two)
			spoil(two)
			u, err := s.Begin(t.Context(), job, "b1")
			if err != nil {
				t.Fatal(err)
			}
			a, err := fill(t.Context(), u, "b1", "d1", page{"a", "alpha"})
			if err == nil {
				_, _, err = u.Commit(t.Context(), a)
			}
			if !errors.Is(err, away) || !strings.Contains(err.Error(), "copy to archive: ") {
				t.Errorf("it ends with %v, want the error of the archive, named", err)
			}
			if err := u.Discard(); err != nil {
				t.Error(err)
			}
			two.body, two.record, two.commit = nil, nil, nil
			if _, err := s.Account(t.Context(), job, "b1"); errors.Is(err, store.ErrNotFound) {
				committed(t, s, "b1", "d2", page{"a", "alpha"})
			} else if err != nil {
				t.Fatal(err)
			}
			wantSame(t, one, two, 1)
		})
	}
}

func TestWhatACopyMissesIsNotTheUnit(t *testing.T) {
	one, two := folder(t, t.TempDir()), archived(t, false)
	committed(t, one, "b1", "d1", page{"a", "alpha"})
	two.commit = func() error { return fmt.Errorf("no such table: %w", store.ErrNotFound) }
	_, err := New(Options{}, one, two).Account(t.Context(), job, "b1")
	if err == nil || errors.Is(err, store.ErrNotFound) || !strings.Contains(err.Error(), "no such table") {
		t.Errorf("Account = %v, want an error that does not deny the unit", err)
	}
}

func TestACommitThatFailedInALaterStoreMayBeTriedAgain(t *testing.T) {
	one, two := folder(t, t.TempDir()), archived(t, false)
	s := New(Options{}, one, two)
	u, a := begun(t, s, "b1", "d1", page{"a", "alpha"})
	away := errors.New("away")
	two.commit = func() error { return away }
	if _, _, err := u.Commit(t.Context(), a); !errors.Is(err, away) {
		t.Fatalf("Commit = %v", err)
	}
	two.commit = nil
	if winner, won, err := u.Commit(t.Context(), a); err != nil || !won || winner.Delivery != "d1" {
		t.Fatalf("Commit again = %v, won %v, %v", winner, won, err)
	}
	wantSame(t, one, two, 1)
}

func TestOnlyArchivesGetExchanges(t *testing.T) {
	for _, first := range []bool{true, false} {
		one, two := archived(t, first), archived(t, !first)
		plain, keeper := two, one
		if !first {
			plain, keeper = one, two
		}
		u, err := New(Options{}, one, two).Begin(t.Context(), job, "b1")
		if err != nil {
			t.Fatal(err)
		}
		if k, ok := u.(store.ExchangeKeeper); !ok || !k.KeepsExchanges() {
			t.Fatal("the unit keeps no exchanges")
		}
		coded := func(meta store.BodyMeta) store.ExchangeWriter {
			w, err := u.Body(t.Context(), meta)
			if err != nil {
				t.Fatal(err)
			}
			e := w.(store.ExchangeWriter)
			if err := errors.Join(second(e.Sent([]byte("sent"))), second(e.Write([]byte("decoded")))); err != nil {
				t.Fatal(err)
			}
			return e
		}
		if ref, err := coded(store.BodyMeta{URL: "http://x.test/"}).Finish(); err != nil || ref.Bytes != 7 {
			t.Errorf("Finish = %+v, %v", ref, err)
		}
		if _, err := coded(store.BodyMeta{Hop: true}).Finish(); err != nil {
			t.Error(err)
		}
		if err := coded(store.BodyMeta{}).Cut("length"); err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff([]string{"sent", "sent"}, keeper.sent); diff != "" || keeper.hops != 1 {
			t.Errorf("the archive was sent (-want +got):\n%s and %d hops", diff, keeper.hops)
		}
		if diff := cmp.Diff([]string{"length: decoded"}, keeper.cut); diff != "" {
			t.Errorf("cut (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]string{""}, plain.sent); diff != "" || plain.hops != 0 || plain.cut != nil || plain.aborted != 1 {
			t.Errorf("the plain store was sent %q, %d hops, %q; %d aborted", plain.sent, plain.hops, plain.cut, plain.aborted)
		}
		if err := u.Discard(); err != nil {
			t.Error(err)
		}
	}
}

func second(_ int, err error) error { return err }

func TestCheckNamesTheStoreInTrouble(t *testing.T) {
	dir := t.TempDir() + "/gone"
	one, two := folder(t, t.TempDir()), folder(t, dir)
	s := New(Options{}, one, two)
	if err := s.Check(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "copy to file:"+dir+": ") {
		t.Errorf("Check = %v, want it to name %s", err, dir)
	}
}

func TestAPartOfTheFirstStoreIsAdoptedEverywhere(t *testing.T) {
	one, two := folder(t, t.TempDir()), folder(t, t.TempDir())
	if _, ok := New(Options{}, struct{ store.Store }{one}, two).(store.Resumer); ok {
		t.Error("a store is a Resumer though its first is not")
	}
	s, ok := New(Options{}, one, two).(store.Resumer)
	if !ok {
		t.Fatal("a store is no Resumer though its first is")
	}
	part, err := s.Part(t.Context(), job, "r1")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("resumed", 1000)
	note := store.PartNote{URL: "http://x.test/big", Length: int64(len(text)), Stretches: []store.Stretch{{}}}
	if err := part.Begin(note); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(part, text); err != nil {
		t.Fatal(err)
	}
	if has, err := s.HasPart(t.Context(), job, "r1"); err != nil || !has {
		t.Errorf("HasPart = %v, %v", has, err)
	}
	u, a := begun(t, s, "b1", "d1", page{"a", "alpha"})
	ref, err := part.Adopt(t.Context(), u, store.BodyMeta{URL: "http://x.test/big"})
	if err != nil {
		t.Fatal(err)
	}
	err = u.Add(&store.Record{ID: "r1", Job: job, Batch: "b1", URL: "http://x.test/big", Bytes: ref.Bytes, SHA256: ref.SHA256,
		Body: ref.Body})
	if err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Fatalf("Commit: won %v, %v", won, err)
	}
	wantSame(t, one, two, 1)
	if First(s) != store.Store(one) || First(one) != store.Store(one) {
		t.Error("First is not the first")
	}
}
