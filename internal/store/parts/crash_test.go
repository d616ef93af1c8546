package parts

import (
	"bufio"
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// What the parent tells a child.
const (
	childDir  = "PARTS_CHILD_DIR"
	childSync = "PARTS_CHILD_SYNC" // "" = off
	childRace = "PARTS_CHILD_RACE" // "" = write until killed
)

const (
	crashSize  = 40 << 20
	crashEvery = 1 << 20
)

// child goes on with a part in small pieces and says after each how many bytes there are.
func child(dir string) int {
	f := In(dir, Options{Sync: os.Getenv(childSync) != "", Every: crashEvery})
	if os.Getenv(childRace) != "" {
		return racer(f)
	}
	p, err := f.Take(context.Background(), request)
	if err == nil && p.Size() == 0 {
		err = p.Begin(noteOf(crashSize))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	data := random(crashSize)
	for p.Size() < crashSize {
		if _, err := p.Write(data[p.Size():min(p.Size()+10_007, crashSize)]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		fmt.Printf("%d\n", p.Size())
	}
	select {} // killed while it holds
}

// racer appends a byte to the part fifty times, each in a holding of its own.
func racer(f *Folder) int {
	for n := 0; n < 50; {
		p, err := f.Take(context.Background(), request)
		if errors.Is(err, store.ErrBusy) {
			time.Sleep(time.Duration(os.Getpid()%7) * 50 * time.Microsecond) // lets another have it
			continue
		}
		if err == nil && p.Size() == 0 {
			err = p.Begin(noteOf(1000))
		}
		if err == nil {
			_, err = p.Write([]byte("x"))
		}
		if err == nil {
			err = p.Release()
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		n++
	}
	return 0
}

func childOf(t *testing.T, env ...string) *exec.Cmd {
	t.Helper()
	exe, err := os.Executable()
	must(t, err)
	cmd := exec.CommandContext(t.Context(), exe)
	cmd.Env = append(os.Environ(), env...)
	cmd.Stderr = os.Stderr
	return cmd
}

// killedAfter runs a child until it says that it has so many bytes, and kills it. It returns what it said last.
func killedAfter(t *testing.T, size int64, env ...string) (last int64) {
	t.Helper()
	cmd := childOf(t, env...)
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	killed := false
	for lines := bufio.NewScanner(out); lines.Scan(); {
		last, err = strconv.ParseInt(lines.Text(), 10, 64)
		must(t, err)
		if killed || last < size {
			continue
		}
		if _, err := In(envOf(env, childDir), Options{}).Take(t.Context(), request); !errors.Is(err, store.ErrBusy) {
			t.Errorf("a part in the hands of a living process: %v", err)
		}
		must(t, cmd.Process.Kill())
		killed = true // what it said until then is still to be read
	}
	_ = cmd.Wait()
	return last
}

func envOf(env []string, name string) string {
	for _, e := range env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

func TestAKilledHolderFreesThePart(t *testing.T) {
	for claim, sync := range map[string]string{"flushed": "on", "not flushed": ""} {
		t.Run(claim, func(t *testing.T) {
			dir := t.TempDir()
			data := random(crashSize)
			f := In(dir, Options{Sync: sync != "", Every: crashEvery})
			for _, size := range []int64{300_000, 5 << 20, 17 << 20, crashSize} {
				last := killedAfter(t, size, childDir+"="+dir, childSync+"="+sync)
				p, err := f.Take(t.Context(), request)
				must(t, err)
				lost := last - p.Size()
				t.Logf("killed at %d bytes or a little later, kept are %d", last, p.Size())
				if lost > crashEvery+20_000 || sync == "" && lost > 0 {
					t.Errorf("%d bytes were written, only %d kept", last, p.Size())
				}
				wantKept(t, p, data[:p.Size()])
				sum := digestOf(data[:p.Size()])
				if got := digestOfPart(p); got != sum {
					t.Errorf("the digest of %d bytes is %s, want %s", p.Size(), got, sum)
				}
				must(t, p.Release())
			}
		})
	}
}

func digestOfPart(p *Part) string { return hex.EncodeToString(p.hash.Sum(nil)) }

func TestProcessesThatRaceTakeTurns(t *testing.T) {
	dir := t.TempDir()
	var racers []*exec.Cmd
	for range 4 {
		cmd := childOf(t, childDir+"="+dir, childRace+"=1")
		must(t, cmd.Start())
		racers = append(racers, cmd)
	}
	for _, cmd := range racers {
		if err := cmd.Wait(); err != nil {
			t.Error(err)
		}
	}
	wantKept(t, take(t, In(dir, Options{})), bytes.Repeat([]byte("x"), 200))
}
