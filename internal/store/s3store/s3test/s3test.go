// Package s3test runs real S3 servers (versitygw on a folder) and a proxy in front of them that misbehaves on demand,
// for tests only.
//
// It promises that a started process never outlives its test, listens on loopback alone, and keeps its data in the
// test's own folder.
//
// versitygw v1.8.0 keeps conditional PUTs (If-None-Match: *, If-Match) and completions of uploads, checks x-amz-content-sha256, copies objects and
// parts, and lists uploads and parts. It differs from Amazon S3 in this:
//   - an unknown access key is XAdminUserNotFound with status 404, not InvalidAccessKeyId with 403;
//   - completing an upload twice succeeds, without a condition (at Amazon so does a repeated call, for a while);
//   - a copy ignores If-None-Match;
//   - the second page of uploads of one key is refused (InvalidArgument: upload id marker);
//   - keys are paths: there is no object "a/b" beside an object "a" (ObjectParentIsFile);
//   - each page of a listing walks the folder from its beginning, so that time, not calls, grows with the square;
//   - a copied object has an ETag of its own, and files laid down by hand have none;
//   - connections are closed after each answer unless --keep-alive is given, which Start does.
package s3test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"testing"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// What the server is started with.
const (
	AccessKey = "fleet"
	SecretKey = "fleet-secret-of-a-test"
	Region    = "us-east-1"
	Bucket    = "fleet"
)

// binary is the program that Start looks for: FLEET_VERSITYGW, then PATH, then .tools/bin of the repository.
const binary = "versitygw"

// startLimit is how long a server may take until it answers; a machine under load needs seconds.
const startLimit = 20 * time.Second

// Server is one versitygw process, which can be stopped and started again on the same port and folder. Its methods are
// for the test's own goroutine; Addr and URL may be called from any.
type Server struct {
	t    testing.TB
	path string
	dir  string
	port int
	args []string
	proc *process // nil while stopped
	log  bytes.Buffer
}

// process is one child process with the goroutine that waits for it.
type process struct {
	os    *os.Process
	ended chan struct{} // closed when the process is gone
}

// Start runs a server with an empty bucket of the name Bucket, and sets the environment of the test so that AWS_…
// variables fit it. args are passed to versitygw before its backend. The process is ended when the test ends. Where
// versitygw is not installed the test is skipped, and fails where CI=true.
func Start(t testing.TB, args ...string) *Server {
	t.Helper()
	s := StartBeside(t, args...)
	Setenv(t)
	return s
}

// StartBeside is Start for a test that runs beside others and so must leave the environment as it is: see Environment.
func StartBeside(t testing.TB, args ...string) *Server {
	t.Helper()
	path, err := find()
	if err != nil {
		missing(t, err)
	}
	s := &Server{t: t, path: path, dir: t.TempDir(), args: args}
	t.Cleanup(s.Stop)
	for range 5 { // another process may take the free port before versitygw does
		s.port = freePort(t)
		if err = s.launch(); err == nil {
			s.MakeBucket(Bucket)
			return s
		}
	}
	t.Fatalf("s3test: start %s: %v\n%s", path, err, s.log.String())
	return nil
}

// Setenv sets the test's environment to the server's credentials, and takes away what would come before them.
func Setenv(t testing.TB) {
	for name, value := range Environment() {
		t.Setenv(name, value)
	}
}

// Environment is what a program needs to use the server.
func Environment() map[string]string {
	return map[string]string{
		"AWS_ACCESS_KEY_ID": AccessKey, "AWS_SECRET_ACCESS_KEY": SecretKey, "AWS_REGION": Region,
		"AWS_SESSION_TOKEN": "", "AWS_ACCESS_KEY": "", "AWS_SECRET_KEY": "", "AWS_PROFILE": "", "AWS_DEFAULT_REGION": "",
	}
}

// Addr returns the server's HOST:PORT. It stays the same over restarts.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// URL returns the URL of a store under a prefix of Bucket.
func (s *Server) URL(prefix string) string { return URL(s.Addr(), prefix) }

// URL returns the URL of a store behind an address, such as a proxy's.
func URL(addr, prefix string) string {
	return "s3://" + Bucket + "/" + prefix + "?endpoint=http://" + addr
}

// Dir returns the folder in which the objects of Bucket lie as files.
func (s *Server) Dir() string { return filepath.Join(s.dir, Bucket) }

