package s3store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
)

const (
	crashUnits = 40
	crashJob   = crash.Job
)

// steps are those of the recipes, as marked in Commit.
var (
	steps        = []string{"begin", "placed", "visible", "acknowledged"}
	archiveSteps = []string{"begin", "uploaded", "visible"}
)

// crashChild commits units and says which were acknowledged.
func crashChild(url, _ string) int {
	o, err := Parse(url)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	o.Worker = "child"
	s, err := openEither(context.Background(), o)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	s.common().step = crash.Step()
	ok := crash.Store(crashUnits, func(i int) error {
		if err := crash.Commit(context.Background(), s, i, crashBodies(i)); err != nil {
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

// either is a store of one of the formats.
type either interface {
	store.Resumer
	store.Verifier
	common() *base
}

func (s *base) common() *base { return s }

// openEither opens a store whose pieces are small.
func openEither(ctx context.Context, o Options) (either, error) {
	small := func(int) int64 { return 5 << 20 }
	if o.Format == FormatWARC {
		s, err := OpenArchive(ctx, o)
		if err == nil {
			s.piece, s.onePut = small, 5<<20
		}
		return s, err
	}
	s, err := Open(ctx, o)
	if err == nil {
		s.piece = small
	}
	return s, err
}

func crashBodies(i int) (bodies [][]byte) {
	for n := range 1 + i%4 {
		size := 500 + 40*n
		switch {
		case n == 2:
			size = 200_000 // spooled
		case n == 3 && i%8 == 3:
			size = 6 << 20 // more than a piece
		}
		data := bytes.Repeat([]byte(fmt.Sprintf("%s/%d ", crash.Unit(i), n)), size/7)
		if size > 1<<20 {
			data = random(uint64(i), size) // also when compressed
		}
		bodies = append(bodies, data)
	}
	return bodies
}

func TestKilledAtEachStep(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			url := server.URL("killed-" + step)
			acked, died := crash.Child{Target: url, Step: step, Nth: 3 + 7*i}.Acknowledged(t)
			if !died {
				t.Fatal("the child did not die")
			}
			verifyAfterCrash(t, url, acked)
		})
	}
}

func TestArchiveKilledAtEachStep(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	for i, step := range archiveSteps {
		t.Run(step, func(t *testing.T) {
			nth := 3 + 7*i
			if step == "uploaded" {
				nth = 2 // few are that large
			}
			url := server.URL("killed-"+step) + "&format=warc"
			acked, died := crash.Child{Target: url, Step: step, Nth: nth}.Acknowledged(t)
			if !died {
				t.Fatal("the child did not die")
			}
			verifyAfterCrash(t, url, acked)
		})
	}
}

func TestKilledAtRandomMoments(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	rounds := 5
	if testing.Short() {
		rounds = 2
	}
	for round := range rounds {
		url := server.URL(fmt.Sprint("random-", round)) + []string{"", "&format=warc", "&format=warc&compress=zstd"}[round%3]
		acked, died := crash.Child{Target: url, After: 1 + rand.IntN(crashUnits/2)}.Acknowledged(t)
		t.Logf("killed after %d acknowledged units (it had ended by itself: %v)", len(acked), !died)
		verifyAfterCrash(t, url, acked)
	}
}

func reopen(t *testing.T, url string) either {
	t.Helper()
	o, err := Parse(url)
	if err != nil {
		t.Fatal(err)
	}
	if o.Format == FormatWARC {
		return openArchiveTest(t, url)
	}
	return openTest(t, url)
}

// verifyAfterCrash looks at the store as it was left, sweeps, verifies, and lets a second run finish.
func verifyAfterCrash(t *testing.T, url string, acked []int) {
	t.Helper()
	s := reopen(t, url)
	seen := wantUnitsWhole(t, s)
	crash.WantAcknowledged(t, seen, acked)
	wantSwept(t, s)
	wantUnitsWhole(t, s)
	wantSound(t, s, crashJob)
	crash.Child{Target: url}.WantFinished(t, crashUnits)
	if seen := wantUnitsWhole(t, s); len(seen) != crashUnits {
		t.Errorf("after the second run %d units are there, want %d", len(seen), crashUnits)
	}
	wantSound(t, s, crashJob)
}

// wantSound demands that Verify finds nothing but bodies without a record.
func wantSound(t *testing.T, s store.Verifier, job string) {
	t.Helper()
	for _, f := range findings(t, s, job, false) {
		if !f.Note || f.Kind != "orphan" {
			t.Errorf("Verify found %+v", f)
		}
	}
}

func findings(t *testing.T, s store.Verifier, job string, repair bool) []store.Finding {
	t.Helper()
	var list []store.Finding
	if err := s.Verify(t.Context(), job, repair, func(f store.Finding) { list = append(list, f) }); err != nil {
		t.Errorf("Verify: %v", err)
	}
	return list
}

// wantUnitsWhole demands that every unit that is visible has all of its records and bodies, and returns which are.
func wantUnitsWhole(t *testing.T, s store.Store) map[int]bool {
	t.Helper()
	return crash.WantWhole(t, s, crashBodies)
}

func wantBodyBytes(t *testing.T, s store.Store, job, body string, want []byte) {
	t.Helper()
	r, err := s.OpenBody(t.Context(), job, body)
	if err != nil {
		t.Error(err)
		return
	}
	defer r.Close()
	if got, err := io.ReadAll(io.LimitReader(r, int64(len(want))+1)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("body %s has %d bytes (error %v), want %d", body, len(got), err, len(want))
	}
}

// wantSwept demands that Sweep leaves neither temporaries nor uploads.
func wantSwept(t *testing.T, s either) {
	t.Helper()
	if _, err := s.Sweep(t.Context(), crashJob, 0); err != nil {
		t.Errorf("Sweep: %v", err)
	}
	if left := leftovers(t, s, crashJob); len(left) > 0 {
		t.Errorf("after Sweep there are %q", left)
	}
}

// leftovers lists temporaries, parts and uploads of a job.
func leftovers(t *testing.T, store either, job string) (list []string) {
	t.Helper()
	s := store.common()
	var failed error
	for _, folder := range []string{tmpFolder, partsFolder} {
		for o, err := range s.c.list(t.Context(), s.keys.folder(job, folder)) {
			list, failed = append(list, o.Key), errors.Join(failed, err)
		}
	}
	for u, err := range s.c.uploads(t.Context(), s.keys.body(job, "")) {
		list, failed = append(list, "upload of "+u.Key), errors.Join(failed, err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return list
}
