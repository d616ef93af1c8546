package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hibiken/asynq"
	"golang.org/x/sync/errgroup"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// benchFetch: at least 0.80 of a plain pool that writes the same files (0.70 with --sync=batch), in CPU and in wall
// time; at least 2.5 times one task per URL.
func benchFetch(ctx context.Context, l *lab) error {
	list, err := l.pageList("pages.txt", l.pages)
	if err != nil {
		return err
	}
	var pool, off, batch, perURL []figure
	for range l.runs { // in turn, so that all meet the same weather
		for _, m := range []struct {
			into *[]figure
			run  func() (figure, error)
		}{
			{&pool, func() (figure, error) { return l.pool("pool", list) }},
			{&off, func() (figure, error) { return l.fleet(ctx, l.worker(), list, "off") }},
			{&batch, func() (figure, error) { return l.fleet(ctx, l.worker(), list, "batch") }},
			{&perURL, func() (figure, error) { return l.perURL(ctx, list) }},
		} {
			f, err := m.run()
			if err != nil {
				return err
			}
			*m.into = append(*m.into, f)
		}
	}
	l.printFetch(median(pool), median(off), median(batch), median(perURL))
	return nil
}

func (l *lab) printFetch(pool, off, batch, perURL figure) {
	row := func(name string, f figure) {
		fmt.Printf("  %-34s %8.0f pages/s  %6.1f µs CPU a page\n", name, float64(l.pages)/f.wall.Seconds(),
			float64(f.cpu.Microseconds())/float64(l.pages))
	}
	row("plain net/http pool (the ceiling)", pool)
	row("fetchfleet --sync=off, with Redis", off)
	row("fetchfleet --sync=batch, with Redis", batch)
	row("one asynq task per URL, with Redis", perURL)
	ratio := func(name string, of func(figure) time.Duration, f figure, want float64) {
		got := float64(of(pool)) / float64(of(f))
		fmt.Printf("  %-34s %.2f of the pool, want %.2f: %s\n", name, got, want, verdict(got >= want))
	}
	cpu, wall := func(f figure) time.Duration { return f.cpu }, func(f figure) time.Duration { return f.wall }
	ratio("--sync=off, CPU", cpu, off, .80)
	ratio("--sync=off, wall", wall, off, .80)
	ratio("--sync=batch, CPU", cpu, batch, .70)
	ratio("--sync=batch, wall", wall, batch, .70)
	times := float64(perURL.wall) / float64(off.wall)
	fmt.Printf("  %-34s %.1f times one task per URL, want 2.5: %s\n", "--sync=off, wall", times, verdict(times >= 2.5))
}

// pageList writes a list of pages that takes the hosts in turn.
func (l *lab) pageList(name string, n int) (string, error) {
	var b bytes.Buffer
	for i := range n {
		fmt.Fprintf(&b, "http://%s/p/%d\n", l.hosts[i%len(l.hosts)], i)
	}
	path := filepath.Join(l.dir, name)
	return path, os.WriteFile(path, b.Bytes(), 0o644)
}

// pool runs one of the ceilings.
func (l *lab) pool(role, list string) (figure, error) {
	dir, err := l.scratch()
	if err != nil {
		return figure{}, err
	}
	p, err := l.self(nil, role, list, dir)
	if err != nil {
		return figure{}, err
	}
	if err := <-p.done; err != nil {
		return figure{}, err
	}
	return figure{time.Since(p.began), p.cpu()}, nil
}

// worker is the program that is measured.
func (l *lab) worker() string { return filepath.Join(l.bin, "worker") }

// fleet measures one worker that stores the pages of the list in files.
func (l *lab) fleet(ctx context.Context, worker, list, sync string) (figure, error) {
	dir, err := l.scratch()
	if err != nil {
		return figure{}, err
	}
	return l.fleetTo(ctx, worker, list, dir, sync)
}

// fleetTo enqueues the list, then starts one worker and measures from its start to the end of the job.
func (l *lab) fleetTo(ctx context.Context, worker, list, store, sync string) (figure, error) {
	if err := l.rdb.FlushAll(ctx).Err(); err != nil {
		return figure{}, err
	}
	if err := l.enqueue(list, "bench"); err != nil {
		return figure{}, err
	}
	before := l.redis.running()
	w, err := start(exec.Command(worker, "--redis", l.url, "--store", store, "--sync", sync,
		"--allow-private", "127.0.0.0/8", "--listen", "", "--log-level", "warn"), nil)
	if err != nil {
		return figure{}, err
	}
	status, err := l.await(ctx, "bench")
	wall := time.Since(w.began)
	if err != nil {
		w.kill()
		return figure{}, err
	}
	if err := w.stop(); err != nil {
		return figure{}, fmt.Errorf("worker: %w", err)
	}
	if status.OK != int64(l.pages) {
		return figure{}, fmt.Errorf("%d of %d pages are ok: %+v", status.OK, l.pages, status)
	}
	return figure{wall, w.cpu() + l.redis.running() - before}, nil
}

func (l *lab) enqueue(list, job string, flags ...string) error {
	args := append([]string{"--redis", l.url, "--job", job, "--quiet", "--host-rate", "0", "--host-conns", "0"}, flags...)
	out, err := exec.Command(filepath.Join(l.bin, "enqueue"), append(args, list)...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("enqueue: %w\n%s", err, out)
	}
	return nil
}

func (l *lab) await(ctx context.Context, job tasks.JobID) (ledger.Status, error) {
	led := ledger.New(l.rdb)
	for ctx.Err() == nil {
		s, err := led.Status(ctx, job)
		if err != nil || s.State == "ended" {
			return s, err
		}
		time.Sleep(5 * time.Millisecond)
	}
	return ledger.Status{}, ctx.Err()
}

func (l *lab) perURL(ctx context.Context, list string) (figure, error) {
	dir, err := l.scratch()
	if err != nil {
		return figure{}, err
	}
	if err := l.rdb.FlushAll(ctx).Err(); err != nil {
		return figure{}, err
	}
	data, err := os.ReadFile(list)
	if err != nil {
		return figure{}, err
	}
	client := asynq.NewClientFromRedisClient(l.rdb)
	var g errgroup.Group
	g.SetLimit(32)
	for url := range bytes.FieldsSeq(data) {
		g.Go(func() error {
			_, err := client.Enqueue(asynq.NewTask("fetch", url))
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return figure{}, err
	}
	before := l.redis.running()
	p, err := l.self(nil, "perurl", l.rdb.Options().Addr, dir, strconv.Itoa(l.pages))
	if err != nil {
		return figure{}, err
	}
	if err := <-p.done; err != nil {
		return figure{}, err
	}
	return figure{time.Since(p.began), p.cpu() + l.redis.running() - before}, nil
}