// Plant lays down a unit without a call to the server, as files where versitygw keeps objects: thousands take a second.
// It has the layout of package s3store.
func (s *Server) Plant(prefix string, a *store.Account, records ...*store.Record) {
	s.t.Helper()
	var lines []byte
	var each []json.RawMessage
	for _, r := range records {
		line, err := store.AppendRecord(nil, r)
		if err != nil {
			s.t.Fatalf("s3test: %v", err)
		}
		each, lines = append(each, line), append(append(lines, line...), '\n')
	}
	account, err := json.Marshal(struct {
		*store.Account
		Attempt string            `json:"attempt"`
		Records int               `json:"records"`
		Lines   []json.RawMessage `json:"lines"`
	}{a, "planted~0~1~1", len(records), each})
	if err != nil {
		s.t.Fatalf("s3test: %v", err)
	}
	job := filepath.Join(s.Dir(), prefix, a.Job)
	for path, data := range map[string][]byte{"accounts/" + a.Unit() + ".json": append(account, '\n'), "records/" + a.Unit() + ".jsonl": lines} {
		path = filepath.Join(job, filepath.FromSlash(path))
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			s.t.Fatalf("s3test: %v", err)
		}
	}
}

// PlantIdentity makes a store of what was planted under a prefix.
func (s *Server) PlantIdentity(prefix string) {
	s.t.Helper()
	path := filepath.Join(s.Dir(), prefix, ".fetchfleet-store")
	if err := os.WriteFile(path, []byte("0123456789abcdef0123456789abcdef\n"), 0o644); err != nil {
		s.t.Fatalf("s3test: %v", err)
	}
}

// Client returns a client of the server.
func (s *Server) Client() *minio.Core {
	s.t.Helper()
	c, err := minio.NewCore(s.Addr(), &minio.Options{
		Creds: credentials.NewStaticV4(AccessKey, SecretKey, ""), Region: Region, BucketLookup: minio.BucketLookupPath,
		MaxRetries: 1, Transport: transport(s.t),
	})
	if err != nil {
		s.t.Fatalf("s3test: client of %s: %v", s.Addr(), err)
	}
	return c
}

// MakeBucket makes another bucket.
func (s *Server) MakeBucket(name string) {
	s.t.Helper()
	if err := s.Client().MakeBucket(context.Background(), name, minio.MakeBucketOptions{}); err != nil {
		s.t.Fatalf("s3test: make bucket %s: %v", name, err)
	}
}

// Stop ends the server at once, as a crash would, and waits for it. A stopped server may be stopped again.
func (s *Server) Stop() {
	if s.proc == nil {
		return
	}
	_ = s.proc.os.Kill()
	<-s.proc.ended
	s.proc = nil
}

// Restart starts a stopped server again, or stops and starts a running one, on the same port and folder.
func (s *Server) Restart() {
	s.t.Helper()
	s.Stop()
	if err := s.launch(); err != nil {
		s.t.Fatalf("s3test: restart %s on %s: %v\n%s", binary, s.Addr(), err, s.log.String())
	}
}

func (s *Server) launch() error {
	args := append([]string{"--quiet", "--keep-alive", "--access", AccessKey, "--secret", SecretKey, "--region", Region, "--port", s.Addr()}, s.args...)
	cmd := exec.Command(s.path, append(args, "posix", s.dir)...)
	s.log.Reset()
	cmd.Stdout, cmd.Stderr = &s.log, &s.log
	proc, err := spawn(cmd)
	if err != nil {
		return err
	}
	s.proc = proc
	if err := s.awaitAnswer(); err != nil {
		s.Stop()
		return err
	}
	return nil
}

// spawn starts a command. The goroutine that starts it keeps its thread until the process is gone, because on Linux
// the child is told to die with the thread that made it: no server outlives a test binary that was killed.
func spawn(cmd *exec.Cmd) (*process, error) {
	started := make(chan error, 1)
	p := &process{ended: make(chan struct{})}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.ended)
		dieWithParent(cmd)
		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		p.os = cmd.Process
		started <- nil
		_ = cmd.Wait() // how it ended does not matter: it was told to
	}()
	if err := <-started; err != nil {
		return nil, err
	}
	return p, nil
}

// awaitAnswer polls until the server answers a signed call, its process ends, or startLimit is over. That it is this
// process that answers is told by the credentials and the list of buckets.
func (s *Server) awaitAnswer() error {
	ctx, cancel := context.WithTimeout(context.Background(), startLimit)
	defer cancel()
	client := s.Client()
	for {
		_, err := client.ListBuckets(ctx)
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

// find returns the path of versitygw.
func find() (string, error) {
	if path := os.Getenv("FLEET_VERSITYGW"); path != "" {
		return path, nil
	}
	if path, err := exec.LookPath(binary); err == nil {
		return path, nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		path := filepath.Join(dir, ".tools", "bin", binary)
		if _, err := os.Stat(path); err == nil {
			return path, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New(binary + " is neither on PATH nor in .tools/bin: run `make deps`, or name it in FLEET_VERSITYGW")
		}
		dir = parent
	}
}

func missing(t testing.TB, err error) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("s3test: CI=true and %v", err)
	}
	t.Skipf("s3test: %v", err)
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
	t.Fatalf("s3test: no free port among %d tried", tries)
	return 0
}
