package filestore

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// at returns a hook that calls do once, when a commit passes step.
func at(step string, do func()) func(string) {
	var once sync.Once
	return func(passed string) {
		if passed == step {
			once.Do(do)
		}
	}
}

func TestARivalAtEachStep(t *testing.T) {
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			s, rival := openTest(t, dir, Options{Worker: "a"}), openTest(t, dir, Options{Worker: "b"})
			u, account := crashUnitBegun(t, s, 4)
			var rivalWon bool
			s.step = at(step, func() {
				v, theirs := crashUnitBegun(t, rival, 4)
				theirs.Delivery = "rival"
				_, won, err := v.Commit(t.Context(), theirs)
				if err != nil {
					t.Errorf("the rival's Commit: %v", err)
				}
				rivalWon = won
				wantUnitsWhole(t, rival)
			})
			winner, won, err := u.Commit(t.Context(), account)
			if err != nil {
				t.Fatal(err)
			}
			if wantWon := i >= 4; won != wantWon || rivalWon == won {
				t.Errorf("with a rival at %q won is %v and the rival's %v, want %v", step, won, rivalWon, wantWon)
			}
			if (winner.Delivery == "rival") != rivalWon {
				t.Errorf("the winner is said to be %q", winner.Delivery)
			}
			if len(wantUnitsWhole(t, s)) != 1 {
				t.Error("the unit is missing")
			}
			if left := tmpFiles(t, s, crashJob); len(left) > 0 {
				t.Errorf("left under tmp: %q", left)
			}
		})
	}
}

func TestReadersFinishACommit(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{Worker: "a"})
	u, account := crashUnitBegun(t, s, 4)
	s.step = at("linked", func() {
		var wg sync.WaitGroup
		for range 4 {
			reader := openTest(t, dir, Options{Worker: "reader"})
			wg.Go(func() {
				if _, err := reader.Account(t.Context(), crashJob, account.Batch); err != nil {
					t.Errorf("Account: %v", err)
				}
				if len(wantUnitsWhole(t, reader)) != 1 {
					t.Error("a reader did not see the unit")
				}
			})
		}
		wg.Wait()
	})
	if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
		t.Errorf("Commit after its readers finished it: won %v, %v", won, err)
	}
}

// A worker that slept for longer than Sweep waits must not commit a unit of which something is gone.
func TestSweptAtEachStep(t *testing.T) {
	for _, step := range steps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			s, other := openTest(t, dir, Options{Worker: "a"}), openTest(t, dir, Options{Worker: "b"})
			u, account := crashUnitBegun(t, s, 4)
			s.step = at(step, func() {
				if _, err := other.Sweep(t.Context(), crashJob, 0); err != nil {
					t.Errorf("Sweep: %v", err)
				}
			})
			_, _, err := u.Commit(t.Context(), account)
			seen := wantUnitsWhole(t, other)
			if err == nil && len(seen) != 1 {
				t.Error("an acknowledged unit is missing")
			}
			if err != nil && len(seen) != 0 {
				t.Errorf("the unit is there although Commit said %v", err)
			}
			u.Discard()
		})
	}
}

func TestAFailedFlushFailsItsGroupAndNothingIsVisible(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	broken := errors.New("write-back failed")
	flushing := s.sync
	s.sync = disk.NewSyncer(func([]string) error { return broken })
	var wg sync.WaitGroup
	begun, accounts := make([]store.Unit, 6), make([]*store.Account, 6)
	for i := range begun {
		begun[i], accounts[i] = crashUnitBegun(t, s, i)
		wg.Go(func() {
			if _, _, err := begun[i].Commit(t.Context(), accounts[i]); !errors.Is(err, broken) {
				t.Errorf("Commit = %v, want the error of the flush", err)
			}
		})
	}
	wg.Wait()
	if seen := wantUnitsWhole(t, s); len(seen) != 0 {
		t.Errorf("units %v are visible", seen)
	}
	s.sync = flushing
	for i, u := range begun {
		if _, won, err := u.Commit(t.Context(), accounts[i]); err != nil || !won {
			t.Errorf("Commit again, with the disk mended: won %v, %v", won, err)
		}
	}
	if seen := wantUnitsWhole(t, s); len(seen) != len(begun) {
		t.Errorf("%d units are visible, want %d", len(seen), len(begun))
	}
}

