package worker_test

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// nginx serves a folder to the one user it knows. It ends with the test.
func nginx(t *testing.T) (origin string) {
	t.Helper()
	path, err := exec.LookPath("nginx")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close() // free until someone else takes it
	dir := t.TempDir()
	config := fmt.Sprintf(`daemon off; master_process off; pid nginx.pid; error_log stderr;
events {}
http {
	access_log off; client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
	server { listen %s; root www; auth_basic "pages"; auth_basic_user_file users; }
}`, addr)
	for name, text := range map[string]string{"nginx.conf": config, "www/index.html": "index",
		"users": "ada:{PLAIN}" + hidden["FLEET_SECRET_PASSWORD"] + "\n", "www/page": "the page"} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command := exec.Command(path, "-p", dir, "-c", "nginx.conf")
	command.Stderr = os.Stderr
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Kill()
		_ = command.Wait()
	})
	for deadline := time.Now().Add(within); ; <-time.After(20 * time.Millisecond) {
		if conn, err := net.Dial("tcp", addr); err == nil {
			_ = conn.Close()
			return "http://" + addr
		}
		if time.Now().After(deadline) {
			t.Fatal("nginx does not listen")
		}
	}
}

func TestNginxLetsInWhoKnowsThePassword(t *testing.T) {
	origin := nginx(t)
	f := newFleet(t)
	var log lines
	defer f.guarded(&log)()
	for job, c := range map[tasks.JobID]struct {
		basic  string
		status int
	}{"right": {"ada:${env:FLEET_SECRET_PASSWORD}", http.StatusOK}, "wrong": {"ada:${env:FLEET_SECRET_TOKEN}", http.StatusUnauthorized}} {
		spec := fastSpec()
		spec.Basic = c.basic
		f.enqueue(job, spec, origin+"/page")
		f.await(job, within)
		for _, r := range f.records(job) {
			if r.Status != c.status {
				t.Errorf("job %s: status %d: %+v", job, r.Status, r.Error)
			}
		}
	}
	f.wantHidden(&log)
}
