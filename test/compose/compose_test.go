//go:build compose

// Package compose holds one test: docker-compose.yml, as a user would drive it, on a real Docker Engine.
//
// It needs an engine that can get the base images; engine.sh makes one out of Debian's packages where there is
// none (make test-compose chooses). FLEET_COMPOSE names the Compose command, "docker-compose" or "docker compose".
package compose

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"
)

// job is what the one-shot enqueue of the demo list runs under, to ask for it by name afterwards.
const job = "compose-test"

// status is the part of `fleet status --json` that the test steers by.
type status struct {
	State    string `json:"state"`
	Accepted int64  `json:"accepted"`
	Open     int64  `json:"open"`
	OK       int64  `json:"ok"`
}

// TestFleetOnARealEngine goes through an operator's day: start four workers, enqueue, lose one to kill -9, scale
// down while work is open, and have the audit say that every request has its record exactly once.
func TestFleetOnARealEngine(t *testing.T) {
	f := newFleet(t)
	f.compose("build", "worker") // every service of ours runs this one image
	f.compose("up", "-d", "--scale", "worker=4", "redis", "worker", "monitor", "origin")
	workers := f.healthy("worker", 4)
	f.healthy("redis", 1)
	f.healthy("monitor", 1)
	t.Run("workers are hardened", func(t *testing.T) { checkHardened(t, workers[0]) })
	t.Run("the monitor answers on this machine only", f.checkMonitor)

	f.compose("run", "--rm", "demo", "--job", job, "/lists/demo.txt")
	before := f.waitStatus("work is under way", func(s status) bool { return s.Accepted > 0 && s.Open < s.Accepted })
	if before.Open == 0 {
		t.Fatalf("the demo list ended before a worker could be killed: %+v; is it paced?", before)
	}
	f.docker("kill", "--signal", "KILL", workers[0])
	f.drained(workers[1])
	f.compose("up", "-d", "--no-recreate", "--scale", "worker=2", "worker")
	f.healthy("worker", 2)

	after := f.waitStatus("the job ended", func(s status) bool { return s.State == "ended" })
	if after.Accepted != before.Accepted || after.Open != 0 {
		t.Errorf("status after the end: got %+v, want accepted=%d open=0", after, before.Accepted)
	}
	// The demo site has missing and broken pages too; but an audit is content with a job whose every request failed.
	if after.OK < after.Accepted/2 {
		t.Errorf("requests answered 2xx: got %d of %d, want half at least", after.OK, after.Accepted)
	}
	t.Logf("under way: %+v; ended: %+v; %s", before, after, f.compose("run", "--rm", "fleet", "audit", job))
	t.Run("a list from standard input is taken too", f.checkStdin)
}

// checkStdin feeds one more list the way the README shows, into a job of its own.
func (f *fleet) checkStdin(t *testing.T) {
	cmd := f.command("run", "--rm", "-T", "enqueue", "--job", job+"-stdin", "--wait", "-")
	cmd.Stdin = strings.NewReader("http://alpha.demo:8000/\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("enqueue from standard input: %v\n%s", err, out)
	}
}

// checkHardened looks at what the engine enforces, not at what the file says.
func checkHardened(t *testing.T, container string) {
	format := `{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}} {{len .NetworkSettings.Ports}}`
	out, err := exec.Command("docker", "inspect", "--format", format, container).CombinedOutput()
	if err != nil {
		t.Fatalf("docker inspect %s: %v\n%s", container, err, out)
	}
	want := "65532:65532 true [ALL] [no-new-privileges:true] 0"
	if got := strings.TrimSpace(string(out)); got != want {
		t.Errorf("user, read-only root, dropped capabilities, security options, published ports: got %q, want %q", got, want)
	}
}

// checkMonitor asks the published port, on loopback and nowhere else.
func (f *fleet) checkMonitor(t *testing.T) {
	published := strings.TrimSpace(f.compose("port", "monitor", "8081"))
	if want := "127.0.0.1:" + f.monitorPort; published != want {
		t.Errorf("monitor published at %q, want %q", published, want)
	}
	resp, err := http.Get("http://" + published + "/livez")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("GET /livez of the monitor: got %s, want 200", resp.Status)
	}
}

