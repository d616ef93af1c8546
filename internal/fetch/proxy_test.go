package fetch

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/proxies"
)

// program finds a program of Debian's packages, which make deps installs.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil && os.Getenv("CI") == "true" {
		t.Fatal(err)
	}
	if err != nil {
		t.Skip(err)
	}
	return path
}

// start runs a server until the test ends, and waits until it listens at addr.
func start(t *testing.T, addr, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	for end := time.Now().Add(10 * time.Second); ; {
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%s does not listen: %v", name, err)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// tinyproxy starts a real HTTP proxy; extra are lines of its configuration.
func tinyproxy(t *testing.T, extra ...string) (addr string) {
	t.Helper()
	addr = freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	config := filepath.Join(t.TempDir(), "tinyproxy.conf")
	lines := append([]string{"Port " + port, "Listen 127.0.0.1", "Allow 127.0.0.1", "Timeout 60", "MaxClients 50"}, extra...)
	if err := os.WriteFile(config, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, addr, "tinyproxy", "-d", "-c", config)
	return addr
}

// microsocks starts a real SOCKS proxy.
func microsocks(t *testing.T, args ...string) (addr string) {
	t.Helper()
	addr = freePort(t)
	_, port, _ := net.SplitHostPort(addr)
	start(t, addr, "microsocks", append([]string{"-i", "127.0.0.1", "-p", port}, args...)...)
	return addr
}

func through(t *testing.T, rules ...string) *proxies.Rules {
	t.Helper()
	r, err := proxies.Parse(rules, nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// newPlain returns a server that says which host was asked for, and through what.
func newPlain(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s via %s", r.Host, r.Header.Get("Via"))
	}))
	t.Cleanup(s.Close)
	return s
}

func TestRealProxiesCarryHTTPAndHTTPS(t *testing.T) {
	plain := newPlain(t)
	secure := newTallied(t, protocols["HTTP/2"])
	for claim, c := range map[string]struct {
		proxy func(*testing.T) string
		via   bool // the proxy names itself where it forwards
	}{
		"HTTP":                         {func(t *testing.T) string { return "http://" + tinyproxy(t) }, true},
		"HTTP with credentials":        {func(t *testing.T) string { return "http://ann:s3cret@" + tinyproxy(t, "BasicAuth ann s3cret") }, true},
		"SOCKS, names looked up here":  {func(t *testing.T) string { return "socks5://" + microsocks(t) }, false},
		"SOCKS, names looked up there": {func(t *testing.T) string { return "socks5h://" + microsocks(t) }, false},
		"SOCKS with credentials":       {func(t *testing.T) string { return "socks5h://ann:s3cret@" + microsocks(t, "-u", "ann", "-P", "s3cret") }, false},
	} {
		t.Run(claim, func(t *testing.T) {
			o := Options{TLSConfig: &tls.Config{RootCAs: pool(secure)}}
			o.Proxies = through(t, c.proxy(t))
			f := newFetcher(t, o)
			res, body, err := fetch(f, &Request{URL: plain.URL + "/a"})
			if err != nil {
				t.Fatal(err)
			}
			if got := string(body); res.Status != 200 || !strings.HasPrefix(got, hostOf(plain.URL)) || strings.Contains(got, "tinyproxy") != c.via {
				t.Errorf("%d %s", res.Status, got)
			}
			for i := range 2 {
				res, body, err = fetch(f, &Request{URL: secure.URL})
				if err != nil {
					t.Fatal(err)
				}
				if res.Protocol != "HTTP/2.0" || len(body) != len(page64) {
					t.Errorf("%s, %d bytes", res.Protocol, len(body))
				}
				if timings := res.Timings(); (timings.TLS > 0) != (i == 0) || (timings.Connect > 0) != (i == 0) {
					t.Errorf("request %d: timings %+v", i, timings)
				}
			}
			f.CloseIdle(secure.host()) // a tunnel leads to its host
			secure.wantClosed(t, 1)
			if s := f.Stats(); s.Opened != 2 || s.Reused != 1 || s.Handshakes != 1 {
				t.Errorf("stats %+v", s)
			}
		})
	}
}

func pool(s *tallied) *x509.CertPool {
	return s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
}

func TestProxiesThatCannotOrDoNotWantAreErrorsOfTheProxy(t *testing.T) {
	plain, secure := newPlain(t), newTallied(t, protocols["HTTP/1.1 over TLS"])
	gone, refusing := "http://u:hunter2@"+freePort(t), tinyproxy(t, "ConnectPort 1")
	lock := tinyproxy(t, "BasicAuth ann s3cret")
	locked := "http://ann:wrong@" + lock
	nothing := freePort(t)
	for claim, c := range map[string]struct {
		proxy, url string
		want       Class
	}{
		"nobody listens, http":      {gone, plain.URL, Proxy},
		"nobody listens, https":     {gone, secure.URL, Proxy},
		"no credentials, http":      {"http://" + lock, plain.URL, Proxy}, // to wrong ones tinyproxy answers 401, as an origin would
		"other credentials, https":  {locked, secure.URL, Proxy},
		"CONNECT refused":           {"http://" + refusing, secure.URL, Proxy},
		"no SOCKS there":            {"socks5h://" + hostOf(plain.URL), secure.URL, Proxy},
		"no proxy there":            {"http://" + hostOf(plain.URL), secure.URL, Proxy},
		"no TLS there, http":        {"https://" + hostOf(plain.URL), plain.URL, Proxy},
		"no TLS there, https":       {"https://" + hostOf(plain.URL), secure.URL, Proxy},
		"SOCKS: nobody at the host": {"socks5h://" + microsocks(t), "https://" + nothing, Proxy},
		"the proxy is private":      {"http://10.0.0.1:3128", plain.URL, AddressRefused},
		"the proxy is private, too": {"socks5h://10.0.0.1:3128", secure.URL, AddressRefused},
		"the host is private":       {"http://" + refusing, "http://10.0.0.1/", AddressRefused},
		"the host is private, TLS":  {"http://" + refusing, "https://10.0.0.1/", AddressRefused},
		"the host is a number":      {"http://" + refusing, "http://2130706433/", AddressRefused},
		"the host is hexadecimal":   {"socks5h://" + refusing, "https://0x0a.1/", AddressRefused},
		"the host, looked up here":  {"socks5://" + refusing, "http://[::ffff:10.0.0.1]/", AddressRefused},
	} {
		t.Run(claim, func(t *testing.T) {
			o := Options{TLSConfig: &tls.Config{RootCAs: pool(secure)}, ConnectTimeout: 5 * time.Second}
			o.Proxies = through(t, c.proxy)
			_, _, err := fetch(newFetcher(t, o), &Request{URL: c.url})
			wantClass(t, err, c.want)
			if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "wrong") {
				t.Errorf("the error shows the password: %v", err)
			}
		})
	}
}

