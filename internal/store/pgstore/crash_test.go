package pgstore

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
)

const (
	crashUnits = 32
	crashJob   = crash.Job
)

// steps are those marked in a commit and in the writing of a body.
var steps = []string{"flushed", "begin", "inserted", "copied", "committed", "acknowledged"}

// crashChild commits units and says which were acknowledged.
func crashChild(raw, _ string) int {
	s, err := Open(context.Background(), raw, Options{Worker: "child"})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.step = crash.Step()
	ok := crash.Store(crashUnits, func(i int) error {
		if err := commitCrashUnit(context.Background(), s, i); err != nil {
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

func crashBodies(i int) (bodies [][]byte) {
	for n := range 1 + i%4 {
		size := 500 + 40*n
		if n == 2 {
			size = 1_200_000 // streamed, in rows of 1 MiB
		}
		bodies = append(bodies, bytes.Repeat([]byte(fmt.Sprintf("%s/%d ", crash.Unit(i), n)), size/8))
	}
	return bodies
}

// commitCrashUnit stores one unit, once: a unit that is there already is nobody's loss.
func commitCrashUnit(ctx context.Context, s *Store, i int) error {
	return crash.Commit(ctx, s, i, crashBodies(i))
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

func TestKilledAtEachStep(t *testing.T) {
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			raw := shared.Server(t).Database(t)
			acked, died := crash.Child{Target: raw, Step: step, Nth: 2 + i}.Acknowledged(t)
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
		acked, died := crash.Child{Target: raw, After: 1 + rand.IntN(crashUnits/2)}.Acknowledged(t)
		t.Logf("killed after %d acknowledged units (it had ended by itself: %v)", len(acked), !died)
		verifyAfterCrash(t, raw, acked)
	}
}

// verifyAfterCrash looks at what there is, sweeps, and lets a second run finish.
func verifyAfterCrash(t *testing.T, raw string, acked []int) {
	t.Helper()
	s := openTest(t, raw, Options{Worker: "later"})
	seen := wantUnitsWhole(t, s)
	crash.WantAcknowledged(t, seen, acked)
	wantSound(t, s)
	endSessions(t, s, "fetchfleet child")
	if _, err := s.Sweep(t.Context(), crashJob, 0); err != nil {
		t.Fatalf("Sweep: %v", err)
	}
	wantNothingLeft(t, s)
	crash.Child{Target: raw}.WantFinished(t, crashUnits)
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
	return crash.WantWhole(t, s, crashBodies)
}

func wantBody(t *testing.T, s *Store, body string, want []byte) {
	t.Helper()
	crash.WantBody(t, s, body, want)
}
