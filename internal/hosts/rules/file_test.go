package rules

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// edited is a File whose file a test changes, and what was warned of.
type edited struct {
	*File
	t      *testing.T
	warned []error
}

func open(t *testing.T, text string) *edited {
	t.Helper()
	e := &edited{t: t}
	path := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := Open(path, func(err error) { e.warned = append(e.warned, err) })
	if err != nil {
		t.Fatal(err)
	}
	e.File = file
	return e
}

// write writes the file in place.
func (e *edited) write(text string) {
	e.t.Helper()
	if err := os.WriteFile(e.path, []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
}

// replace puts another file in its place, as editors do.
func (e *edited) replace(text string) {
	e.t.Helper()
	if err := os.WriteFile(e.path+".new", []byte(text), 0o600); err != nil {
		e.t.Fatal(err)
	}
	if err := os.Rename(e.path+".new", e.path); err != nil {
		e.t.Fatal(err)
	}
}

func (e *edited) wantConns(step string, want int) {
	e.t.Helper()
	if got := e.For("x.test").Conns; got == nil || *got != want {
		e.t.Errorf("%s: conns %v, want %d", step, got, want)
	}
}

// wantWarnings fails unless so many were warned of in all, the last one saying text.
func (e *edited) wantWarnings(step string, n int, text string) {
	e.t.Helper()
	if len(e.warned) != n || n > 0 && !strings.Contains(e.warned[n-1].Error(), text) {
		e.t.Errorf("%s: warned of %q, want %d, the last with %q", step, e.warned, n, text)
	}
}

func TestAWrongFileIsNotOpened(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	if _, err := Open(dir, nil); err == nil {
		t.Error("a folder was opened")
	}
	path := filepath.Join(dir, "hosts")
	if err := os.WriteFile(path, []byte("* rate=x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, nil); err == nil || !strings.HasPrefix(err.Error(), path+":1: rate=x: ") {
		t.Errorf("a wrong file: %v", err)
	}
}

func TestANewFileIsInForceAtTheNextLook(t *testing.T) {
	e := open(t, "* conns=1")
	e.wantConns("opened", 1)
	e.replace("* conns=2")
	e.wantConns("before the look", 1)
	e.check()
	e.wantConns("after it", 2)
	e.wantWarnings("all along", 0, "")
}

// Between truncating and writing, a file is empty and reads as one without rules.
func TestAFileWrittenInPlaceIsInForceOnceItKeepsStill(t *testing.T) {
	e := open(t, "* conns=1")
	e.write("")
	e.check()
	e.wantConns("truncated", 1)
	e.write("* conns=2 rat")
	e.check()
	e.wantConns("half written", 1)
	e.write("* conns=2 rate=1")
	e.check()
	e.wantConns("written", 1)
	e.check()
	e.wantConns("unchanged since", 2)
	e.wantWarnings("all along", 0, "")
}

func TestAWrongVersionIsReportedOnceAndNotPutInForce(t *testing.T) {
	e := open(t, "* conns=1")
	e.replace("* conns=2 rate=x")
	for range 3 {
		e.check()
		e.wantConns("wrong", 1)
		e.wantWarnings("wrong", 1, "hosts:1: rate=x")
	}
	e.replace("* conns=2 rate=y")
	e.check()
	e.wantWarnings("wrong otherwise", 2, "hosts:1: rate=y")
	e.replace("* conns=2")
	e.check()
	e.wantConns("corrected", 2)
	e.wantWarnings("corrected", 2, "rate=y")
}

func TestAMissingFileIsReportedOnceAndLeavesItsRulesInForce(t *testing.T) {
	e := open(t, "* conns=1")
	for round := 1; round <= 2; round++ {
		if err := os.Rename(e.path, e.path+".away"); err != nil {
			t.Fatal(err)
		}
		e.check()
		e.check()
		e.wantConns("away", 1)
		e.wantWarnings("away", round, "the rules read before stay in force")
		if err := os.Rename(e.path+".away", e.path); err != nil {
			t.Fatal(err)
		}
		e.check()
		e.wantWarnings("back", round, "")
	}
	if err := os.Remove(e.path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(e.path, 0o700); err != nil {
		t.Fatal(err)
	}
	e.check()
	e.check()
	e.wantWarnings("a folder", 3, "not a regular file")
	e.wantConns("a folder", 1)
}

// A change within the resolution of a file system's clock leaves size and time as they were.
func TestAChangeThatShowsNowhereIsSeenWhileTheFileIsYoung(t *testing.T) {
	e := open(t, "* conns=1")
	e.write("* conns=2")
	if err := os.Chtimes(e.path, time.Time{}, e.seen.ModTime()); err != nil {
		t.Fatal(err)
	}
	e.check()
	e.check()
	e.wantConns("same time and size", 2)
}

func TestAnOldFileIsReadOnlyWhenItChanged(t *testing.T) {
	e := open(t, "* conns=1")
	old := time.Now().Add(-time.Hour)
	if err := os.Chtimes(e.path, time.Time{}, old); err != nil {
		t.Fatal(err)
	}
	e.check()
	e.check()
	e.write("* conns=2")
	if err := os.Chtimes(e.path, time.Time{}, old); err != nil {
		t.Fatal(err)
	}
	e.check()
	e.check()
	e.wantConns("same time and size and file", 1) // it was not read: nothing showed a change
	e.replace("* conns=3")
	if err := os.Chtimes(e.path, time.Time{}, old); err != nil {
		t.Fatal(err)
	}
	e.check()
	e.wantConns("same time and size, another file", 3)
}

func TestWatchLooksEveryIntervalUntilItsContextEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := open(t, "* conns=1")
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			e.Watch(ctx, 0)
		}()
		e.replace("* conns=2")
		time.Sleep(defaultInterval - time.Nanosecond) // of the bubble's clock
		synctest.Wait()
		e.wantConns("before the interval is over", 1)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		e.wantConns("after it", 2)
		cancel()
		<-done
		e.replace("* conns=3")
		time.Sleep(10 * defaultInterval)
		e.wantConns("after the context's end", 2)
	})
}

func TestAskingAndReloadingDoNotDisturbEachOther(t *testing.T) {
	e := open(t, "* conns=1")
	ctx, cancel := context.WithCancel(context.Background())
	asking := make(chan struct{})
	go func() {
		defer close(asking)
		for ctx.Err() == nil {
			if got := *e.For("x.test").Conns; got != 1 && got != 2 {
				t.Errorf("conns %d", got)
				return
			}
		}
	}()
	for i := range 100 {
		e.replace([]string{"* conns=2", "* conns=1"}[i%2])
		e.check()
	}
	cancel()
	<-asking
}
