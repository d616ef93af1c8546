package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9"
)

// lab is where things are measured: a folder, the commands built into it, a Redis and an origin.
type lab struct {
	dir    string
	bin    string
	pages  int
	runs   int
	redis  *process
	rdb    *redis.Client
	url    string
	origin *process
	hosts  []string // "127.0.0.1:PORT"
	polite politeOptions
	host   host // of servers that benchmarks start
}

const originHosts = 64

func newLab(ctx context.Context, pages, runs int) (*lab, error) {
	dir, err := os.MkdirTemp("", "fetchfleet-bench-")
	if err != nil {
		return nil, err
	}
	l := &lab{dir: dir, bin: filepath.Join(dir, "bin"), pages: pages, runs: runs}
	build := exec.CommandContext(ctx, "go", "build", "-o", l.bin+string(filepath.Separator), "./cmd/...")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the commands (run this at the top of the repository): %w\n%s", err, out)
	}
	if err := l.startRedis(ctx); err != nil {
		l.close()
		return nil, err
	}
	if err := l.startOrigin(ctx); err != nil {
		l.close()
		return nil, err
	}
	return l, nil
}

func (l *lab) startRedis(ctx context.Context) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	l.url = fmt.Sprintf("redis://127.0.0.1:%d/0", port)
	l.redis, err = start(exec.Command("redis-server", "--port", strconv.Itoa(port), "--bind", "127.0.0.1", "--save", "",
		"--appendonly", "no", "--dir", l.dir), nil)
	if err != nil {
		return fmt.Errorf("start redis-server (Debian: apt-get install redis-server): %w", err)
	}
	l.rdb = redis.NewClient(&redis.Options{Addr: fmt.Sprintf("127.0.0.1:%d", port)})
	for range 100 {
		if err = l.rdb.Ping(ctx).Err(); err == nil {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("redis-server does not answer: %w", err)
}

func (l *lab) startOrigin(context.Context) error {
	lines := make(chan string, 1)
	p, err := l.self(lines, "origin", strconv.Itoa(originHosts))
	if err != nil {
		return err
	}
	l.origin = p
	select {
	case port := <-lines:
		for i := range originHosts {
			l.hosts = append(l.hosts, fmt.Sprintf("127.0.0.%d:%s", i+1, port))
		}
		return nil
	case <-time.After(10 * time.Second):
		return fmt.Errorf("the origin does not start")
	}
}

// self starts this program in a role.
func (l *lab) self(lines chan<- string, role string, args ...string) (*process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return start(exec.Command(exe, append([]string{"-role", role}, args...)...), lines)
}

func (l *lab) close() {
	l.host.close()
	if l.rdb != nil {
		_ = l.rdb.Close()
	}
	for _, p := range []*process{l.origin, l.redis} {
		if p != nil {
			p.kill()
		}
	}
	_ = os.RemoveAll(l.dir)
}

// scratch makes a new folder. Nothing is removed between runs: ext4 looks twice at inodes that were deleted lately, and
// the runs after a large removal would pay for it. What earlier runs wrote is flushed, so that nobody else pays for that.
func (l *lab) scratch() (string, error) {
	dir, err := os.MkdirTemp(l.dir, "run-")
	if err != nil {
		return "", err
	}
	return dir, flush()
}

// process is one process that was started here.
type process struct {
	cmd   *exec.Cmd
	began time.Time
	done  chan error
	most  atomic.Int64
}

// start starts a command. Its first line of output goes to lines.
func start(cmd *exec.Cmd, lines chan<- string) (*process, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if os.Getenv("BENCH_VERBOSE") != "" {
		cmd.Stderr = os.Stderr
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, began: time.Now(), done: make(chan error, 1)}
	go p.watch()
	go func() {
		scan := bufio.NewScanner(out)
		for first := true; scan.Scan(); first = false {
			if first && lines != nil {
				lines <- scan.Text()
			}
		}
		p.done <- cmd.Wait()
	}()
	return p, nil
}

func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to end and waits for it.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	return <-p.done
}

// cpu is the CPU time that an ended process took.
func (p *process) cpu() time.Duration {
	s := p.cmd.ProcessState
	return s.UserTime() + s.SystemTime()
}

// peak is the most memory the process has had resident, in bytes, as far as it was watched. It is read from the running
// process: what the system reports of an ended one includes the program that started it.
func (p *process) peak() int64 { return p.most.Load() }

// watch reads the high-water mark until the process has ended.
func (p *process) watch() {
	for {
		data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
		_, rest, ok := strings.Cut(string(data), "VmHWM:")
		if err != nil || !ok {
			return
		}
		if n, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64); err == nil {
			p.most.Store(n << 10)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// running is the CPU time a running process has taken.
func (p *process) running() time.Duration {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(data), ") ")
	fields := strings.Fields(rest)
	var ticks int64
	for _, f := range fields[11:13] { // utime, stime: proc(5)
		n, _ := strconv.ParseInt(f, 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * (time.Second / 100) // USER_HZ is 100 on Linux
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// figure is what one run took.
type figure struct{ wall, cpu time.Duration }

// median is the median of each of several runs' figures.
func median(figures []figure) figure {
	walls, cpus := make([]time.Duration, len(figures)), make([]time.Duration, len(figures))
	for i, f := range figures {
		walls[i], cpus[i] = f.wall, f.cpu
	}
	slices.Sort(walls)
	slices.Sort(cpus)
	return figure{walls[len(walls)/2], cpus[len(cpus)/2]}
}

// middle is the median.
func middle(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

func verdict(reached bool) string {
	if reached {
		return "reached"
	}
	return "NOT reached"
}
