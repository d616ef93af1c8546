// Package pgtest runs real PostgreSQL servers, for tests only.
//
// It promises that a started server never outlives its test binary, listens on loopback alone, and keeps its data in
// a temporary folder of its own. PostgreSQL refuses to run as root: a test that does runs it as postgres or nobody.
package pgtest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// startLimit is how long a server may take until it answers; a machine under load needs seconds.
	startLimit = 30 * time.Second
	// User is the superuser of every server, and Password its password.
	User     = "fleet"
	Password = "sesame-of-tests"
)

// Server is one PostgreSQL server, which can be stopped, killed and started again on the same port and folder. Stop and
// Restart are for one goroutine at a time; the rest may be called from any.
type Server struct {
	dir      string
	bin      string // folder of the programs
	port     int
	settings []string
	durable  bool
	proc     *process // nil while stopped
	made     atomic.Int64
}

// Option changes how a server is started.
type Option func(*Server)

// Durable leaves fsync on, for figures that mean something.
func Durable() Option { return func(s *Server) { s.durable = true } }

// Set gives a setting of postgresql.conf.
func Set(name, value string) Option {
	return func(s *Server) { s.settings = append(s.settings, "-c", name+"="+value) }
}

// Start runs a server and waits until it answers. It ends with the test. Where PostgreSQL is not installed the test is
// skipped, and fails where CI=true.
func Start(t testing.TB, options ...Option) *Server {
	t.Helper()
	bin := programs()
	if bin == "" {
		missing(t)
	}
	s, err := launch(bin, options)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	t.Cleanup(s.remove)
	return s
}

// Shared is one server for all tests of a package, started by the first that asks. The zero value is ready; TestMain
// calls Close at the end.
type Shared struct {
	once   sync.Once
	server *Server
	err    error
}

// Server returns the server, or skips or fails the test as Start does.
func (s *Shared) Server(t testing.TB) *Server {
	t.Helper()
	bin := programs()
	if bin == "" {
		missing(t)
	}
	s.once.Do(func() { s.server, s.err = launch(bin, nil) })
	if s.err != nil {
		t.Fatalf("pgtest: %v", s.err)
	}
	return s.server
}

// Close ends the server if there is one.
func (s *Shared) Close() {
	if s.server != nil {
		s.server.remove()
	}
}

// Addr returns the server's HOST:PORT. It stays the same over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns the postgres:// URL of a database, password included.
func (s *Server) URL(database string) string {
	u := url.URL{Scheme: "postgres", User: url.UserPassword(User, Password), Host: s.Addr(), Path: "/" + database}
	return u.String()
}

// Database makes a database of the test's own and returns its URL.
func (s *Server) Database(t testing.TB) string {
	t.Helper()
	name := fmt.Sprintf("t%d", s.made.Add(1))
	Exec(t, s.URL("postgres"), "CREATE DATABASE "+name)
	return s.URL(name)
}

// Exec runs statements, without parameters, on a connection of their own.
func Exec(t testing.TB, url, sql string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		t.Fatalf("pgtest: %v", err)
	}
	defer func() { _ = conn.Close(ctx) }()
	if _, err := conn.PgConn().Exec(ctx, sql).ReadAll(); err != nil {
		t.Fatalf("pgtest: %.200s: %v", sql, err)
	}
}

// Stop ends the server without ceremony, as "pg_ctl stop -m immediate" does: connections are cut and what was not
// flushed is recovered from the log at the next start.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	s.end()
}

// Restart starts a stopped server again, or stops and starts a running one, on the same port and folder.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.end()
	if err := s.run(); err != nil {
		t.Fatalf("pgtest: restart: %v", err)
	}
}

// launch makes a cluster and runs its server.
func launch(bin string, options []Option) (*Server, error) {
	dir, err := os.MkdirTemp("", "pgtest")
	if err != nil {
		return nil, err
	}
	s := &Server{dir: dir, bin: bin}
	for _, option := range options {
		option(s)
	}
	if err := s.initialise(); err != nil {
		s.remove()
		return nil, err
	}
	for range 5 { // another process may take the free port before the server does
		if s.port, err = freePort(); err != nil {
			break
		}
		if err = s.run(); err == nil {
			return s, nil
		}
	}
	s.remove()
	return nil, fmt.Errorf("start PostgreSQL: %w", err)
}

