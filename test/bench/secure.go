package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// benchSecure: a thousand requests of 100 ms, a hundred at a time, take over HTTP/2 and at most two connections as long as
// over HTTP/1.1 and a hundred; the second connection to a host resumes the first one's TLS session.
func benchSecure(_ context.Context, l *lab) error {
	lines := make(chan string, 1)
	origin, err := l.self(lines, "tlsorigin")
	if err != nil {
		return err
	}
	defer origin.kill()
	host := "https://127.0.0.1:" + <-lines
	const requests = 1000
	seen := map[string][]secureSpan{}
	for range l.runs { // in turn, so that all meet the same weather
		for _, run := range []struct{ version, path string }{{"1.1", "/wait/"}, {"2", "/wait/"}, {"1.1", "/close/"}} {
			s, err := l.secure(host, run.version, run.path, requests)
			if err != nil {
				return err
			}
			name := run.version + run.path
			seen[name] = append(seen[name], s)
		}
	}
	one, two, closing := medianSpan(seen["1.1/wait/"]), medianSpan(seen["2/wait/"]), medianSpan(seen["1.1/close/"])
	ratio := float64(two.Whole) / float64(one.Whole)
	fmt.Printf("  HTTP/1.1   %5.2f s over %d connections\n", one.Whole.Seconds(), one.Full+one.Resumed)
	fmt.Printf("  HTTP/2     %5.2f s over %d connections, %.2f of HTTP/1.1, want at most 1.1 over at most 2: %s\n", two.Whole.Seconds(),
		two.Full+two.Resumed, ratio, verdict(ratio <= 1.1 && two.Full+two.Resumed <= 2))
	fmt.Printf("  handshakes for %d requests: %d full and %d resumed with connections that stay; %d full and %d resumed where the server\n"+
		"  closes each one, want at most as many full ones as go at once (10): %s\n", requests, one.Full, one.Resumed, closing.Full, closing.Resumed,
		verdict(closing.Full <= 10 && closing.Resumed >= requests-10))
	return nil
}

// secure fetches so many URLs below path over one version of HTTP.
func (l *lab) secure(host, version, path string, requests int) (s secureSpan, err error) {
	var b strings.Builder
	for i := range requests {
		fmt.Fprintf(&b, "%s%s%d\n", host, path, i)
	}
	concurrency := "100"
	if path == "/close/" {
		concurrency = "10"
	}
	out, err := l.scratch()
	if err != nil {
		return s, err
	}
	cmd := exec.Command(filepath.Join(l.bin, "fleet"), "run", "--quiet", "--host-rate", "0", "--host-conns", "0", "--robots", "ignore",
		"--http", version, "--insecure", "--concurrency", concurrency, "--allow-private", "127.0.0.0/8", "--out", out, "-")
	cmd.Stdin = strings.NewReader(b.String())
	p, err := start(cmd, nil)
	if err != nil {
		return s, err
	}
	if err := <-p.done; err != nil {
		return s, fmt.Errorf("fleet run --http %s: %w", version, err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	resp, err := client.Get(host + "/span") // #nosec -- the origin of this benchmark, with a certificate of its own
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return s, err
	}
	if s.Requests != requests {
		return s, fmt.Errorf("the origin saw %d requests, not %d", s.Requests, requests)
	}
	return s, nil
}

// secureSpan is what the origin saw of a run.
type secureSpan struct {
	span
	Full    int64 `json:"full"`    // TLS handshakes
	Resumed int64 `json:"resumed"` // of an earlier session
}

// medianSpan is the median of each of several runs' figures.
func medianSpan(list []secureSpan) (m secureSpan) {
	var whole, full, resumed []float64
	for _, s := range list {
		whole, full, resumed = append(whole, float64(s.Whole)), append(full, float64(s.Full)), append(resumed, float64(s.Resumed))
	}
	m.Whole, m.Full, m.Resumed = time.Duration(middle(whole)), int64(middle(full)), int64(middle(resumed))
	return m
}

// runTLSOrigin answers over HTTP/1.1 and HTTP/2 with a certificate of its own, and prints its port.
func runTLSOrigin([]string) error {
	var together crowd
	var full, resumed atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/wait/", together.wait)
	mux.HandleFunc("/close/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close")
		together.at(w, r, 0)
	})
	mux.HandleFunc("/span", func(w http.ResponseWriter, _ *http.Request) {
		s := secureSpan{span: together.take(), Full: full.Swap(0) - 1, Resumed: resumed.Swap(0)} // without the one of this question
		_ = json.NewEncoder(w).Encode(s)
	})
	server := httptest.NewUnstartedServer(mux)
	server.EnableHTTP2 = true
	server.TLS = &tls.Config{VerifyConnection: func(c tls.ConnectionState) error {
		if c.DidResume {
			resumed.Add(1)
		} else {
			full.Add(1)
		}
		return nil
	}}
	server.StartTLS()
	defer server.Close()
	fmt.Fprintln(os.Stdout, strconv.Itoa(server.Listener.Addr().(*net.TCPAddr).Port))
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	<-ctx.Done()
	return nil
}
