package main

import (
	"bufio"
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"
)

//go:embed peers/aiohttp_pool.py
var aiohttpPool string

//go:embed peers/httpx_pool.py
var httpxPool string

// python is Debian's, for which its packages of aiohttp and HTTPX are.
const python = "/usr/bin/python3"

// client is somebody who fetches a list of pages and keeps their bodies.
type client struct {
	name  string
	pages int // of its list: what a slow client takes a minute for tells no more than a part of it
	run   func(ctx context.Context, list string) (figure, error)
	took  []figure
}

// benchClients: bodies stored, at most half the CPU of aiohttp and a tenth of HTTPX's, a hundred requests at a time to
// one host; and a hundred answers of 100 ms from one host arrive and end within 1.2 times the slowest.
func benchClients(ctx context.Context, l *lab) error {
	if out, err := exec.CommandContext(ctx, python, "-c", "import aiohttp, httpx").CombinedOutput(); err != nil {
		return fmt.Errorf("aiohttp and HTTPX are measured, too (Debian: apt-get install python3-aiohttp python3-httpx): %w\n%s", err, bytes.TrimSpace(out))
	}
	if err := l.atOnce(); err != nil {
		return err
	}
	clients := []*client{
		{name: "fetchfleet --sync=off, with Redis", pages: 20_000, run: func(ctx context.Context, list string) (figure, error) {
			return l.fleet(ctx, l.worker(), list, "off")
		}},
		{name: "aiohttp", pages: 20_000, run: l.script(aiohttpPool)},
		{name: "HTTPX", pages: 3_000, run: l.script(httpxPool)},
	}
	pages := l.pages
	defer func() { l.pages = pages }()
	for range l.runs { // in turn, so that all meet the same weather
		for _, c := range clients {
			l.pages = c.pages
			list, err := l.oneHostList(c.pages)
			if err != nil {
				return err
			}
			f, err := c.run(ctx, list)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			c.took = append(c.took, f)
		}
	}
	ours := clients[0].print()
	for i, want := range []float64{0.5, 0.1} {
		peer := clients[i+1].print()
		fmt.Printf("  CPU beside %-23s %.2f of it, want at most %.2f: %s\n", clients[i+1].name, ours/peer, want, verdict(ours/peer <= want))
	}
	return nil
}

// print prints the medians, and returns the CPU time of a page in microseconds.
func (c *client) print() float64 {
	f := median(c.took)
	each := float64(f.cpu.Microseconds()) / float64(c.pages)
	fmt.Printf("  %-34s %8.0f pages/s  %6.1f µs CPU a page\n", c.name, float64(c.pages)/f.wall.Seconds(), each)
	return each
}

// oneHostList writes a list of pages of one host.
func (l *lab) oneHostList(n int) (string, error) {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "http://%s/p/%d\n", l.hosts[0], i)
	}
	path := filepath.Join(l.dir, "one-host-"+strconv.Itoa(n)+".txt")
	return path, os.WriteFile(path, []byte(b.String()), 0o644)
}

// script measures a Python script that prints the CPU seconds it took.
func (l *lab) script(text string) func(context.Context, string) (figure, error) {
	return func(_ context.Context, list string) (figure, error) {
		dir, err := l.scratch()
		if err != nil {
			return figure{}, err
		}
		lines := make(chan string, 1)
		p, err := start(exec.Command(python, "-c", text, list, dir, "100"), lines)
		if err != nil {
			return figure{}, err
		}
		if err := <-p.done; err != nil {
			return figure{}, err
		}
		seconds, err := strconv.ParseFloat(<-lines, 64)
		return figure{time.Since(p.began), time.Duration(seconds * float64(time.Second))}, err
	}
}

// span is what the origin saw of a crowd of requests.
type span struct {
	Whole    time.Duration `json:"whole"`   // from the first arrival to the last answer
	Slowest  time.Duration `json:"slowest"` // of one request
	Requests int           `json:"requests"`
}

// atOnce measures how far a hundred requests to one host are spread, by the origin's clock.
func (l *lab) atOnce() error {
	const crowd = 100
	var b strings.Builder
	for i := range crowd {
		fmt.Fprintf(&b, "http://%s/wait/%d\n", l.hosts[0], i)
	}
	var ratios []float64
	for i := range l.runs {
		cmd := exec.Command(filepath.Join(l.bin, "fleet"), "run", "--quiet", "--host-rate", "0", "--host-conns", "0", "--robots", "ignore",
			"--allow-private", "127.0.0.0/8", "--out", filepath.Join(l.dir, "crowd"+strconv.Itoa(i)), "-")
		cmd.Stdin = strings.NewReader(b.String())
		p, err := start(cmd, nil)
		if err != nil {
			return err
		}
		if err := <-p.done; err != nil {
			return fmt.Errorf("fleet run: %w", err)
		}
		s, err := l.span()
		if err != nil {
			return err
		}
		if s.Requests != crowd {
			return fmt.Errorf("the origin saw %d requests, not %d", s.Requests, crowd)
		}
		ratios = append(ratios, float64(s.Whole)/float64(s.Slowest))
	}
	got := middle(ratios)
	fmt.Printf("  %d requests of 100 ms to one host %5.2f of the slowest from first arrival to last answer, want at most 1.20: %s\n", crowd, got, verdict(got <= 1.2))
	return nil
}

// span asks the origin what it saw since it was last asked.
func (l *lab) span() (s span, err error) {
	resp, err := http.Get("http://" + l.hosts[0] + "/span")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(bufio.NewReader(resp.Body)).Decode(&s)
}

// crowd is the origin's side of it.
type crowd struct {
	mu          sync.Mutex
	first, last time.Time
	span        span
}

// wait answers after 100 ms.
func (c *crowd) wait(w http.ResponseWriter, r *http.Request) { c.at(w, r, 100*time.Millisecond) }

// at answers after so long.
func (c *crowd) at(w http.ResponseWriter, _ *http.Request, after time.Duration) {
	came := time.Now()
	time.Sleep(after)
	_, _ = w.Write([]byte("waited"))
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.span.Requests == 0 || came.Before(c.first) {
		c.first = came
	}
	c.last = time.Now()
	c.span.Requests++
	c.span.Slowest = max(c.span.Slowest, c.last.Sub(came))
}

// take returns what was seen, and forgets it.
func (c *crowd) take() span {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.span
	s.Whole = c.last.Sub(c.first)
	c.span = span{}
	return s
}

// tell answers with what was seen, and forgets it.
func (c *crowd) tell(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(c.take()) }
