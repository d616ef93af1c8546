package warcstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// What the parent tells the child that will crash.
const (
	crashDir  = "WARCSTORE_CRASH_DIR"
	crashStep = "WARCSTORE_CRASH_STEP" // where it kills itself; "" leaves that to the parent
	crashNth  = "WARCSTORE_CRASH_NTH"  // at which time of passing there, from 1
	crashSync = "WARCSTORE_CRASH_SYNC"
)

const crashUnits = 40

// steps are those of the recipes, as marked in Commit and Compact.
var (
	commitSteps = []string{"begin", "written", "durable", "linked", "looked", "acknowledged"}
	mergeSteps  = []string{"merged", "durable merge", "cdxj placed", "file placed", "index placed", "first unit removed", "units removed"}
)

// crashChild commits units from four goroutines, says on standard output which were acknowledged, and merges now and then.
func crashChild(dir string) int {
	s, err := Open(context.Background(), dir, Options{Worker: "child", Sync: os.Getenv(crashSync), MergeSize: 100_000})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.step = killAt(os.Getenv(crashStep), os.Getenv(crashNth))
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < crashUnits; i = int(next.Add(1)) - 1 {
				err := commitCrashUnit(s, i)
				if err == nil && i%14 == 13 {
					err = compactUnlessBusy(s)
				}
				if err != nil {
					fmt.Fprintln(os.Stderr, err)
					failed.Store(true)
					return
				}
				fmt.Printf("%d\n", i) // one write(2), so lines do not mix
			}
		})
	}
	wg.Wait()
	if err := compactUnlessBusy(s); err != nil || failed.Load() || s.Close() != nil {
		fmt.Fprintln(os.Stderr, err)
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

func killAt(step, nth string) func(string) {
	if step == "" {
		return nil
	}
	left, _ := strconv.ParseInt(nth, 10, 64)
	var passed atomic.Int64
	return func(at string) {
		if at == step && passed.Add(1) == left {
			self, _ := os.FindProcess(os.Getpid())
			self.Kill()
			select {} // the signal is on its way
		}
	}
}

// crashUnit returns unit number i: its answers are told from those of others by their bytes, but for one that all have.
func crashUnit(i int) (name string, answers []answer) {
	return fmt.Sprintf("b%03d", i), crashAnswers()[i]
}

var crashAnswers = sync.OnceValue(func() (list [crashUnits][]answer) {
	for i := range list {
		list[i] = answersOf(i)
	}
	return list
})

func answersOf(i int) (answers []answer) {
	name := fmt.Sprintf("b%03d", i)
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

// runChild runs the child until it dies or, after killAfter acknowledgements (0: never), is killed.
func runChild(t *testing.T, dir, step string, nth, killAfter int, sync string) (acked []int, died bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashStep+"="+step, crashNth+"="+strconv.Itoa(nth), crashSync+"="+sync)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		i, err := strconv.Atoi(lines.Text())
		if err != nil {
			t.Errorf("the child said %q", lines.Text())
		}
		acked = append(acked, i)
		if len(acked) == killAfter {
			cmd.Process.Kill()
		}
	}
	err = cmd.Wait()
	if stderr.Len() > 0 && err == nil {
		t.Errorf("the child said: %s", stderr.String())
	}
	if err != nil && !strings.Contains(err.Error(), "killed") {
		t.Errorf("the child ended with %v and said: %s", err, stderr.String())
	}
	return acked, err != nil
}

func TestKilledAtEachStepOfACommit(t *testing.T) {
	for i, step := range commitSteps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			acked, died := runChild(t, dir, step, 3+7*i, 0, SyncBatch)
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
			acked, died := runChild(t, dir, step, 1+i%2, 0, SyncOff)
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
		acked, died := runChild(t, dir, "", 0, 1+rand.IntN(crashUnits*2/3), []string{SyncBatch, SyncOff}[round%2])
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
	for _, i := range acked {
		if !seen[i] {
			t.Errorf("unit %d was acknowledged and is gone", i)
		}
	}
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
	if rest, died := runChild(t, dir, "", 0, 0, SyncOff); died || len(rest) != crashUnits {
		t.Errorf("the second run committed %d units, want %d", len(rest), crashUnits)
	}
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
	seen := make(map[int]bool)
	for unit, err := range s.Units(t.Context(), testJob) {
		if err != nil {
			t.Fatal(err)
		}
		i, _ := strconv.Atoi(strings.TrimPrefix(unit, "b"))
		if seen[i] {
			t.Errorf("unit %s is listed twice", unit)
		}
		seen[i] = true
		_, answers := crashUnit(i)
		n := 0
		for r, err := range s.Records(t.Context(), testJob, unit) {
			if err != nil {
				t.Errorf("unit %s: %v", unit, err)
				break
			}
			if n >= len(answers) || r.ID != fmt.Sprintf("%s-%d", unit, n) {
				t.Errorf("unit %s: record %d is %s", unit, n, r.ID)
				break
			}
			wantBody(t, s, r, answers[n].body)
			n++
		}
		if n != len(answers) {
			t.Errorf("unit %s has %d records, want %d", unit, n, len(answers))
		}
	}
	return seen
}
