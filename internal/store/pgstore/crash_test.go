package pgstore

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
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
	crashURL  = "PGSTORE_CRASH_URL"
	crashStep = "PGSTORE_CRASH_STEP" // where it kills itself; "" leaves that to the parent
	crashNth  = "PGSTORE_CRASH_NTH"  // at which time of passing there, from 1
)

const (
	crashUnits = 32
	crashJob   = "job"
)

// steps are those marked in a commit and in the writing of a body.
var steps = []string{"flushed", "begin", "inserted", "copied", "committed", "acknowledged"}

// crashChild commits units from four goroutines and says on standard output which were acknowledged.
func crashChild(raw string) int {
	s, err := Open(context.Background(), raw, Options{Worker: "child"})
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
				if err := commitCrashUnit(context.Background(), s, i); err != nil {
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

func crashUnit(i int) (name string, ids []string, bodies [][]byte) {
	name = fmt.Sprintf("b%03d", i)
	for n := range 1 + i%4 {
		size := 500 + 40*n
		if n == 2 {
			size = 1_200_000 // streamed, in rows of 1 MiB
		}
		bodies = append(bodies, bytes.Repeat([]byte(fmt.Sprintf("%s/%d ", name, n)), size/8))
		ids = append(ids, fmt.Sprintf("%s-%d", name, n))
	}
	return name, ids, bodies
}

// commitCrashUnit stores one unit, once: a unit that is there already is nobody's loss.
func commitCrashUnit(ctx context.Context, s *Store, i int) error {
	name, ids, bodies := crashUnit(i)
	u, err := s.Begin(ctx, crashJob, name)
	if err != nil {
		return err
	}
	defer u.Discard()
	a := &store.Account{V: store.AccountVersion, Job: crashJob, Batch: name, Delivery: "d"}
	for n, data := range bodies {
		ref, err := putBody(ctx, u, data)
		if err != nil {
			return err
		}
		r := &store.Record{
			ID: ids[n], Job: crashJob, Batch: name, URL: "http://x.test/", Method: "GET",
			Outcome: store.OK, Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body,
		}
		if err := u.Add(r); err != nil {
			return err
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded})
	}
	_, _, err = u.Commit(ctx, a)
	return err
}

func putBody(ctx context.Context, u store.Unit, data []byte) (store.BodyRef, error) {
	w, err := u.Body(ctx, store.BodyMeta{ContentType: "text/html"})
	if err != nil {
		return store.BodyRef{}, err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return store.BodyRef{}, err
	}
	return w.Finish()
}

// runChild runs the child until it dies or, after killAfter acknowledgements (0: never), is killed.
func runChild(t *testing.T, raw, step string, nth, killAfter int) (acked []int, died bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashURL+"="+raw, crashStep+"="+step, crashNth+"="+strconv.Itoa(nth))
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
			raw := shared.Server(t).Database(t)
			acked, died := runChild(t, raw, step, 2+i, 0)
			if !died {
				t.Fatal("the child did not die")
			}
			verifyAfterCrash(t, raw, acked)
		})
	}
}

func TestKilledAtRandomMoments(t *testing.T) {
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	for range rounds {
		raw := shared.Server(t).Database(t)
		acked, died := runChild(t, raw, "", 0, 1+rand.IntN(crashUnits/2))
		t.Logf("killed after %d acknowledged units (it had ended by itself: %v)", len(acked), !died)
		verifyAfterCrash(t, raw, acked)
	}
}

// verifyAfterCrash looks at what there is, sweeps, and lets a second run finish.
func verifyAfterCrash(t *testing.T, raw string, acked []int) {
	t.Helper()
	s := openTest(t, raw, Options{Worker: "later"})
	seen := wantUnitsWhole(t, s)
	for _, i := range acked {
		if !seen[i] {
			t.Errorf("unit %d was acknowledged and is gone", i)
		}
	}
	wantSound(t, s)
	endSessions(t, s, "fetchfleet child")
	if _, err := s.Sweep(t.Context(), crashJob, 0); err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	wantNothingLeft(t, s)
	if rest, died := runChild(t, raw, "", 0, 0); died || len(rest) != crashUnits {
		t.Errorf("the second run committed %d units, want %d", len(rest), crashUnits)
	}
	if seen := wantUnitsWhole(t, s); len(seen) != crashUnits {
		t.Errorf("after the second run %d units are there, want %d", len(seen), crashUnits)
	}
	wantSound(t, s)
	wantNothingLeft(t, s)
}

// wantSound demands that Verify finds nothing wrong.
func wantSound(t *testing.T, s *Store) {
	t.Helper()
	err := s.Verify(t.Context(), crashJob, false, func(f store.Finding) {
		if !f.Note {
			t.Errorf("Verify found %+v", f)
		}
	})
	if err != nil {
		t.Errorf("Verify: %v", err)
	}
}

// endSessions waits until the server has noticed that a client is gone: it may still be at work on its last statement.
func endSessions(t *testing.T, s *Store, name string) {
	t.Helper()
	_, err := s.pool.Exec(t.Context(), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
		WHERE application_name = $1 AND datname = current_database()`, name)
	if err != nil {
		t.Fatal(err)
	}
}

// wantNothingLeft demands that there is no body but those of units.
func wantNothingLeft(t *testing.T, s *Store) {
	t.Helper()
	for what, sql := range map[string]string{
		"units in writing": `SELECT count(*) FROM writing`,
		"stray bodies":     `SELECT count(*)` + whereOrphans,
	} {
		if n := count(t, s, sql); n != 0 {
			t.Errorf("%d %s are left", n, what)
		}
	}
}

func count(t *testing.T, s *Store, sql string) (n int) {
	t.Helper()
	if err := s.pool.QueryRow(t.Context(), sql).Scan(&n); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return n
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
		_, ids, bodies := crashUnit(i)
		n := 0
		for r, err := range s.Records(t.Context(), crashJob, unit) {
			if err != nil || n >= len(ids) || r.ID != ids[n] {
				t.Fatalf("unit %s: record %d is %v, %v", unit, n, r, err)
			}
			sum := sha256.Sum256(bodies[n])
			if r.SHA256 != hex.EncodeToString(sum[:]) {
				t.Errorf("record %s has digest %s", r.ID, r.SHA256)
			}
			wantBody(t, s, r.Body, bodies[n])
			n++
		}
		if n != len(ids) {
			t.Errorf("unit %s has %d records, want %d", unit, n, len(ids))
		}
	}
	return seen
}

func wantBody(t *testing.T, s *Store, body string, want []byte) {
	t.Helper()
	r, err := s.OpenBody(t.Context(), crashJob, body)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	if got, err := io.ReadAll(io.LimitReader(r, 8<<20)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("body %s has %d bytes (error %v), want %d", body, len(got), err, len(want))
	}
}
