package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hibiken/asynq"

	"github.com/fetchfleet/fetchfleet/internal/politetest"
)

// tour is one list visited by a fleet, and what its hosts saw.
type tour struct {
	name    string
	counts  []int // URLs of each host
	until   int   // measure until so many of the first hosts are done, then stop; 0 = to the end of the job
	limits  politetest.Limits
	workers int
	flags   []string // of the workers
	during  func(context.Context, *running) error
	most    float64       // promise: makespan ÷ bound, 0 = none
	grace   time.Duration // and this
	calls   float64       // promise: Redis calls a URL are below it, 0 = none

	took, ended       time.Duration // first arrival to last end; start of the workers to the end of the job
	within, inService int           // the most that any host saw
	perURL            float64       // Redis calls
	counted           bool          // whether the workers count them
	wrong             []string
}

// bound is the best that any scheduler could do.
func (t *tour) bound() time.Duration {
	counts := t.counts
	if t.until > 0 {
		counts = counts[:t.until]
	}
	return politetest.Bound(counts, t.limits.Rate)
}

// running is a tour under way: it has a Redis, an origin and workers of its own.
type running struct {
	*lab
	tour    *tour
	bound   time.Duration
	origin  *politetest.Origin
	store   string
	names   int // given so far
	workers []*hired
	calls   float64 // of workers that were stopped
}

// hired is a worker process with where it listens.
type hired struct {
	*process
	listen string
}

// politeJob is the job of every tour.
const politeJob = "bench"

// latency is how long hosts take to answer, in turn: 140 ms on average, so that requests overlap at times.
var latency = []time.Duration{20 * time.Millisecond, 250 * time.Millisecond, 60 * time.Millisecond, 350 * time.Millisecond, 20 * time.Millisecond}

// tour measures one tour. number tells it from those that run beside it.
func (l *lab) tour(ctx context.Context, t *tour, number int) (err error) {
	if t.limits == (politetest.Limits{}) {
		t.limits = perHost
	}
	ctx, cancel := context.WithTimeout(ctx, 3*t.bound()+3*time.Minute)
	defer cancel()
	r := &running{tour: t, bound: t.bound(), lab: &lab{bin: l.bin, pages: l.pages, runs: l.runs}}
	if r.dir, err = os.MkdirTemp(l.dir, "tour-"); err != nil {
		return err
	}
	defer r.close()
	defer func() { _ = r.dismiss() }() // where something went wrong; measure has done it otherwise
	if err := r.startRedis(ctx); err != nil {
		return err
	}
	if r.origin, err = politetest.New(politetest.Options{Hosts: len(t.counts), Subnet: 10 + number}); err != nil {
		return err
	}
	defer r.origin.Close()
	for i := range t.counts {
		r.origin.Answer(i, func(n int) politetest.Answer { return politetest.Answer{Delay: latency[n%len(latency)]} })
	}
	if err := r.fill(); err != nil {
		return err
	}
	return r.measure(ctx)
}

// fill enqueues the list.
func (r *running) fill() error {
	list := filepath.Join(r.dir, "list.txt")
	if err := os.WriteFile(list, []byte(strings.Join(r.origin.List(r.tour.counts), "\n")+"\n"), 0o644); err != nil {
		return err
	}
	r.store = filepath.Join(r.dir, "store")
	limits := r.tour.limits
	out, err := exec.Command(filepath.Join(r.bin, "enqueue"), "--redis", r.url, "--job", politeJob, "--quiet", "--host-rate", fmt.Sprint(limits.Rate),
		"--host-burst", strconv.Itoa(limits.Burst), "--host-conns", strconv.Itoa(limits.Conns), list).CombinedOutput()
	if err != nil {
		return fmt.Errorf("enqueue: %w\n%s", err, out)
	}
	return nil
}

// measure starts the workers and reads the origin's log in the end.
func (r *running) measure(ctx context.Context) error {
	began := time.Now()
	for range r.tour.workers {
		if err := r.hire(); err != nil {
			return err
		}
	}
	if r.tour.during != nil {
		if err := r.tour.during(ctx, r); err != nil {
			return err
		}
	}
	if err := r.awaitEnd(ctx); err != nil {
		return err
	}
	r.tour.ended = time.Since(began)
	log := r.origin.Log()
	counted := r.scrape(ctx)
	if err := r.dismiss(); err != nil {
		return err
	}
	r.evaluate(log, counted)
	return nil
}

