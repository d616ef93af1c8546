//go:build unix

package fleet_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"
)

// command is what start runs.
type command struct {
	name  string // of the binary
	dir   string // of the binary, "" = binaries
	args  []string
	env   []string
	stdin io.Reader
}

// process is one running command. It is killed when its test ends.
type process struct {
	t      testing.TB
	name   string
	os     *os.Process
	log    string // file that holds its standard error
	stdout bytes.Buffer
	ended  chan struct{}
	state  *os.ProcessState // once ended
}

// start starts a command. Its goroutine keeps its thread, see redistest.spawn.
func start(t testing.TB, c command) *process {
	t.Helper()
	if err := buildOnce(); err != nil {
		t.Fatal(err)
	}
	if c.dir == "" {
		c.dir = binaries
	}
	log, err := os.CreateTemp(t.TempDir(), c.name+"-*.log")
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, name: c.name, log: log.Name(), ended: make(chan struct{})}
	cmd := exec.Command(filepath.Join(c.dir, c.name), c.args...)
	cmd.Env = append(os.Environ(), c.env...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = c.stdin, &p.stdout, log
	dieWithParent(cmd)
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		p.os = cmd.Process
		started <- err
		if err == nil {
			_ = cmd.Wait() // state tells how it ended
			p.state = cmd.ProcessState
		}
		_ = log.Close()
		close(p.ended)
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.cleanUp)
	return p
}

func (p *process) cleanUp() {
	_ = p.os.Signal(syscall.SIGKILL)
	<-p.ended
	text := p.text()
	for _, bad := range []string{"DATA RACE", "panic:", "fatal error:"} {
		if strings.Contains(text, bad) {
			p.t.Errorf("%s: %s", p.name, bad)
		}
	}
	if p.t.Failed() {
		const most = 6000
		p.t.Logf("%s (pid %d) ended: %v; stdout %q; the end of its log:\n%s", p.name, p.os.Pid, p.state, p.stdout.String(),
			text[max(0, len(text)-most):])
	}
}

func (p *process) signal(s syscall.Signal) {
	p.t.Helper()
	if err := p.os.Signal(s); err != nil {
		p.t.Fatalf("signal %s with %s: %v", p.name, s, err)
	}
}

// kill ends the process with SIGKILL and waits for it.
func (p *process) kill() {
	p.t.Helper()
	p.signal(syscall.SIGKILL)
	<-p.ended
}

// exit waits until the process ends by itself and returns its exit code.
func (p *process) exit(limit time.Duration) int {
	p.t.Helper()
	select {
	case <-p.ended:
	case <-time.After(limit):
		p.t.Fatalf("%s (pid %d) did not end within %s", p.name, p.os.Pid, limit)
	}
	return p.state.ExitCode()
}

// terminate sends SIGTERM and demands exit code 0.
func (p *process) terminate(limit time.Duration) {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.exit(limit); code != 0 {
		p.t.Errorf("%s after SIGTERM: exit code %d, want 0", p.name, code)
	}
}

func (p *process) gone() bool {
	select {
	case <-p.ended:
		return true
	default:
		return false
	}
}

// text is the process's standard error so far.
func (p *process) text() string {
	data, err := os.ReadFile(p.log)
	if err != nil {
		p.t.Error(err)
	}
	return string(data)
}

// logged returns the log entries with a message.
func (p *process) logged(message string) []map[string]any {
	var found []map[string]any
	for line := range strings.Lines(p.text()) {
		var entry map[string]any
		if json.Unmarshal([]byte(line), &entry) == nil && entry["message"] == message {
			found = append(found, entry)
		}
	}
	return found
}
