package filestore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
)

// crashName tells children how bodies are named; Child.Options tells them how to flush.
const crashName = "FILESTORE_CRASH_NAMES"

const (
	crashUnits = 80
	crashJob   = crash.Job
)

// steps are those of the recipe, as marked in Commit.
var steps = []string{"begin", "written", "durable", "placed", "linked", "renamed", "acknowledged"}

// crashChild commits units and says which were acknowledged.
func crashChild(dir, sync string) int {
	s, err := Open(context.Background(), dir, Options{Worker: "child", Sync: sync, Names: os.Getenv(crashName)})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.step = crash.Step()
	ok := crash.Store(crashUnits, func(i int) error {
		if err := commitCrashUnit(s, i); err != nil {
			return err
		}
		crash.Acknowledge(i)
		return nil
	})
	if !ok || s.Close() != nil {
		return 1
	}
	return 0
}

// crashUnit returns a unit as it is stored where bodies are named by their digest.
func crashUnit(i int) (name string, records []*store.Record, bodies [][]byte) {
	name, bodies = crash.Unit(i), crashBodies(i)
	for n, data := range bodies {
		r := crash.Record(name, n, data)
		r.Body = bodyName(r.SHA256, "html")
		records = append(records, r)
	}
	return name, records, bodies
}

func crashBodies(i int) (bodies [][]byte) {
	for n := range 1 + i%5 {
		size := 500 + 40*n
		if n == 3 {
			size = 200_000 // streamed
		}
		bodies = append(bodies, bytes.Repeat([]byte(fmt.Sprintf("%s/%d ", crash.Unit(i), n)), size/8))
	}
	return bodies
}

func commitCrashUnit(s *Store, i int) error {
	return crash.Commit(context.Background(), s, i, crashBodies(i))
}

func TestKilledAtEachStep(t *testing.T) {
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			acked, died := crash.Child{Target: dir, Options: SyncBatch, Step: step, Nth: 3 + 7*i}.Acknowledged(t)
			if !died {
				t.Fatal("the child did not die")
			}
			verifyAfterCrash(t, dir, acked, i%2 == 0)
		})
	}
}

// Bodies of several units have one URL here, so that there are names nearby, too.
func TestKilledAtEachStepWithPathNames(t *testing.T) {
	t.Setenv(crashName, NamesPath)
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			acked, died := crash.Child{Target: dir, Options: []string{SyncBatch, SyncOff}[i%2], Step: step, Nth: 3 + 7*i}.Acknowledged(t)
			if !died {
				t.Fatal("the child did not die")
			}
			verifyAfterCrash(t, dir, acked, i%2 == 0)
		})
	}
}

func TestKilledAtRandomMoments(t *testing.T) {
	rounds := 8
	if testing.Short() {
		rounds = 3
	}
	for round := range rounds {
		dir := t.TempDir()
		t.Setenv(crashName, []string{NamesDigest, NamesPath}[round/2%2])
		acked, died := crash.Child{Target: dir, Options: []string{SyncBatch, SyncOff}[round%2], After: 1 + rand.IntN(crashUnits/2)}.Acknowledged(t)
		t.Logf("killed after %d acknowledged units (it had ended by itself: %v)", len(acked), !died)
		verifyAfterCrash(t, dir, acked, round%3 == 0)
	}
}

// verifyAfterCrash looks at the files as they lie, then through the store, and lets a second run finish.
func verifyAfterCrash(t *testing.T, dir string, acked []int, sweepFirst bool) {
	t.Helper()
	wantNothingTorn(t, dir)
	s := openTest(t, dir, Options{Worker: "later"})
	if sweepFirst {
		wantSwept(t, s)
	}
	seen := wantUnitsWhole(t, s)
	crash.WantAcknowledged(t, seen, acked)
	wantSwept(t, s)
	wantUnitsWhole(t, s)
	crash.Child{Target: dir, Options: SyncBatch}.WantFinished(t, crashUnits)
	if seen := wantUnitsWhole(t, s); len(seen) != crashUnits {
		t.Errorf("after the second run %d units are there, want %d", len(seen), crashUnits)
	}
	wantNothingTorn(t, dir)
}

// wantNothingTorn demands that every body has its digest, every account and record parses, and no records are there
// without their account.
func wantNothingTorn(t *testing.T, dir string) {
	t.Helper()
	job := filepath.Join(dir, crashJob)
	err := filepath.WalkDir(job, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || filepath.Base(filepath.Dir(path)) == tmpFolder {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, _, _ := strings.Cut(e.Name(), ".")
		sum := sha256.Sum256(data)
		switch rel, _ := filepath.Rel(job, path); {
		case strings.HasPrefix(rel, bodiesFolder) && len(name) == 2*sha256.Size && hex.EncodeToString(sum[:]) != name:
			t.Errorf("%s is torn", rel)
		case strings.HasPrefix(rel, accountsFolder) && !json.Valid(data):
			t.Errorf("%s is torn", rel)
		case strings.HasPrefix(rel, recordsFolder):
			if _, err := os.Stat(filepath.Join(job, accountsFolder, name+".json")); err != nil {
				t.Errorf("%s has no account", rel)
			}
			for line := range bytes.Lines(data) {
				if !json.Valid(line) {
					t.Errorf("%s is torn", rel)
				}
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
}

// wantUnitsWhole demands that every unit that is visible has all of its records and bodies, and returns which are.
func wantUnitsWhole(t *testing.T, s *Store) map[int]bool {
	t.Helper()
	return crash.WantWhole(t, s, crashBodies)
}

func wantSwept(t *testing.T, s *Store) {
	t.Helper()
	if _, err := s.Sweep(t.Context(), crashJob, 0); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if left := tmpFiles(t, s, crashJob); len(left) > 0 {
		t.Errorf("after Sweep there are %q", left)
	}
}

func tmpFiles(t *testing.T, s *Store, job string) []string {
	t.Helper()
	list, err := os.ReadDir(s.jobPath(job, tmpFolder))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}
