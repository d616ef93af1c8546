package fetch

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// nginxConfig: %[1]s is the address, %[2]s the folder. Each connection takes 50 requests, 8 at once, and ends with GOAWAY.
const nginxConfig = `
worker_processes 1;
error_log %[2]s/error.log;
pid %[2]s/pid;
events { worker_connections 256; }
http {
	access_log off;
	client_body_temp_path %[2]s/body;
	proxy_temp_path %[2]s/proxy; fastcgi_temp_path %[2]s/fastcgi; uwsgi_temp_path %[2]s/uwsgi; scgi_temp_path %[2]s/scgi;
	keepalive_requests 50;
	http2_max_concurrent_streams 8;
	server {
		listen %[1]s ssl http2;
		ssl_certificate %[2]s/certificate.pem;
		ssl_certificate_key %[2]s/key.pem;
		ssl_protocols TLSv1.2 TLSv1.3;
		location / { root %[2]s/www; }
		location /protocol { return 200 $server_protocol; }
	}
}
`

// startNginx starts a real nginx that speaks HTTP/1.1 and HTTP/2 over TLS, and returns its URL and whom to trust.
func startNginx(t *testing.T) (url string, roots *x509.CertPool) {
	t.Helper()
	binary, err := exec.LookPath("nginx")
	if err != nil {
		binary, err = exec.LookPath("/usr/sbin/nginx")
	}
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("no nginx: make deps installs it")
		}
		t.Skip("no nginx: make deps installs it")
	}
	dir, addr := t.TempDir(), freePort(t)
	roots = writeCertificate(t, dir)
	if err := os.Mkdir(filepath.Join(dir, "www"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, data := range map[string]string{"nginx.conf": fmt.Sprintf(nginxConfig, addr, dir), "www/page": string(page64)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(data), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	global := "daemon off;"
	if os.Getuid() == 0 {
		global += " user root;" // another could not read the test's folder
	}
	var said bytes.Buffer
	cmd := exec.Command(binary, "-p", dir, "-c", filepath.Join(dir, "nginx.conf"), "-e", filepath.Join(dir, "error.log"), "-g", global)
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp4", addr)
		if err == nil {
			c.Close()
			return "https://" + addr, roots
		}
		if time.Now().After(end) {
			t.Fatalf("nginx does not listen: %v\n%s", err, &said)
		}
	}
}

// writeCertificate puts a certificate for 127.0.0.1 and its key into dir.
func writeCertificate(t *testing.T, dir string) *x509.CertPool {
	t.Helper()
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	defer s.Close()
	key, err := x509.MarshalPKCS8PrivateKey(s.TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"certificate.pem": {Type: "CERTIFICATE", Bytes: s.Certificate().Raw}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
}

func TestNginxIsSpokenToInEveryVersionThatItKnows(t *testing.T) {
	url, roots := startNginx(t)
	f := newFetcher(t, Options{TLSConfig: &tls.Config{RootCAs: roots}})
	for version, want := range map[Version]string{Auto: "HTTP/2.0", HTTP1: "HTTP/1.1", HTTP2: "HTTP/2.0"} {
		res, body, err := fetch(f, &Request{URL: url + "/protocol", HTTP: version})
		if err != nil || string(body) != want || res.Protocol != want {
			t.Errorf("%q: %s, %v, want %s", version, body, err, want)
		}
	}
}

// nginx ends each connection after its requests, and allows few at once: no request may notice.
func TestNoRequestIsHurtByNginxEndingItsConnections(t *testing.T) {
	url, roots := startNginx(t)
	f := newFetcher(t, Options{TLSConfig: &tls.Config{RootCAs: roots}})
	for _, version := range []Version{HTTP1, HTTP2} {
		crowd(t, f, &Request{URL: url + "/page", HTTP: version}, 500, 24)
	}
	_, body, err := fetch(f, &Request{URL: url + "/page"})
	if err != nil || !bytes.Equal(body, page64) {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}
