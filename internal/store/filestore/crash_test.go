package filestore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// What the parent tells the child that will crash.
const (
	crashDir  = "FILESTORE_CRASH_DIR"
	crashStep = "FILESTORE_CRASH_STEP" // where it kills itself; "" leaves that to the parent
	crashNth  = "FILESTORE_CRASH_NTH"  // at which time of passing there, from 1
	crashSync = "FILESTORE_CRASH_SYNC"
	crashName = "FILESTORE_CRASH_NAMES"
)

const (
	crashUnits = 80
	crashJob   = "job"
)

// steps are those of the recipe, as marked in Commit.
var steps = []string{"begin", "written", "durable", "placed", "linked", "renamed", "acknowledged"}

// crashChild commits units from four goroutines and says on standard output which were acknowledged.
func crashChild(dir string) int {
	s, err := Open(context.Background(), dir, Options{Worker: "child", Sync: os.Getenv(crashSync), Names: os.Getenv(crashName)})
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
				if err := commitCrashUnit(s, i); err != nil {
					fmt.Fprintln(os.Stderr, err)
					failed.Store(true)
					return
				}
				fmt.Printf("%d\n", i) // one write(2), so lines do not mix
			}
		})
	}
	wg.Wait()
	if failed.Load() || s.Close() != nil {
		return 1
	}
	return 0
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

func crashUnit(i int) (name string, records []*store.Record, bodies [][]byte) {
	name = fmt.Sprintf("b%03d", i)
	for n := range 1 + i%5 {
		size := 500 + 40*n
		if n == 3 {
			size = 200_000 // streamed
		}
		data := bytes.Repeat([]byte(fmt.Sprintf("%s/%d ", name, n)), size/8)
		sum := sha256.Sum256(data)
		sha := hex.EncodeToString(sum[:])
		bodies = append(bodies, data)
		records = append(records, &store.Record{
			ID: fmt.Sprintf("%s-%d", name, n), Job: crashJob, Batch: name, URL: "http://x.test/", Method: "GET",
			Outcome: store.OK, Bytes: int64(len(data)), SHA256: sha, Body: bodyName(sha, "html"),
		})
	}
	return name, records, bodies
}

func commitCrashUnit(s *Store, i int) error {
	ctx := context.Background()
	name, records, bodies := crashUnit(i)
	u, err := s.Begin(ctx, crashJob, name)
	if err != nil {
		return err
	}
	a := &store.Account{V: store.AccountVersion, Job: crashJob, Batch: name, Delivery: "d"}
	for n, data := range bodies {
		w, err := u.Body(ctx, store.BodyMeta{ContentType: "text/html", URL: fmt.Sprintf("http://x.test/%d/%d", i%7, n)})
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
		ref, err := w.Finish()
		if err != nil {
			return err
		}
		records[n].Body = ref.Body
		if err := u.Add(records[n]); err != nil {
			return err
		}
		a.Entries = append(a.Entries, store.Entry{ID: records[n].ID, Fate: store.Recorded})
	}
	_, _, err = u.Commit(ctx, a)
	return err
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
	if stderr.Len() > 0 {
		t.Errorf("the child said: %s", stderr.String())
	}
	return acked, err != nil
}

func TestKilledAtEachStep(t *testing.T) {
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			dir := t.TempDir()
			acked, died := runChild(t, dir, step, 3+7*i, 0, SyncBatch)
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
			acked, died := runChild(t, dir, step, 3+7*i, 0, []string{SyncBatch, SyncOff}[i%2])
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
		acked, died := runChild(t, dir, "", 0, 1+rand.IntN(crashUnits/2), []string{SyncBatch, SyncOff}[round%2])
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
	for _, i := range acked {
		if !seen[i] {
			t.Errorf("unit %d was acknowledged and is gone", i)
		}
	}
	wantSwept(t, s)
	wantUnitsWhole(t, s)
	if rest, died := runChild(t, dir, "", 0, 0, SyncBatch); died || len(rest) != crashUnits {
		t.Errorf("the second run committed %d units, want %d", len(rest), crashUnits)
	}
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
	seen := make(map[int]bool)
	for unit, err := range s.Units(t.Context(), crashJob) {
		if err != nil {
			t.Fatal(err)
		}
		i, _ := strconv.Atoi(strings.TrimPrefix(unit, "b"))
		seen[i] = true
		_, want, bodies := crashUnit(i)
		n := 0
		for r, err := range s.Records(t.Context(), crashJob, unit) {
			if err != nil {
				t.Errorf("unit %s: %v", unit, err)
				break
			}
			if n >= len(want) || r.ID != want[n].ID {
				t.Errorf("unit %s: record %d is %s", unit, n, r.ID)
				break
			}
			wantBodyBytes(t, s, r.Body, bodies[n])
			n++
		}
		if n != len(want) {
			t.Errorf("unit %s has %d records, want %d", unit, n, len(want))
		}
	}
	return seen
}

func wantBodyBytes(t *testing.T, s *Store, body string, want []byte) {
	t.Helper()
	r, err := s.OpenBody(t.Context(), crashJob, body)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	if got, err := io.ReadAll(io.LimitReader(r, 1<<20)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("body %s has %d bytes (error %v), want %d", body, len(got), err, len(want))
	}
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
