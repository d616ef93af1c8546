// Package crash kills processes that store units, for the tests of drivers: what is acknowledged must be there afterwards,
// and what is there must be whole.
//
// The test program starts itself again as a child: its TestMain calls Main, which runs the child and does not return there.
// The child really dies, by a SIGKILL that it gives itself at a step of a recipe or that the parent gives it.
package crash

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// What the parent tells its child.
const (
	envTarget  = "STORE_CRASH_TARGET"
	envOptions = "STORE_CRASH_OPTIONS"
	envStep    = "STORE_CRASH_STEP"
	envNth     = "STORE_CRASH_NTH"
)

// Child is a process to be started. The zero values of what says how it dies let it live.
type Child struct {
	Target  string // the store, which the child is given
	Options string // what else it is given
	Step    string // where it kills itself
	Nth     int    // at which time of passing there, from 1
	After   int    // after how many acknowledgements the parent kills it
}

// Main is for TestMain. In a child it calls run, whose result is the exit code; in the parent it does nothing.
func Main(run func(target, options string) int) {
	if target := os.Getenv(envTarget); target != "" {
		os.Exit(run(target, os.Getenv(envOptions)))
	}
}

// Step returns the hook of a child that is called at the steps of recipes; nil where it is not to kill itself.
func Step() func(at string) {
	step := os.Getenv(envStep)
	if step == "" {
		return nil
	}
	nth, _ := strconv.ParseInt(os.Getenv(envNth), 10, 64)
	var passed atomic.Int64
	return func(at string) {
		if at == step && passed.Add(1) == nth {
			self, _ := os.FindProcess(os.Getpid())
			_ = self.Kill()
			select {} // the signal is on its way
		}
	}
}

// Store calls do with each number below units, from four goroutines, and reports whether all went well. A goroutine whose do
// fails says why on standard error and ends.
func Store(units int, do func(i int) error) bool {
	var next atomic.Int64
	var failed atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < units; i = int(next.Add(1)) - 1 {
				if err := do(i); err != nil {
					fmt.Fprintln(os.Stderr, err)
					failed.Store(true)
					return
				}
			}
		})
	}
	wg.Wait()
	return !failed.Load()
}

// Acknowledge tells the parent that a unit was committed.
func Acknowledge(i int) {
	fmt.Printf("%d\n", i) // one write(2), so lines do not mix
}

// Acknowledged runs the child and returns what it acknowledged, and whether it was killed.
func (c Child) Acknowledged(t *testing.T) (units []int, died bool) {
	t.Helper()
	died = c.Lines(t, func(line string, kill func()) {
		i, err := strconv.Atoi(line)
		if err != nil {
			t.Errorf("the child said %q", line)
		}
		if units = append(units, i); len(units) == c.After {
			kill()
		}
	})
	return units, died
}

// Lines runs the child and calls said with each line that it writes to standard output, also with those from before it was
// killed. It reports whether the child was killed. One that ends otherwise than by success or its death, or that complains,
// fails the test.
func (c Child) Lines(t *testing.T, said func(line string, kill func())) (died bool) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(),
		envTarget+"="+c.Target, envOptions+"="+c.Options, envStep+"="+c.Step, envNth+"="+strconv.Itoa(c.Nth))
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
		said(lines.Text(), func() { _ = cmd.Process.Kill() })
	}
	err = cmd.Wait()
	if stderr.Len() > 0 {
		t.Errorf("the child said: %s", stderr.String())
	}
	if err != nil && runtime.GOOS != "windows" && !strings.Contains(err.Error(), "killed") {
		t.Errorf("the child ended with %v", err)
	}
	return err != nil
}