// fleet is one Compose project, taken down with its volumes when the test ends.
type fleet struct {
	t           *testing.T
	argv        []string // the Compose command with project and profiles
	env         []string
	monitorPort string
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	if out, err := exec.Command("docker", "version").CombinedOutput(); err != nil {
		t.Fatalf("no Docker Engine: %v\n%s\nrun this test through `make test-compose`", err, out)
	}
	port := freePort(t)
	f := &fleet{t: t, monitorPort: port}
	f.argv = append(strings.Fields(cmp.Or(os.Getenv("FLEET_COMPOSE"), "docker-compose")),
		"--file", "../../docker-compose.yml", "--project-name", "fleettest"+port, "--profile", "demo", "--profile", "tools")
	// The engine's own networks are private addresses, which workers refuse unless told otherwise.
	f.env = append(os.Environ(), "FLEET_MONITOR_PORT="+port, "FLEET_VERSION=test", "FLEET_LISTS="+t.TempDir(),
		"FLEET_ALLOW_PRIVATE=172.16.0.0/12,192.168.0.0/16")
	t.Cleanup(func() {
		if t.Failed() {
			f.tryCompose("ps")
			f.tryCompose("logs", "--no-color", "--tail", "40")
		}
		f.tryCompose("down", "--volumes", "--timeout", "5")
	})
	return f
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return strconv.Itoa(l.Addr().(*net.TCPAddr).Port)
}

// command is one call of Compose; it is killed when the test's own time is up.
func (f *fleet) command(args ...string) *exec.Cmd {
	argv := append(append([]string{}, f.argv...), args...)
	cmd := exec.CommandContext(f.t.Context(), argv[0], argv[1:]...)
	cmd.Env = f.env
	return cmd
}

// compose fails the test when the call fails, and returns what it printed on standard output.
func (f *fleet) compose(args ...string) string {
	f.t.Helper()
	return f.must(f.command(args...))
}

func (f *fleet) docker(args ...string) string {
	f.t.Helper()
	return f.must(exec.CommandContext(f.t.Context(), "docker", args...))
}

func (f *fleet) must(cmd *exec.Cmd) string {
	f.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	start := time.Now()
	if err := cmd.Run(); err != nil {
		f.t.Fatalf("%s: %v\n%s%s", strings.Join(cmd.Args, " "), err, stdout.String(), stderr.String())
	}
	if took := time.Since(start); took > 2*time.Second {
		f.t.Logf("%6.1fs %s", took.Seconds(), strings.Join(cmd.Args, " "))
	}
	return stdout.String()
}

// tryCompose serves the clean-up, when the test's context is over and a failure changes nothing.
func (f *fleet) tryCompose(args ...string) {
	argv := append(append([]string{}, f.argv...), args...)
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = f.env
	if out, err := cmd.CombinedOutput(); err != nil || args[0] != "down" {
		f.t.Logf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// healthy waits until exactly n running containers of the service say so themselves, and returns their ids.
func (f *fleet) healthy(service string, n int) []string {
	f.t.Helper()
	var ids []string
	f.until(fmt.Sprintf("%d healthy %s", n, service), 2*time.Minute, func() (bool, string) {
		out := f.docker("ps", "--quiet", "--filter", "health=healthy",
			"--filter", "label=com.docker.compose.project="+f.project(), "--filter", "label=com.docker.compose.service="+service)
		ids = strings.Fields(out)
		return len(ids) == n, fmt.Sprintf("%d", len(ids))
	})
	return ids
}

// drained stops a worker as a scale-down does, and wants it to have ended by itself before the engine's patience did.
func (f *fleet) drained(container string) {
	f.t.Helper()
	f.docker("stop", "-t", "45", container)
	if got := strings.TrimSpace(f.docker("inspect", "--format", "{{.State.ExitCode}}", container)); got != "0" {
		f.t.Errorf("exit code of a stopped worker: got %s, want 0", got)
	}
}

func (f *fleet) waitStatus(what string, ok func(status) bool) status {
	f.t.Helper()
	var s status
	f.until(what, 5*time.Minute, func() (bool, string) {
		out := f.compose("run", "--rm", "-T", "fleet", "status", job, "--json")
		if err := json.Unmarshal([]byte(out), &s); err != nil {
			f.t.Fatalf("fleet status --json: %v\n%s", err, out)
		}
		return ok(s), fmt.Sprintf("%+v", s)
	})
	return s
}

// until asks again every half second; what it waits for happens in other processes, so there is no event to wait on.
func (f *fleet) until(what string, limit time.Duration, ask func() (bool, string)) {
	f.t.Helper()
	deadline := time.Now().Add(limit)
	for {
		done, got := ask()
		if done {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("waited %s for %s, got %s", limit, what, got)
		}
		select {
		case <-time.After(500 * time.Millisecond):
		case <-f.t.Context().Done():
			f.t.Fatalf("stopped while waiting for %s", what)
		}
	}
}

func (f *fleet) project() string { return "fleettest" + f.monitorPort }