func TestLoopbackIsRefusedBehindAProxyUnlessAllowed(t *testing.T) {
	o := Options{AllowPrivate: mustPrefixes("127.0.0.1/32")}
	o.Proxies = through(t, "socks5h://"+freePort(t))
	f := newFetcher(t, o)
	for url, want := range map[string]Class{"http://127.0.0.2/": AddressRefused, "http://localhost/": Proxy, "https://[::1]/": AddressRefused} {
		_, _, err := fetch(f, &Request{URL: url})
		wantClass(t, err, want)
	}
}

func TestADeadProxyOfAListIsSkipped(t *testing.T) {
	secure := newTallied(t, protocols["HTTP/1.1 over TLS"])
	o := Options{TLSConfig: &tls.Config{RootCAs: pool(secure)}}
	o.Proxies = through(t, "http://"+freePort(t), "http://"+tinyproxy(t), "http://"+freePort(t))
	f := newFetcher(t, o)
	for range 5 {
		if _, _, err := fetch(f, &Request{URL: secure.URL}); err != nil {
			t.Fatal(err)
		}
		f.CloseIdle(secure.host())
	}
	if s := f.Stats(); s.ProxiesOut == 0 {
		t.Errorf("no proxy is out: %+v", s)
	}
}

// A proxy over TLS, from net/http's own parts: Debian has none that is small.
func TestAProxyOverTLS(t *testing.T) {
	plain, secure := newPlain(t), newTallied(t, protocols["HTTP/2"])
	var forwarded, tunnels atomic.Int64
	proxy := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			forwarded.Add(1)
			r.RequestURI = ""
			answer, err := http.DefaultTransport.RoundTrip(r)
			if err != nil {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			defer answer.Body.Close()
			io.Copy(w, answer.Body)
			return
		}
		tunnels.Add(1)
		relay(t, w, r.Host)
	}))
	proxy.EnableHTTP2 = true // which net/http could not make use of
	proxy.StartTLS()
	t.Cleanup(func() {
		http.DefaultTransport.(*http.Transport).CloseIdleConnections()
		proxy.Close()
	})
	o := Options{TLSConfig: &tls.Config{RootCAs: pool(secure)}}
	o.Proxies = through(t, proxy.URL)
	f := newFetcher(t, o)
	for _, url := range []string{plain.URL, secure.URL} {
		if _, _, err := fetch(f, &Request{URL: url}); err != nil {
			t.Fatal(err)
		}
	}
	if forwarded.Load() != 1 || tunnels.Load() != 1 {
		t.Errorf("%d forwarded, %d tunnels, want one of each", forwarded.Load(), tunnels.Load())
	}
	f.Close()
}

// relay turns the connection of w into a tunnel.
func relay(t *testing.T, w http.ResponseWriter, to string) {
	there, err := net.Dial("tcp", to)
	if err != nil {
		t.Error(err)
		return
	}
	here, buffered, err := w.(http.Hijacker).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	io.WriteString(here, "HTTP/1.1 200 Connection established\r\n\r\n")
	go func() {
		io.Copy(there, bufio.NewReader(buffered))
		there.Close()
	}()
	io.Copy(here, there)
	here.Close()
	there.Close()
}
