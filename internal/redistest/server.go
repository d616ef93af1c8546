// Package redistest runs real redis-server processes and a proxy that can be cut, for tests only.
//
// It promises that a started process never outlives its test, listens on loopback alone, and keeps its data in the
// test's own folder. It promises nothing about speed: a start takes some tens of milliseconds.
package redistest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
)

// binary is the program that Start looks for on PATH.
const binary = "redis-server"

// startLimit is how long a server may take until it answers; a machine under load needs seconds.
const startLimit = 20 * time.Second

// Server is one redis-server process, which can be stopped, killed and started again on the same port and folder.
// Its methods are for the test's own goroutine; Addr and URL may be called from any.
type Server struct {
	t        testing.TB
	dir      string
	port     int
	password string
	config   string // a configuration file, read before the arguments
	args     []string
	proc     *process // nil while stopped
}

// Option changes how a server is started.
type Option func(*Server)

// AOF keeps an append-only file with the given appendfsync ("always", "everysec", "no"), so that data survives Stop,
// Kill and Restart. Without it a restarted server is empty.
func AOF(appendfsync string) Option {
	return func(s *Server) { s.args = append(s.args, "--appendonly", "yes", "--appendfsync", appendfsync) }
}

// Password makes the server demand a password. URL and Client carry it.
func Password(password string) Option {
	return func(s *Server) {
		s.password = password
		s.args = append(s.args, "--requirepass", password)
	}
}

// MaxMemory limits the server's memory, in redis-server's own spelling: "64mb".
func MaxMemory(limit string) Option { return Arg("--maxmemory", limit) }

// Arg passes further arguments to redis-server, after those of this package, so that they win.
func Arg(args ...string) Option { return func(s *Server) { s.args = append(s.args, args...) } }

// Config names a configuration file for redis-server, which then has to give all settings
// but port and address. Together with
// Arg("--sentinel") it makes a sentinel, which rewrites the file.
func Config(path string) Option { return func(s *Server) { s.config = path } }

// Start runs a server and waits until it answers. The process is ended when the test ends. Where redis-server is not
// installed the test is skipped, and fails where CI=true.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	if !Available() {
		missing(t)
	}
	s := &Server{t: t, dir: t.TempDir()}
	for _, option := range options {
		option(s)
	}
	t.Cleanup(func() { s.end(syscall.SIGKILL) })
	var err error
	for range 5 { // another process may take the free port before redis-server does
		s.port = freePort(t)
		if err = s.launch(); err == nil {
			return s
		}
	}
	t.Fatalf("redistest: start %s: %v", binary, err)
	return nil
}

// Available reports whether redis-server is installed.
func Available() bool {
	_, err := exec.LookPath(binary)
	return err == nil
}

// Addr returns the server's HOST:PORT. It stays the same over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns the server's redis:// URL, with its password when it has one.
func (s *Server) URL() string {
	if s.password == "" {
		return "redis://" + s.Addr() + "/0"
	}
	return "redis://:" + s.password + "@" + s.Addr() + "/0"
}

// Client returns a plain client of the server, closed when the test ends.
func (s *Server) Client() *redis.Client {
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: s.password})
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// Stop ends the server with SIGTERM, as an operator would, and waits for it. A stopped server may be stopped again.
func (s *Server) Stop() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
}

// Kill ends the server with SIGKILL and waits for it: what it had not written is lost.
func (s *Server) Kill() {
	s.t.Helper()
	s.end(syscall.SIGKILL)
}

// Restart starts a stopped server again, or stops and starts a running one, on the same port and folder.
func (s *Server) Restart() {
	s.t.Helper()
	s.end(syscall.SIGTERM)
	if err := s.launch(); err != nil {
		s.t.Fatalf("redistest: restart %s on %s: %v", binary, s.Addr(), err)
	}
}

// PID returns the id of the running process, 0 while stopped.
func (s *Server) PID() int {
	if s.proc == nil {
		return 0
	}
	return s.proc.pid
}

func (s *Server) launch() error {
	args := append(s.arguments(), s.args...)
	proc, err := spawn(exec.Command(binary, args...))
	if err != nil {
		return err
	}
	s.proc = proc
	if err := s.awaitAnswer(); err != nil {
		s.end(syscall.SIGKILL)
		log, _ := os.ReadFile(filepath.Join(s.dir, "redis.log"))
		return fmt.Errorf("%w\n%s", err, log)
	}
	return nil
}

// arguments are those of this package. A sentinel knows few settings; it gets no others.
func (s *Server) arguments() []string {
	if s.config != "" {
		return []string{s.config, "--port", strconv.Itoa(s.port), "--bind", "127.0.0.1"}
	}
	return []string{
		"--port", strconv.Itoa(s.port), "--bind", "127.0.0.1", "--dir", s.dir, "--save", "", "--daemonize", "no",
		"--maxmemory-policy", "noeviction", "--logfile", filepath.Join(s.dir, "redis.log"),
	}
}

// awaitAnswer polls until the server answers a PING, its process ends, or startLimit is over.
func (s *Server) awaitAnswer() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	client := redis.NewClient(&redis.Options{Addr: s.Addr(), Password: s.password, MaxRetries: -1, DialerRetries: 1})
	defer func() { _ = client.Close() }()
	for {
		err := client.Ping(ctx).Err()
		if err == nil {
			err = s.isOurs(ctx, client)
		}
		if err == nil {
			return nil
		}
		select {
		case <-s.proc.ended:
			return fmt.Errorf("the process ended before it answered: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", startLimit, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// isOurs makes sure that it is this process that answers, and not the server of another test that took the port first.
func (s *Server) isOurs(ctx context.Context, client *redis.Client) error {
	info, err := client.Info(ctx, "server").Result()
	if err != nil {
		return err
	}
	if !strings.Contains(info, fmt.Sprintf("process_id:%d\r\n", s.proc.pid)) {
		return fmt.Errorf("%s is another server's", s.Addr())
	}
	return nil
}

// end signals the process and waits for it, with SIGKILL after ten seconds.
func (s *Server) end(signal os.Signal) {
	if s.proc == nil {
		return
	}
	s.proc.end(signal, 10*time.Second)
	s.proc = nil
}

func missing(t testing.TB) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("redistest: %s is not on PATH and CI=true: install redis-server", binary)
	}
	t.Skipf("redistest: %s is not on PATH: install redis-server to run this test", binary)
}

// freePort returns a port that nobody listens on. It is below those that systems give to outgoing connections, which
// would take it while a server is stopped, and rarely chosen twice.
func freePort(t testing.TB) int {
	t.Helper()
	const first, ports, tries = 10_000, 20_000, 100
	for range tries {
		port := first + rand.IntN(ports)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = listener.Close()
			return port
		}
	}
	t.Fatalf("redistest: no free port among %d tried", tries)
	return 0
}
