package stories

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/redistest"
)

// patience bounds every wait of a story. It is far above what any of them needs, for machines under load.
const patience = time.Minute

// world is what one story has besides its files.
type world struct {
	t      testing.TB
	origin *fetchtest.Origin
	redis  *redistest.Server
	held   map[string]*exec.Cmd // see hold
	pipes  map[string]func()    // see feed
}

type worldKey struct{}

func worldOf(ts *testscript.TestScript) *world { return ts.Value(worldKey{}).(*world) }

// setup gives every story an origin, at $ORIGIN, which the commands may talk to, and two addresses to listen on.
func setup(env *testscript.Env) error {
	w := &world{t: env.T().(testing.TB), origin: fetchtest.NewOrigin(), held: map[string]*exec.Cmd{}, pipes: map[string]func(){}}
	env.Values[worldKey{}] = w
	env.Defer(w.origin.Close)
	env.Setenv("ORIGIN", w.origin.URL(""))
	env.Setenv("FLEET_ALLOW_PRIVATE", "127.0.0.0/8")
	env.Setenv("FLEET_LISTEN", "127.0.0.1:0")
	env.Setenv("HOME", env.WorkDir)
	for _, name := range []string{"ADDR_ONE", "ADDR_TWO"} {
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		env.Setenv(name, listener.Addr().String()) // free until someone else takes it
		if err := listener.Close(); err != nil {
			return err
		}
	}
	return nil
}

// condition adds [tmpfs]: this user may mount one, and [bound]: permissions bind this user.
func condition(name string) (bool, error) {
	if name == "bound" {
		return runtime.GOOS != "windows" && os.Getuid() != 0, nil
	}
	if name != "tmpfs" {
		return false, fmt.Errorf("unknown condition %q", name)
	}
	if runtime.GOOS != "linux" || os.Getuid() != 0 {
		return false, nil
	}
	dir, err := os.MkdirTemp("", "stories-")
	if err != nil {
		return false, err
	}
	defer os.Remove(dir)
	if exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", dir).Run() != nil {
		return false, nil // a container without the right to
	}
	return true, exec.Command("umount", dir).Run()
}

// commands are what stories have besides testscript's own.
var commands = map[string]func(*testscript.TestScript, bool, []string){
	"code":     code,
	"hold":     hold,
	"term":     term,
	"exited":   exited,
	"redis":    redisCommand,
	"await":    await,
	"seen":     seen,
	"get":      get,
	"records":  records,
	"expand":   expand,
	"list":     list,
	"pack":     pack,
	"tmpfs":    tmpfs,
	"feed":     feed,
	"s3":       s3Command,
	"speaks":   speaksCommand,
	"postgres": postgresCommand,
	"sqlite":   sqliteCommand,
	"refused":  refused,
}

// code runs a command and insists on its exit code: code N COMMAND ARG…
func code(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: code N COMMAND ARG…")
	}
	got := 0
	var exit *exec.ExitError
	if err := ts.Exec(args[1], args[2:]...); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s: exit code %d, want %s", strings.Join(args[1:], " "), got, args[0])
	}
}

// hold keeps the background command started last under a name, for term and exited: hold NAME
func hold(ts *testscript.TestScript, neg bool, args []string) {
	all := ts.BackgroundCmds()
	worldOf(ts).held[args[0]] = all[len(all)-1]
}

// term asks a command held to stop, as operators do: term NAME
func term(ts *testscript.TestScript, neg bool, args []string) {
	ts.Check(worldOf(ts).held[args[0]].Process.Signal(syscall.SIGTERM))
}

// exited insists on the exit code of a command held, once it was waited for: exited NAME N
func exited(ts *testscript.TestScript, neg bool, args []string) {
	if got := worldOf(ts).held[args[0]].ProcessState.ExitCode(); strconv.Itoa(got) != args[1] {
		ts.Fatalf("%s: exit code %d, want %s", args[0], got, args[1])
	}
}

