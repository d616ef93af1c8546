package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
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

func TestAFailedFlushIsNotForgotten(t *testing.T) {
	tests := map[string]struct {
		names string
		named bool
	}{
		"nameless files":     {named: !disk.HasProc()},
		"named files":        {named: true},
		"names by URL":       {names: NamesPath, named: !disk.HasProc()},
		"named files by URL": {names: NamesPath, named: true},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			dir := t.TempDir()
			s := openTest(t, dir, Options{Names: tt.names})
			s.named.Store(tt.named)
			lossy := disktest.NewLossy(t, dir)
			s.sync = disk.NewSyncer(lossy.Flush)
			begun, accounts := make([]store.Unit, 6), make([]*store.Account, 6)
			for i := range begun {
				begun[i], accounts[i] = crashUnitBegun(t, s, i)
			}
			if _, won, err := begun[5].Commit(t.Context(), accounts[5]); err != nil || !won {
				t.Fatalf("Commit before the failure: won %v, %v", won, err)
			}
			broken := errors.New("write-back failed")
			lossy.FailNext(broken)
			var wg sync.WaitGroup
			for i, u := range begun[:4] {
				wg.Go(func() {
					if _, _, err := u.Commit(t.Context(), accounts[i]); !errors.Is(err, broken) && !errors.Is(err, disk.ErrLost) {
						t.Errorf("Commit = %v, want the error of the flush", err)
					}
				})
			}
			wg.Wait()
			for i, u := range begun[:5] { // the last of them was not in a round
				if _, _, err := u.Commit(t.Context(), accounts[i]); !errors.Is(err, disk.ErrLost) {
					t.Errorf("Commit of what may be lost = %v, want ErrLost", err)
				}
				if err := u.Discard(); err != nil {
					t.Error(err)
				}
			}
			if seen := wantUnitsWhole(t, s); len(seen) != 1 {
				t.Errorf("units %v are visible, want the one before the failure", seen)
			}
			for i := range begun[:5] { // their bodies are in place, and lost
				u, account := crashUnitBegun(t, s, i)
				if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
					t.Errorf("Commit of a new unit: won %v, %v", won, err)
				}
			}
			lossy.Cut()
			if seen := wantUnitsWhole(t, openTest(t, dir, Options{})); len(seen) != len(begun) {
				t.Errorf("after a loss of power units %v are there, want %d", seen, len(begun))
			}
		})
	}
}

// Whoever was told of the failure is gone: what its units left in place is not trusted either.
func TestBodiesFromBeforeTheStoreWasOpenedAreReplaced(t *testing.T) {
	dir := t.TempDir()
	lossy := disktest.NewLossy(t, dir)
	s := openTest(t, dir, Options{})
	s.sync = disk.NewSyncer(lossy.Flush)
	u, account := crashUnitBegun(t, s, 4)
	broken := errors.New("write-back failed")
	lossy.FailNext(broken)
	if _, _, err := u.Commit(t.Context(), account); !errors.Is(err, broken) {
		t.Fatalf("Commit = %v, want the error of the flush", err)
	}
	s = openTest(t, dir, Options{})
	s.sync = disk.NewSyncer(lossy.Flush)
	u, account = crashUnitBegun(t, s, 4)
	if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
		t.Fatalf("Commit after a restart: won %v, %v", won, err)
	}
	lossy.Cut()
	if seen := wantUnitsWhole(t, s); len(seen) != 1 {
		t.Error("the unit is missing")
	}
}

func TestAFailedLastFlushIsMadeGood(t *testing.T) {
	dir := t.TempDir()
	lossy := disktest.NewLossy(t, dir)
	s := openTest(t, dir, Options{})
	s.sync = disk.NewSyncer(lossy.Flush)
	broken := errors.New("write-back failed")
	u, account := crashUnitBegun(t, s, 3)
	s.step = at("linked", func() { lossy.FailNext(broken) })
	if _, _, err := u.Commit(t.Context(), account); !errors.Is(err, broken) {
		t.Fatalf("Commit = %v, want the error of the flush", err)
	}
	lossy.FailNext(broken)
	if _, err := s.Account(t.Context(), crashJob, account.Batch); !errors.Is(err, broken) {
		t.Errorf("Account = %v of a unit that may not be durable, want the error of the flush", err)
	}
	if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
		t.Errorf("Commit again: won %v, %v", won, err)
	}
	lossy.Cut()
	if seen := wantUnitsWhole(t, s); len(seen) != 1 {
		t.Error("after a loss of power the unit is missing")
	}
	if left := tmpFiles(t, s, crashJob); len(left) > 0 {
		t.Errorf("left under tmp: %q", left)
	}
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
	inTheWay := s.jobPath(crashJob, accountsFolder)
	s.step = at("durable", func() {
		if err := os.WriteFile(inTheWay, nil, 0o644); err != nil {
			t.Error(err)
		}
	})
	if _, _, err := u.Commit(t.Context(), account); err == nil {
		t.Fatal("Commit linked into a file")
	}
	if err := os.Remove(inTheWay); err != nil {
		t.Fatal(err)
	}
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
		w, err := u.Body(t.Context(), store.BodyMeta{ContentType: "text/html", URL: fmt.Sprintf("http://x.test/%d/%d", i, n)})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(data); err != nil {
			t.Fatal(err)
		}
		ref, err := w.Finish()
		if err != nil {
			t.Fatal(err)
		}
		records[n].Body = ref.Body
		if err := u.Add(records[n]); err != nil {
			t.Fatal(err)
		}
	}
	return u, a
}
