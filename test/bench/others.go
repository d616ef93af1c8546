package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// benchEnqueue: at least 300 k URLs/s of 70 bytes; at most 150 bytes of Redis per pending URL at 100 URLs a host; a
// million lines in under 128 MiB.
func benchEnqueue(ctx context.Context, l *lab) error {
	many, err := l.million(ctx, 1000) // so that batches are full
	if err != nil {
		return err
	}
	few, err := l.million(ctx, 100)
	if err != nil {
		return err
	}
	for _, m := range []million{many, few} {
		f := median(m.figures)
		rate := lines / f.wall.Seconds()
		fmt.Printf("  %4d URLs a host, %d bytes each: %.0f k URLs/s", m.perHost, m.length, rate/1000)
		if m.perHost == many.perHost {
			fmt.Printf(", want 300: %s", verdict(rate >= 300_000))
		}
		fmt.Printf(" (CPU a URL: enqueue %.1f µs, Redis %.1f µs)\n", perLine(m.enqueue), perLine(f.cpu))
	}
	fmt.Printf("  %d bytes of Redis per pending URL at 100 URLs a host, want at most 150: %s\n", few.perURL, verdict(few.perURL <= 150))
	fmt.Printf("  enqueue's memory for a million lines: %d MiB, want under 128: %s\n", few.peak>>20, verdict(few.peak < 128<<20))
	return nil
}

const lines = 1_000_000

func perLine(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1000 / lines }

// million is what enqueueing a million lines took.
type million struct {
	perHost, length int
	figures         []figure // wall, and CPU of Redis
	enqueue         time.Duration
	peak, perURL    int64
}

func (l *lab) million(ctx context.Context, perHost int) (million, error) {
	m := million{perHost: perHost}
	path := filepath.Join(l.dir, "million.txt")
	var b bytes.Buffer
	for i := range lines { // every host's URLs are spread over the list, as in a real one
		fmt.Fprintf(&b, "https://host-%05d.example/articles/2026/11/%026d\n", i%(lines/perHost), i)
	}
	m.length = bytes.IndexByte(b.Bytes(), '\n')
	if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
		return m, err
	}
	for range l.runs {
		if err := l.rdb.FlushAll(ctx).Err(); err != nil {
			return m, err
		}
		empty, err := l.usedMemory(ctx)
		if err != nil {
			return m, err
		}
		before := l.redis.running()
		p, err := start(exec.Command(filepath.Join(l.bin, "enqueue"), "--redis", l.url, "--job", "million", "--quiet", path), nil)
		if err != nil {
			return m, err
		}
		if err := <-p.done; err != nil {
			return m, fmt.Errorf("enqueue: %w", err)
		}
		m.figures = append(m.figures, figure{time.Since(p.began), l.redis.running() - before})
		m.enqueue, m.peak = p.cpu(), max(m.peak, p.peak())
		full, err := l.usedMemory(ctx)
		if err != nil {
			return m, err
		}
		m.perURL = (full - empty) / lines
	}
	return m, os.Remove(path)
}

func (l *lab) usedMemory(ctx context.Context) (int64, error) {
	info, err := l.rdb.Info(ctx, "memory").Result()
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(info, "used_memory:")
	text, _, _ := strings.Cut(rest, "\r\n")
	return strconv.ParseInt(text, 10, 64)
}

// benchLatency: ten URLs of one host that each take 900 ms, no limits set: under 1.5 s in all.
func benchLatency(_ context.Context, l *lab) error {
	var b strings.Builder
	for i := range 10 {
		fmt.Fprintf(&b, "http://%s/slow/%d\n", l.hosts[0], i)
	}
	var took []figure
	for i := range l.runs {
		cmd := exec.Command(filepath.Join(l.bin, "fleet"), "run", "--quiet", "--host-rate", "0", "--host-conns", "0",
			"--allow-private", "127.0.0.0/8", "--out", filepath.Join(l.dir, "slow"+strconv.Itoa(i)), "-")
		cmd.Stdin = strings.NewReader(b.String())
		p, err := start(cmd, nil)
		if err != nil {
			return err
		}
		if err := <-p.done; err != nil {
			return fmt.Errorf("fleet run: %w", err)
		}
		took = append(took, figure{time.Since(p.began), p.cpu()})
	}
	wall := median(took).wall
	fmt.Printf("  fleet run took %.2f s (the slowest answer takes 0.90), want under 1.5: %s\n", wall.Seconds(), verdict(wall < 1500*time.Millisecond))
	return nil
}

// benchMemory: 8 bodies of 200 MB at once: worker memory under 96 MiB.
func benchMemory(ctx context.Context, l *lab) error {
	dir, err := l.scratch()
	if err != nil {
		return err
	}
	if err := l.rdb.FlushAll(ctx).Err(); err != nil {
		return err
	}
	var b strings.Builder
	for i := range 8 {
		fmt.Fprintf(&b, "http://%s/large/%d\n", l.hosts[i], i)
	}
	list := filepath.Join(l.dir, "large.txt")
	if err := os.WriteFile(list, []byte(b.String()), 0o644); err != nil {
		return err
	}
	if err := l.enqueue(list, "large"); err != nil {
		return err
	}
	w, err := start(exec.Command(filepath.Join(l.bin, "worker"), "--redis", l.url, "--store", dir,
		"--allow-private", "127.0.0.0/8", "--listen", "", "--log-level", "warn"), nil)
	if err != nil {
		return err
	}
	status, err := l.await(ctx, "large")
	if err != nil {
		w.kill()
		return err
	}
	if err := w.stop(); err != nil {
		return err
	}
	fmt.Printf("  worker had %d MiB resident at most for %d bodies of 200 MB, want under 96: %s\n", w.peak()>>20, status.OK,
		verdict(w.peak() < 96<<20 && status.OK == 8))
	return nil
}
