package s3store

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
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
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
)

// What the parent tells the child that will crash.
const (
	crashURL  = "S3STORE_CRASH_URL"
	crashStep = "S3STORE_CRASH_STEP" // where it kills itself; "" leaves that to the parent
	crashNth  = "S3STORE_CRASH_NTH"  // at which time of passing there, from 1
)

const (
	crashUnits = 40
	crashJob   = "job"
)

// steps are those of the recipes, as marked in Commit.
var (
	steps        = []string{"begin", "placed", "visible", "acknowledged"}
	archiveSteps = []string{"begin", "uploaded", "visible"}
)

// crashChild commits units from four goroutines and says on standard output which were acknowledged.
func crashChild(url string) int {
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
	s.common().step = killAt(os.Getenv(crashStep), os.Getenv(crashNth))
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
	for n := range 1 + i%4 {
		size := 500 + 40*n
		switch {
		case n == 2:
			size = 200_000 // spooled
		case n == 3 && i%8 == 3:
			size = 6 << 20 // more than a piece
		}
		data := bytes.Repeat([]byte(fmt.Sprintf("%s/%d ", name, n)), size/7)
		if size > 1<<20 {
			data = random(uint64(i), size) // also when compressed
		}
		sum := sha256.Sum256(data)
		sha := hex.EncodeToString(sum[:])
		bodies = append(bodies, data)
		records = append(records, &store.Record{
			ID: fmt.Sprintf("%s-%d", name, n), Job: crashJob, Batch: name, URL: "http://x.test/", Method: "GET",
			Outcome: store.OK, Bytes: int64(len(data)), SHA256: sha,
		})
	}
	return name, records, bodies
}

func commitCrashUnit(s store.Store, i int) error {
	ctx := context.Background()
	name, records, bodies := crashUnit(i)
	u, err := s.Begin(ctx, crashJob, name)
	if err != nil {
		return err
	}
	a := &store.Account{V: store.AccountVersion, Job: crashJob, Batch: name, Delivery: "d"}
	for n, data := range bodies {
		w, err := u.Body(ctx, store.BodyMeta{ContentType: "text/html"})
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
func runChild(t *testing.T, url, step string, nth, killAfter int) (acked []int, died bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashURL+"="+url, crashStep+"="+step, crashNth+"="+strconv.Itoa(nth))
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
	t.Parallel()
	server := s3test.StartBeside(t)
	for i, step := range steps {
		t.Run(step, func(t *testing.T) {
			url := server.URL("killed-" + step)
			acked, died := runChild(t, url, step, 3+7*i, 0)
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
			acked, died := runChild(t, url, step, nth, 0)
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
		acked, died := runChild(t, url, "", 0, 1+rand.IntN(crashUnits/2))
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
	for _, i := range acked {
		if !seen[i] {
			t.Errorf("unit %d was acknowledged and is gone", i)
		}
	}
	wantSwept(t, s)
	wantUnitsWhole(t, s)
	wantSound(t, s, crashJob)
	if rest, died := runChild(t, url, "", 0, 0); died || len(rest) != crashUnits {
		t.Errorf("the second run committed %d units, want %d", len(rest), crashUnits)
	}
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
			wantBodyBytes(t, s, crashJob, r.Body, bodies[n])
			n++
		}
		if n != len(want) {
			t.Errorf("unit %s has %d records, want %d", unit, n, len(want))
		}
	}
	return seen
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