// redisCommand starts and steers a real redis-server, whose URL is $REDIS and the default of the commands:
//
//	redis start [PASSWORD]
//	redis stop | restart
//	redis do COMMAND ARG…
func redisCommand(ts *testscript.TestScript, neg bool, args []string) {
	w := worldOf(ts)
	switch {
	case len(args) >= 1 && args[0] == "start":
		options := []redistest.Option{redistest.AOF("everysec")}
		if len(args) == 2 {
			options = append(options, redistest.Password(args[1]))
		}
		w.redis = redistest.Start(w.t, options...)
		ts.Setenv("REDIS", w.redis.URL())
		ts.Setenv("REDIS_ADDR", w.redis.Addr())
		ts.Setenv("FLEET_REDIS", w.redis.URL())
	case len(args) == 1 && args[0] == "stop":
		w.redis.Stop()
	case len(args) == 1 && args[0] == "restart":
		w.redis.Restart()
	case len(args) > 1 && args[0] == "do":
		words := make([]any, len(args)-1)
		for i, a := range args[1:] {
			words[i] = a
		}
		reply, err := w.redis.Client().Do(context.Background(), words...).Result()
		ts.Check(err)
		fmt.Fprintln(ts.Stdout(), reply)
	default:
		ts.Fatalf("usage: redis start [PASSWORD] | stop | restart | do COMMAND ARG…")
	}
}

// until asks ok again and again until it is true.
func until(ts *testscript.TestScript, what func() string, ok func() bool) {
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			ts.Fatalf("not within %s: %s", patience, what())
		}
		<-time.After(20 * time.Millisecond)
	}
}

// await runs a command until its output matches: await PATTERN COMMAND ARG…
func await(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: await PATTERN COMMAND ARG…")
	}
	pattern := regexp.MustCompile("(?m)" + args[0])
	var last string
	until(ts, func() string { return fmt.Sprintf("%q to match %q; last:\n%s", args[1:], args[0], last) }, func() bool {
		cmd := exec.Command(args[1], args[2:]...) // found on the test's PATH, which the story's begins with
		cmd.Dir, cmd.Env = ts.MkAbs("."), environment(ts)
		out, _ := cmd.CombinedOutput()
		last = string(out)
		return pattern.Match(out)
	})
}

// environment is that of the story, as far as the commands use it.
func environment(ts *testscript.TestScript) []string {
	env := os.Environ()
	for _, name := range []string{"FLEET_REDIS", "FLEET_STORE", "FLEET_LISTEN", "FLEET_ALLOW_PRIVATE", "HOME",
		"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} {
		env = append(env, name+"="+ts.Getenv(name))
	}
	return env
}

// seen waits until the origin has been asked so often for what begins with PREFIX, or checks it was not: seen N PREFIX
func seen(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: [!] seen N PREFIX")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	count := func() int {
		n := 0
		for _, s := range worldOf(ts).origin.Requests() {
			if strings.HasPrefix(s.URI, args[1]) {
				n++
			}
		}
		return n
	}
	if neg {
		if n := count(); n >= want {
			ts.Fatalf("the origin was asked %d times for %s, want fewer than %d", n, args[1], want)
		}
		return
	}
	until(ts, func() string { return fmt.Sprintf("%d requests for %s, there were %d", want, args[1], count()) },
		func() bool { return count() >= want })
}

// get asks a URL until its answer matches, and leaves it on standard output: get URL PATTERN
func get(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: get URL PATTERN")
	}
	pattern := regexp.MustCompile("(?m)" + args[1])
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	var answer string
	until(ts, func() string { return fmt.Sprintf("%s to match %q; last:\n%s", args[0], args[1], answer) }, func() bool {
		resp, err := client.Get(args[0])
		if err != nil {
			answer = err.Error()
			return false
		}
		defer resp.Body.Close()
		body, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		answer = resp.Status + "\n" + string(body)
		return pattern.MatchString(answer)
	})
	fmt.Fprintln(ts.Stdout(), answer)
}

// records counts the records of a results file, and insists that no request has two: records FILE [FIELD=VALUE…] N
func records(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: records FILE [FIELD=VALUE…] N")
	}
	want, err := strconv.Atoi(args[len(args)-1])
	ts.Check(err)
	got, ids := 0, map[string]bool{}
	lines := bufio.NewScanner(strings.NewReader(ts.ReadFile(args[0])))
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var r map[string]any
		ts.Check(json.Unmarshal(lines.Bytes(), &r))
		id := fmt.Sprint(r["id"])
		if ids[id] {
			ts.Fatalf("%s: request %s has two records", args[0], id)
		}
		ids[id] = true
		if matches(r, args[1:len(args)-1]) {
			got++
		}
	}
	ts.Check(lines.Err())
	if got != want {
		ts.Fatalf("%s: %d records with %v, want %d", args[0], got, args[1:len(args)-1], want)
	}
}

