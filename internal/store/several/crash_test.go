package several

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/jsonl"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest/crash"
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

// crashChild commits units as deliveries of their batches: what is there is not stored again.
func crashChild(dir, _ string) int {
	_, _, s, err := crashStores(context.Background(), dir, os.Stdout)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	base(s).step = crash.Step()
	if ok := crash.Store(crashUnits, func(i int) error { return deliver(s, i) }); !ok || s.Close() != nil {
		return 1
	}
	return 0
}

// deliver does what a worker does with a batch that it is given.
func deliver(s store.Store, i int) error {
	ctx, batch := context.Background(), crash.Unit(i)
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
func runChild(t *testing.T, c crash.Child, written map[string]int) (died bool) {
	t.Helper()
	return c.Lines(t, func(line string, _ func()) {
		id, _, ok := strings.Cut(strings.TrimPrefix(line, `{"id":"`), `"`)
		if !ok || !strings.HasSuffix(line, "}") {
			t.Errorf("the child wrote %q", line)
		}
		written[id]++
	})
}

func TestKilledBetweenTheStores(t *testing.T) {
	for i, step := range []string{"first", "later"} {
		t.Run("after "+step, func(t *testing.T) {
			dir, written := t.TempDir(), map[string]int{}
			if died := runChild(t, crash.Child{Target: dir, Step: step, Nth: 7 + 5*i}, written); !died {
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
			if died := runChild(t, crash.Child{Target: dir}, written); died {
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
