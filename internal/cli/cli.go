// Package cli is the three commands: worker, enqueue and fleet. Each parses, builds, runs and stops; what it builds
// from lives in the packages below.
//
// It promises that flags, environment variables (FLEET_ and the flag's name) and docs share one spelling, that errors
// name the thing, what is wrong and what to do, and that exit codes are those documented.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"runtime/pprof"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"
)

// Exit codes of all three commands.
const (
	ExitOK          = 0   // everything was fetched
	ExitFailed      = 1   // the command could not run
	ExitUsage       = 2   // the command line is wrong
	ExitIncomplete  = 3   // some requests failed, or some lines were no requests
	ExitInterrupted = 130 // interrupted; what was done is safe
)

const exitHelp = `
Exit codes: 0 everything was fetched; 1 could not run; 2 wrong usage; 3 some requests failed (a 404 is one) or were
skipped, or some lines were no requests; 130 interrupted, what was done is safe.
`

// IO is the world outside a command.
type IO struct {
	Args   []string // without the command's name
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
}

// OS is the process's own world.
func OS() IO {
	return IO{Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr}
}

// version is set when a release is built: -ldflags "-X github.com/fetchfleet/fetchfleet/internal/cli.version=v1.2.3".
var version = "dev"

// Version is that of the release, or else of the module or commit that this program was built from.
func Version() string {
	info, ok := debug.ReadBuildInfo()
	if version != "dev" || !ok {
		return version
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "dev-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return version
}

// VersionFlag is what all three commands have.
type VersionFlag struct {
	Version kong.VersionFlag `help:"Print the version and exit."`
}

// exitError carries an exit code out of a command.
type exitError struct {
	code int
	err  error // printed unless nil
}

// Error is what is printed, or names the code where nothing is.
func (e *exitError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit code %d", e.code)
	}
	return e.err.Error()
}

// Unwrap returns what is printed, nil where nothing is.
func (e *exitError) Unwrap() error { return e.err }

func usage(format string, args ...any) error {
	return &exitError{code: ExitUsage, err: fmt.Errorf(format, args...)}
}

// runner is a command that was parsed.
type runner interface {
	Run(ctx context.Context, w IO) error
}

// run parses the arguments into grammar and runs the command they choose. command returns it.
func run(w IO, name, description string, grammar any, command func(*kong.Context) runner) int {
	code := -1
	parser, err := newParser(w, name, description, grammar, kong.Exit(func(c int) { code = c }))
	if err != nil {
		panic(err) // the grammar is wrong: a bug, found by any run
	}
	parsed, err := parser.Parse(w.Args)
	if code >= 0 {
		return code // --help or --version
	}
	if err != nil {
		fmt.Fprintf(w.Stderr, "%s: %v\nrun '%s --help' for the flags\n", name, err, parsing(name, err))
		return ExitUsage
	}
	quietQUIC()
	ctx, stop := interruptible()
	defer stop()
	defer profile()()
	return exitCode(w, name, command(parsed).Run(ctx, w))
}

func newParser(w IO, name, description string, grammar any, options ...kong.Option) (*kong.Kong, error) {
	return kong.New(grammar, append(options, kong.Name(name), kong.Description(description),
		kong.Writers(w.Stdout, w.Stderr), kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100}),
		kong.Vars{"out": defaultOut, "version": fmt.Sprintf("%s %s (%s %s/%s)", name, Version(), runtime.Version(), runtime.GOOS, runtime.GOARCH)})...)
}

// quietQUIC keeps quic-go from writing a line of its own to standard error where the system allows small socket buffers only.
// docs/requests.md says how to raise them.
func quietQUIC() {
	const variable = "QUIC_GO_DISABLE_RECEIVE_BUFFER_WARNING"
	if os.Getenv(variable) == "" {
		_ = os.Setenv(variable, "true") // fails for malformed names only
	}
}

// parsing names the command whose help has the flags: "fleet run".
func parsing(name string, err error) string {
	var failed *kong.ParseError
	if errors.As(err, &failed) && failed.Context != nil && failed.Context.Selected() != nil {
		return failed.Context.Selected().FullPath()
	}
	return name
}

// profile writes a CPU profile to the file that FLEET_CPUPROFILE names (%p in it is the process id), until the returned
// function is called.
func profile() (stop func()) {
	path := strings.ReplaceAll(os.Getenv("FLEET_CPUPROFILE"), "%p", strconv.Itoa(os.Getpid()))
	if path == "" {
		return func() {}
	}
	f, err := os.Create(path)
	if err != nil {
		return func() {}
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return func() { _ = f.Close() }
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}
}

func exitCode(w IO, name string, err error) int {
	var exit *exitError
	switch {
	case err == nil:
		return ExitOK
	case errors.As(err, &exit):
		if exit.err != nil {
			fmt.Fprintf(w.Stderr, "%s: %v\n", name, exit.err)
		}
		return exit.code
	}
	fmt.Fprintf(w.Stderr, "%s: %v\n", name, err)
	return ExitFailed
}

// errInterrupted is why a context ended that interruptible made.
var errInterrupted = errors.New("interrupted")

// sameSignal is how long a signal may be followed by another that is no second one: timeout(1) sends its signal to the
// process and then to its group.
const sameSignal = 200 * time.Millisecond

// interruptible returns a context that ends at the first SIGINT or SIGTERM; the second ends the process at once, which
// loses nothing that was acknowledged.
func interruptible() (context.Context, func()) {
	ctx, cancel := context.WithCancelCause(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	done := make(chan struct{})
	go func() {
		var first time.Time
		for {
			select {
			case <-signals:
			case <-done:
				return
			}
			if !first.IsZero() && time.Since(first) > sameSignal {
				os.Exit(ExitInterrupted)
			}
			if first.IsZero() {
				first = time.Now()
				cancel(errInterrupted)
			}
		}
	}()
	return ctx, func() {
		signal.Stop(signals)
		close(done)
		cancel(nil)
	}
}