func TestAFailedLastFlushIsMadeGood(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	broken := errors.New("write-back failed")
	flushing := s.sync
	u, account := crashUnitBegun(t, s, 3)
	s.step = at("linked", func() { s.sync = disk.NewSyncer(func([]string) error { return broken }) })
	if _, _, err := u.Commit(t.Context(), account); !errors.Is(err, broken) {
		t.Fatalf("Commit = %v, want the error of the flush", err)
	}
	if _, err := s.Account(t.Context(), crashJob, account.Batch); !errors.Is(err, broken) {
		t.Errorf("Account = %v of a unit that may not be durable, want the error of the flush", err)
	}
	s.sync = flushing
	if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
		t.Errorf("Commit again: won %v, %v", won, err)
	}
	wantUnitsWhole(t, s)
}

func TestCancelledWhileFlushing(t *testing.T) {
	for _, step := range []string{"written", "linked"} {
		t.Run("after "+step, func(t *testing.T) {
			s := openTest(t, t.TempDir(), Options{})
			ctx, cancel := context.WithCancel(t.Context())
			s.step = at(step, cancel)
			u, account := crashUnitBegun(t, s, 3)
			_, won, err := u.Commit(ctx, account)
			if step == "linked" && (err != nil || !won) {
				t.Errorf("cancelled after the commit point: won %v, %v, want it finished", won, err)
			}
			// Before it the flush may have ended first, which is no error; but never a visible unit and an error.
			if seen := wantUnitsWhole(t, s); (err == nil) != (len(seen) == 1) {
				t.Errorf("Commit = %v and %d units are visible", err, len(seen))
			}
		})
	}
}

func TestSpilledRecordsSurviveAFailedCommit(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	u, account := crashUnitBegun(t, s, 4)
	inner := u.(*unit)
	if err := inner.spillRecords(); err != nil {
		t.Fatal(err)
	}
	broken := errors.New("write-back failed")
	flushing := s.sync
	s.sync = disk.NewSyncer(func([]string) error { return broken })
	if _, _, err := u.Commit(t.Context(), account); !errors.Is(err, broken) {
		t.Fatalf("Commit = %v, want the error of the flush", err)
	}
	s.sync = flushing
	if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
		t.Fatalf("Commit again: won %v, %v", won, err)
	}
	if len(wantUnitsWhole(t, s)) != 1 {
		t.Error("the unit is missing")
	}
}

func TestARemovedJobFolderComesBack(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	for range 2 {
		u, account := crashUnitBegun(t, s, 3)
		if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
			t.Fatalf("Commit: won %v, %v", won, err)
		}
		if err := os.RemoveAll(filepath.Join(s.Dir(), crashJob)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestATornBodyIsReplaced(t *testing.T) {
	for claim, named := range map[string]bool{"by a nameless file": !disk.HasProc(), "by a named file": true} {
		t.Run(claim, func(t *testing.T) {
			s := openTest(t, t.TempDir(), Options{})
			s.named.Store(named)
			_, records, _ := crashUnit(4)
			for _, r := range records {
				path := s.bodyPath(crashJob, r.Body)
				if err := s.folder.Make(filepath.Dir(path)); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(path, nil, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			u, account := crashUnitBegun(t, s, 4)
			if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
				t.Fatalf("Commit: won %v, %v", won, err)
			}
			wantUnitsWhole(t, s)
			wantNothingTorn(t, s.Dir())
		})
	}
}

// crashUnitBegun begins unit i with all of its bodies and records.
func crashUnitBegun(t *testing.T, s *Store, i int) (store.Unit, *store.Account) {
	t.Helper()
	name, records, bodies := crashUnit(i)
	u, err := s.Begin(t.Context(), crashJob, name)
	if err != nil {
		t.Fatal(err)
	}
	a := &store.Account{V: store.AccountVersion, Job: crashJob, Batch: name, Delivery: s.run}
	for n, data := range bodies {
		w, err := u.Body(t.Context(), store.BodyMeta{ContentType: "text/html"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Finish(); err != nil {
			t.Fatal(err)
		}
		if err := u.Add(records[n]); err != nil {
			t.Fatal(err)
		}
	}
	return u, a
}