func (s *Server) initialise() error {
	secret := filepath.Join(s.dir, "password")
	if err := os.WriteFile(secret, []byte(Password+"\n"), 0o600); err != nil {
		return err
	}
	if err := giveAway(s.dir, secret); err != nil {
		return err
	}
	cmd := s.command("initdb", "-D", s.data(), "-U", User, "-A", "scram-sha-256", "--pwfile", secret,
		"-E", "UTF8", "--locale=C", "--no-sync")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	return nil
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// command returns a command that runs as a user whom PostgreSQL accepts, in a folder that this user may enter.
func (s *Server) command(program string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, program+exeSuffix()), args...)
	cmd.Dir = s.dir
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	asUser(cmd)
	return cmd
}

func exeSuffix() string {
	if runtime.GOOS == "windows" {
		return ".exe"
	}
	return ""
}

func (s *Server) run() error {
	args := []string{
		"-D", s.data(), "-p", strconv.Itoa(s.port), "-c", "listen_addresses=127.0.0.1",
		"-c", "unix_socket_directories=" + s.dir, "-c", "dynamic_shared_memory_type=mmap", "-c", "shared_buffers=64MB",
	}
	if runtime.GOOS == "windows" {
		args = args[:6]
	}
	if !s.durable {
		args = append(args, "-c", "fsync=off")
	}
	cmd := s.command("postgres", slices.Concat(args, s.settings)...)
	log, err := os.OpenFile(filepath.Join(s.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()
	cmd.Stdout, cmd.Stderr = log, log
	if s.proc, err = spawn(cmd); err != nil {
		return err
	}
	if err := s.awaitAnswer(); err != nil {
		s.end()
		text, _ := os.ReadFile(log.Name())
		return fmt.Errorf("%w\n%s", err, text[max(0, len(text)-2000):])
	}
	return nil
}

// awaitAnswer polls until the server takes connections, its process ends, or startLimit is over.
func (s *Server) awaitAnswer() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	for {
		err := s.answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-s.proc.ended:
			return fmt.Errorf("the process ended before it answered: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("no answer within %s: %w", startLimit, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// answers also makes sure that it is this server that answers, and not another test's that took the port first.
func (s *Server) answers(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	var folder string
	if err := conn.QueryRow(ctx, "SHOW data_directory").Scan(&folder); err != nil {
		return err
	}
	if filepath.Clean(folder) != filepath.Clean(s.data()) {
		return fmt.Errorf("%s is the server of %s", s.Addr(), folder)
	}
	return nil
}

func (s *Server) end() {
	if s.proc != nil {
		s.proc.end(10 * time.Second)
		s.proc = nil
	}
}

func (s *Server) remove() {
	s.end()
	_ = os.RemoveAll(s.dir)
}

// programs returns the folder of initdb and postgres, "" where there is none: that of PATH, or the newest of Debian's.
func programs() string {
	for _, name := range []string{"postgres", "initdb"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if real, err := filepath.EvalSymlinks(path); err == nil && hasInitdb(filepath.Dir(real)) {
			return filepath.Dir(real)
		}
	}
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.SortFunc(found, func(a, b string) int { return major(b) - major(a) })
	for _, dir := range found {
		if hasInitdb(dir) {
			return dir
		}
	}
	return ""
}

func hasInitdb(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "initdb"+exeSuffix()))
	return err == nil
}

// major reads the 15 of /usr/lib/postgresql/15/bin.
func major(dir string) int {
	n, _ := strconv.Atoi(filepath.Base(filepath.Dir(dir)))
	return n
}

func missing(t testing.TB) {
	t.Helper()
	const what = "pgtest: no PostgreSQL server (postgres, initdb) on PATH or below /usr/lib/postgresql"
	if os.Getenv("CI") == "true" {
		t.Fatal(what + ", and CI=true: install postgresql")
	}
	t.Skip(what + ": install postgresql to run this test")
}

// freePort returns a port that nobody listens on, below those that systems give to outgoing connections.
func freePort() (int, error) {
	const first, ports, tries = 10_000, 20_000, 100
	for range tries {
		port := first + rand.IntN(ports)
		listener, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err == nil {
			_ = listener.Close()
			return port, nil
		}
	}
	return 0, fmt.Errorf("no free port among %d tried", tries)
}

// Own gives a folder to the user that the server runs as.
func (s *Server) Own(t testing.TB, dir string) {
	t.Helper()
	for dir != os.TempDir() && len(dir) > len(os.TempDir()) { // and lets it in there
		if err := giveAway(dir); err != nil {
			t.Fatalf("pgtest: %v", err)
		}
		dir = filepath.Dir(dir)
	}
}
