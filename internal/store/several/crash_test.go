package several

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/jsonl"
)

// What the parent tells the child that will crash.
const (
	crashDir  = "SEVERAL_CRASH_DIR"
	crashStep = "SEVERAL_CRASH_STEP" // where it kills itself
	crashNth  = "SEVERAL_CRASH_NTH"  // at which time of passing there, from 1
)

const crashUnits = 40

// crashStores are what parent and child open: two folders with standard output between them.
func crashStores(ctx context.Context, dir string, out *os.File) (one, two *filestore.Store, s store.Store, err error) {
	o := filestore.Options{Worker: "child", Sync: filestore.SyncOff}
	if one, err = filestore.Open(ctx, dir+"/one", o); err != nil {
		return nil, nil, nil, err
	}
	if two, err = filestore.Open(ctx, dir+"/two", o); err != nil {
		return nil, nil, nil, err
	}
	lines, err := jsonl.Open(ctx, jsonl.Target, jsonl.Options{Out: out})
	return one, two, New(Options{}, one, lines, two), err
}

// crashChild commits units from four goroutines, as deliveries of their batches: what is there is not stored again.
func crashChild(dir string) int {
	_, _, s, err := crashStores(context.Background(), dir, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	nth, _ := strconv.ParseInt(os.Getenv(crashNth), 10, 64)
	var passed, next atomic.Int64
	base(s).step = func(at string) {
		if at == os.Getenv(crashStep) && passed.Add(1) == nth {
			self, _ := os.FindProcess(os.Getpid())
			self.Kill()
			select {} // the signal is on its way
		}
	}
	var wg sync.WaitGroup
	var failed atomic.Bool
	for range 4 {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < crashUnits; i = next.Add(1) - 1 {
				if err := deliver(s, int(i)); err != nil {
					fmt.Fprintln(os.Stderr, err)
					failed.Store(true)
					return
				}
			}
		})
	}
	wg.Wait()
	if failed.Load() || s.Close() != nil {
		return 1
	}
	return 0
}

// deliver does what a worker does with a batch that it is given.
func deliver(s store.Store, i int) error {
	ctx, batch := context.Background(), fmt.Sprintf("b%03d", i)
	if _, err := s.Account(ctx, job, batch); err == nil {
		return nil
	}
	u, err := s.Begin(ctx, job, batch)
	if err != nil {
		return err
	}
	var pages []page
	for n := range 1 + i%4 {
		pages = append(pages, page{fmt.Sprintf("%s-%d", batch, n), strings.Repeat(batch+" ", 10+20_000*(n/3))})
	}
	a, err := fill(ctx, u, batch, fmt.Sprint("d", os.Getpid()), pages...)
	if err == nil {
		_, _, err = u.Commit(ctx, a)
	}
	return err
}

// runChild runs the child until it ends or dies, and counts the lines that it wrote of each record.
func runChild(t *testing.T, dir, step string, nth int, written map[string]int) (died bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), crashDir+"="+dir, crashStep+"="+step, crashNth+"="+strconv.Itoa(nth))
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
		id, _, ok := strings.Cut(strings.TrimPrefix(lines.Text(), `{"id":"`), `"`)
		if !ok || !strings.HasSuffix(lines.Text(), "}") {
			t.Errorf("the child wrote %q", lines.Text())
		}
		written[id]++
	}
	err = cmd.Wait()
	if stderr.Len() > 0 {
		t.Errorf("the child said: %s", stderr.String())
	}
	return err != nil
}

func TestKilledBetweenTheStores(t *testing.T) {
	for i, step := range []string{"first", "later"} {
		t.Run("after "+step, func(t *testing.T) {
			dir, written := t.TempDir(), map[string]int{}
			if died := runChild(t, dir, step, 7+5*i, written); !died {
				t.Fatal("the child did not die")
			}
			one, two, s, err := crashStores(t.Context(), dir, os.Stderr)
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			have, copied := len(contents(t, one)), len(contents(t, two))
			if step == "first" && have <= copied { // after a later one all may be even
				t.Errorf("the stores have %d and %d units: the child did not die between them", have, copied)
			}
			if died := runChild(t, dir, "", 0, written); died {
				t.Error("the second child died")
			}
			wantSame(t, one, two, crashUnits)
			records := 0
			for _, c := range contents(t, one) {
				for _, r := range c.Records {
					records++
					if written[r.ID] == 0 {
						t.Errorf("record %s was never written to standard output", r.ID)
					}
				}
			}
			if len(written) != records {
				t.Errorf("%d records were written, the store has %d", len(written), records)
			}
		})
	}
}
