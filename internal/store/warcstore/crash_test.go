package warcstore

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
)

const crashUnits = 40

// steps are those of the recipes, as marked in Commit and Compact.
var (
	commitSteps = []string{"begin", "written", "durable", "linked", "looked", "acknowledged"}
	mergeSteps  = []string{"merged", "durable merge", "cdxj placed", "file placed", "index placed", "first unit removed", "units removed"}
)

// crashChild commits units, says which were acknowledged, and merges now and then.
func crashChild(dir, sync string) int {
	s, err := Open(context.Background(), dir, Options{Worker: "child", Sync: sync, MergeSize: 100_000})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.step = crash.Step()
	ok := crash.Store(crashUnits, func(i int) error {
		err := commitCrashUnit(s, i)
		if err == nil && i%14 == 13 {
			err = compactUnlessBusy(s)
		}
		if err == nil {
			crash.Acknowledge(i)
		}
		return err
	})
	if err := errors.Join(compactUnlessBusy(s), s.Close()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if !ok {
		return 1
	}
	return 0
}

func compactUnlessBusy(s *Store) error {
	if err := s.Compact(context.Background(), testJob); !errors.Is(err, store.ErrBusy) {
		return err
	}
	return nil
}

// crashUnit returns unit number i: its answers are told from those of others by their bytes, but for one that all have.
func crashUnit(i int) (name string, answers []answer) {
	return crash.Unit(i), crashAnswers()[i]
}

var crashAnswers = sync.OnceValue(func() (list [crashUnits][]answer) {
	for i := range list {
		list[i] = answersOf(i)
	}
	return list
})

func answersOf(i int) (answers []answer) {
	name := crash.Unit(i)
	for n := range 1 + i%4 {
		a := answer{url: fmt.Sprintf("http://x.test/%s/%d", name, n), status: 200, body: text(uint64(100*i+n), 2000)}
		switch {
		case n == 1:
			a.body = text(7, 1500) // a revisit in all but the first
		case n == 2 && i%11 == 0:
			a.body = random(uint64(i), 1<<20+9) // the unit is in a file before it is committed
		case n == 2:
			a.gzipped = true
		}
		answers = append(answers, a)
	}
	return answers
}

func commitCrashUnit(s *Store, i int) error {
	name, answers := crashUnit(i)
	t := &quietT{}
	u, a, _, err := beginUnit(t, s, name, answers...)
	if err != nil {
		return err
	}
	_, _, err = u.Commit(context.Background(), a)
	t.clean()
	return err
}

// quietT stands in for a test in the child.
type quietT struct {
	testing.TB
	cleanups []func()
}

func (q *quietT) Helper()           {}
func (q *quietT) Cleanup(f func())  { q.cleanups = append(q.cleanups, f) }
func (q *quietT) Fatal(args ...any) { panic(fmt.Sprint(args...)) }
func (q *quietT) clean() {
	for _, f := range q.cleanups {
		f()
	}
}

func TestKilledAtEachStepOfACommit(t *testing.T) {
	for i, step := range commitSteps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			acked, died := crash.Child{Target: dir, Options: SyncBatch, Step: step, Nth: 3 + 7*i}.Acknowledged(t)
			if !died {
				t.Fatal("the child did not die")
			}
			verifyAfterCrash(t, dir, acked)
		})
	}
}

func TestKilledAtEachStepOfAMerge(t *testing.T) {
	for i, step := range mergeSteps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			acked, died := crash.Child{Target: dir, Options: SyncOff, Step: step, Nth: 1 + i%2}.Acknowledged(t)
			if !died {
				t.Fatal("the child did not die")
			}
			verifyAfterCrash(t, dir, acked)
		})
	}
}

func TestKilledAtRandomMoments(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		dir := t.TempDir()
		acked, died := crash.Child{Target: dir, Options: []string{SyncBatch, SyncOff}[round%2], After: 1 + rand.IntN(crashUnits*2/3)}.Acknowledged(t)
		t.Logf("killed after %d acknowledged units (it had ended by itself: %v)", len(acked), !died)
		verifyAfterCrash(t, dir, acked)
	}
}

// verifyAfterCrash looks at what the child left, merges it, lets a second run finish, and looks again.
func verifyAfterCrash(t *testing.T, dir string, acked []int) {
	t.Helper()
	s := openTest(t, dir, Options{Worker: "later", MergeSize: 100_000})
	for _, f := range findings(t, s, testJob, false) {
		if f.Kind != orphanKind && f.Kind != indexKind {
			t.Errorf("right after the crash Verify found %+v", f)
		}
	}
	seen := wantUnitsWhole(t, s)
	crash.WantAcknowledged(t, seen, acked)
	if len(acked)%2 == 0 {
		for _, f := range findings(t, s, testJob, true) {
			if !f.Mended {
				t.Errorf("not mended: %+v", f)
			}
		}
	} else if err := s.Compact(t.Context(), testJob); err != nil {
		t.Errorf("Compact after the crash: %v", err)
	}
	wantSound(t, s)
	if again := wantUnitsWhole(t, s); len(again) != len(seen) {
		t.Errorf("%d units before the repair, %d after it", len(seen), len(again))
	}
	crash.Child{Target: dir, Options: SyncOff}.WantFinished(t, crashUnits)
	if seen := wantUnitsWhole(t, s); len(seen) != crashUnits {
		t.Errorf("after the second run %d units are there, want %d", len(seen), crashUnits)
	}
	if _, err := s.Sweep(t.Context(), testJob, 0); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if left := tmpFiles(t, s); len(left) > 0 {
		t.Errorf("after Sweep there are %q", left)
	}
	wantSound(t, s)
}

// wantUnitsWhole demands that every unit is listed once and has all of its records and bodies, and returns which are.
func wantUnitsWhole(t *testing.T, s *Store) map[int]bool {
	t.Helper()
	return crash.WantWhole(t, s, func(i int) (bodies [][]byte) {
		_, answers := crashUnit(i)
		for _, a := range answers {
			bodies = append(bodies, a.body)
		}
		return bodies
	})
}