func (r *running) evaluate(log politetest.Log, counted bool) {
	t := r.tour
	measured := log
	if t.until > 0 {
		first := map[string]bool{}
		for i := range t.until {
			first[r.origin.Host(i)] = true
		}
		measured = log.Where(func(q *politetest.Request) bool { return first[q.Host] })
	}
	t.took = measured.Makespan()
	t.within, t.inService = log.Worst(politeWindow)
	t.perURL, t.counted = r.calls/float64(len(log.Pages())), counted
	t.wrong = log.Breaches(t.limits, politeWindow)
}

// awaitEnd waits until the job has ended, or the hosts that matter have had all their visits.
func (r *running) awaitEnd(ctx context.Context) error {
	if r.tour.until == 0 {
		status, err := r.await(ctx, politeJob)
		if err != nil {
			return fmt.Errorf("the job did not end: %w", err)
		}
		if status.OK != status.Accepted {
			return fmt.Errorf("%d of %d URLs are ok: %+v", status.OK, status.Accepted, status)
		}
		return nil
	}
	for ctx.Err() == nil {
		done := true
		for i, n := range r.tour.counts[:r.tour.until] {
			done = done && r.origin.Pages(i) >= n
		}
		if done {
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return ctx.Err()
}

// hire starts a worker.
func (r *running) hire() error {
	port, err := freePort()
	if err != nil {
		return err
	}
	r.names++
	w := &hired{listen: fmt.Sprintf("127.0.0.1:%d", port)}
	args := []string{"--redis", r.url, "--store", r.store, "--sync", "off", "--name", fmt.Sprint("worker", r.names),
		"--allow-private", "127.0.0.0/8", "--listen", w.listen, "--log-level", "warn"}
	if w.process, err = start(exec.Command(r.worker(), append(args, r.tour.flags...)...), nil); err != nil {
		return err
	}
	r.workers = append(r.workers, w)
	return nil
}

// visitor is the number of the worker that visits a host, by what asynq's heartbeat says every 5 s; the first when that
// says nothing.
func (r *running) visitor(host string) (int, error) {
	servers, err := asynq.NewInspectorFromRedisClient(r.rdb).Servers()
	if err != nil {
		return 0, fmt.Errorf("ask asynq who works: %w", err)
	}
	for _, s := range servers {
		for _, active := range s.ActiveWorkers {
			if bytes.Contains(active.TaskPayload, []byte(host)) {
				return max(0, slices.IndexFunc(r.workers, func(h *hired) bool { return h.cmd.Process.Pid == s.PID })), nil
			}
		}
	}
	return 0, nil
}

// dismiss ends all workers. It may be called again.
func (r *running) dismiss() error {
	for _, w := range r.workers {
		if r.tour.until > 0 { // it would finish what is left to others
			w.kill()
			continue
		}
		if err := w.stop(); err != nil {
			return fmt.Errorf("worker: %w", err)
		}
	}
	r.workers = nil
	return nil
}

// scrape adds up the workers' counts of Redis calls for politeness. It reports whether there are any.
func (r *running) scrape(ctx context.Context) bool {
	found := false
	for _, w := range r.workers {
		n, ok := hostCalls(ctx, w.listen)
		r.calls += n
		found = found || ok
	}
	return found
}

// hostCallsMetric counts the calls of the scripts that politeness runs in Redis.
const hostCallsMetric = "fetchfleet_host_calls_total"

// hostCalls reads a worker's count from its metrics, over all its labels.
func hostCalls(ctx context.Context, listen string) (sum float64, found bool) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/metrics", nil)
	if err != nil {
		return 0, false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, false
	}
	defer resp.Body.Close()
	for scan := bufio.NewScanner(resp.Body); scan.Scan(); {
		rest, ok := strings.CutPrefix(scan.Text(), hostCallsMetric)
		fields := strings.Fields(rest)
		if !ok || len(fields) == 0 {
			continue
		}
		if n, err := strconv.ParseFloat(fields[len(fields)-1], 64); err == nil {
			sum, found = sum+n, true
		}
	}
	return sum, found
}
