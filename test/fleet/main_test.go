//go:build unix

package fleet_test

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

// binaries is where the commands are built.
var binaries string

func TestMain(m *testing.M) {
	flag.Parse()
	// The tests mostly wait for leases to run out, so they wait side by side, however few cores there are.
	if p := flag.Lookup("test.parallel"); p.Value.String() == strconv.Itoa(runtime.GOMAXPROCS(0)) {
		_ = p.Value.Set("64")
	}
	dir, err := os.MkdirTemp("", "fleet-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaries = dir
	for name, value := range s3test.Environment() { // for the tests' servers, and the workers that use them
		_ = os.Setenv(name, value)
	}
	redisconn.LogTo(zerolog.Nop()) // the tests' own clients meet a Redis that is away, too
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		_ = os.RemoveAll(dir)
		os.Exit(code)
	}))
}

var buildOnce = sync.OnceValue(func() error { return build(binaries, raceDetector) })

// build builds the three commands into dir.
func build(dir string, race bool) error {
	args := []string{"build", "-tags", "faultpoints", "-o", dir + string(filepath.Separator)}
	if race {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "./cmd/worker", "./cmd/enqueue", "./cmd/fleet")...)
	cmd.Dir = filepath.Join("..", "..")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("build the commands: %w\n%s", err, out)
	}
	return nil
}

// await polls until done answers true.
func await(t testing.TB, limit time.Duration, what string, done func() bool) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for !done() {
		if time.Now().After(deadline) {
			t.Fatalf("waited %s in vain until %s", limit, what)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// testDuration reads a duration from the environment.
func testDuration(t testing.TB, name string, without time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return without
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return d
}