// matches reports whether every condition, "error.class=reset", holds.
func matches(r map[string]any, conditions []string) bool {
	for _, c := range conditions {
		path, want, _ := strings.Cut(c, "=")
		var value any = r
		for name := range strings.SplitSeq(path, ".") {
			fields, _ := value.(map[string]any)
			value = fields[name]
		}
		if fmt.Sprint(value) != want {
			return false
		}
	}
	return true
}

// expand writes the origin's address into files, where they have $ORIGIN: expand FILE…
func expand(ts *testscript.TestScript, neg bool, args []string) {
	for _, name := range args {
		text := strings.ReplaceAll(ts.ReadFile(name), "$ORIGIN", ts.Getenv("ORIGIN"))
		ts.Check(os.WriteFile(ts.MkAbs(name), []byte(text), 0o644))
	}
}

// list writes a list of N URLs that begin alike: list FILE N PREFIX
func list(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 3 {
		ts.Fatalf("usage: list FILE N PREFIX")
	}
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	var text strings.Builder
	for i := range n {
		fmt.Fprintf(&text, "%s%d\n", args[2], i)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text.String()), 0o644))
}

// pack compresses a file, or makes what no list is: pack gzip|zstd FROM TO, pack noise|longline TO
func pack(ts *testscript.TestScript, neg bool, args []string) {
	var out bytes.Buffer
	switch {
	case len(args) == 3 && args[0] == "gzip":
		z := gzip.NewWriter(&out)
		_, err := z.Write([]byte(ts.ReadFile(args[1])))
		ts.Check(errors.Join(err, z.Close()))
	case len(args) == 3 && args[0] == "zstd":
		z, err := zstd.NewWriter(&out)
		ts.Check(err)
		_, err = z.Write([]byte(ts.ReadFile(args[1])))
		ts.Check(errors.Join(err, z.Close()))
	case len(args) == 2 && args[0] == "noise":
		for i := range 4096 {
			out.WriteByte(byte(i * 7))
		}
	case len(args) == 2 && args[0] == "longline":
		out.WriteString("http://127.0.0.1/" + strings.Repeat("a", 10<<20) + "\n")
	default:
		ts.Fatalf("usage: pack gzip|zstd FROM TO, pack noise|longline TO")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[len(args)-1]), out.Bytes(), 0o644))
}

// tmpfs mounts a small file system, or gives one more room: tmpfs DIR SIZE
func tmpfs(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: tmpfs DIR SIZE")
	}
	dir := ts.MkAbs(args[0])
	if os.Mkdir(dir, 0o755) != nil {
		ts.Check(ts.Exec("mount", "-o", "remount,size="+args[1], dir))
		return
	}
	ts.Check(ts.Exec("mount", "-t", "tmpfs", "-o", "size="+args[1], "tmpfs", dir))
	ts.Defer(func() { _ = exec.Command("umount", dir).Run() })
}

// feed makes a pipe that stays open until the story ends and writes a file's lines into it, or ends it earlier:
// feed PIPE FILE, feed PIPE
func feed(ts *testscript.TestScript, neg bool, args []string) {
	w, path := worldOf(ts), ts.MkAbs(args[0])
	if len(args) == 1 {
		w.pipes[path]()
		return
	}
	ts.Check(exec.Command("mkfifo", path).Run())
	f, err := os.OpenFile(path, os.O_RDWR, 0) // both ends, so that nobody waits for the other to open it
	ts.Check(err)
	text, written := ts.ReadFile(args[1]), make(chan struct{})
	go func() { // a pipe holds 64 KiB
		defer close(written)
		_, _ = f.WriteString(text) // cut short by the end of the story
	}()
	w.pipes[path] = sync.OnceFunc(func() {
		_ = f.Close()
		<-written
	})
	ts.Defer(w.pipes[path])
}
