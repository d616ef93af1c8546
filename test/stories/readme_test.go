package stories

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/redistest"
)

// notRun says which of the README's commands this test leaves out, by how their block begins, and why.
var notRun = map[string]string{
	"make test":      "it would run itself",
	"docker compose": "test/compose does these on a real engine",
}

// optional are programs that only this test needs; blocks with one that is not installed are left out.
var optional = []string{"duckdb"}

var shellBlock = regexp.MustCompile("(?ms)^```sh\n(.*?)^```$")

// TestTheCommandsOfTheReadmeWork runs every ```sh block of README.md and of examples/results.md, in order, in one shell
// and a copy of the tree. The list has URLs of this test's own origin, Redis listens on a free port, and the shell
// waits until it answers, as a person would. Nothing else is changed.
func TestTheCommandsOfTheReadmeWork(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("its commands are those of a Linux shell")
	}
	if testing.Short() {
		t.Skip("builds the programs")
	}
	if !redistest.Available() || !installed("jq") || !installed("make") || !installed("bash") {
		if os.Getenv("CI") == "true" {
			t.Fatal("redis-server, jq, make and bash are needed: make deps")
		}
		t.Skip("redis-server, jq, make and bash are needed: make deps installs them")
	}
	origin := fetchtest.NewOrigin()
	defer origin.Close()
	dir := copyOfTheTree(t)
	urls := origin.URL("/page/1") + "\n" + origin.URL("/page/2") + "\n" + origin.URL("/page/3") + "\n"
	write(t, filepath.Join(dir, "urls.txt"), urls)
	script := "set -eu\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n"
	port := freePort(t)
	for _, block := range blocks(t, dir, "README.md", "examples/results.md") {
		block = strings.ReplaceAll(block, "redis-server ", fmt.Sprintf("redis-server --port %s --save '' ", port))
		script += fmt.Sprintf("cat <<'END_OF_BLOCK'\n$ %sEND_OF_BLOCK\n%s", block, block)
		if strings.HasPrefix(block, "redis-server ") {
			script += fmt.Sprintf("until redis-cli -p %[1]s ping >/dev/null 2>&1; do sleep 0.1; done\n"+
				"export FLEET_REDIS=redis://127.0.0.1:%[1]s/0\n", port)
		}
	}
	shell(t, dir, script, "FLEET_ALLOW_PRIVATE=127.0.0.0/8", "CGO_ENABLED=0")
}

// shell runs a script and waits for it and what it left in the background.
func shell(t *testing.T, dir, script string, env ...string) {
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash")
	cmd.Stdin = strings.NewReader(script)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 30 * time.Second
	err := cmd.Run()
	t.Log(out.String())
	if err != nil {
		t.Errorf("the README's commands: %v", err)
	}
}

// blocks are the shell blocks to run, in order.
func blocks(t *testing.T, dir string, files ...string) (run []string) {
	t.Helper()
	for _, file := range files {
		data, err := os.ReadFile(filepath.Join(dir, file))
		if err != nil {
			t.Fatal(err)
		}
		found := shellBlock.FindAllStringSubmatch(string(data), -1)
		if len(found) == 0 {
			t.Errorf("%s has no shell blocks", file)
		}
		for _, block := range found {
			if why := leftOut(block[1]); why != "" {
				t.Logf("not run, %s:\n%s", why, block[1])
				continue
			}
			run = append(run, block[1])
		}
	}
	return run
}

func leftOut(block string) string {
	for begin, why := range notRun {
		if strings.HasPrefix(block, begin) {
			return why
		}
	}
	for _, program := range optional {
		if strings.HasPrefix(block, program+" ") && !installed(program) {
			return program + " is not installed"
		}
	}
	return ""
}

func installed(program string) bool {
	_, err := exec.LookPath(program)
	return err == nil
}

// copyOfTheTree copies what a reader of the README has, so that the commands leave nothing behind in the original.
func copyOfTheTree(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"go.mod", "go.sum", "Makefile", "README.md", "cmd", "internal", "examples"} {
		out, err := exec.Command("cp", "-r", filepath.Join("..", "..", name), dir).CombinedOutput()
		if err != nil {
			t.Fatalf("copy %s: %v\n%s", name, err, out)
		}
	}
	return dir
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, port, err := net.SplitHostPort(listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	return port
}
