//go:build unix

package fleet_test

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/politetest"
)

// timeReply is Redis's answer to TIME: seconds, of ten digits, and microseconds.
var timeReply = regexp.MustCompile(`^\*2\r\n\$10\r\n(\d{10})\r\n\$\d\r\n\d{1,6}\r\n$`)

// shifted is a way to Redis on which TIME comes out wrong by a number of seconds: the same to a worker as a clock of its
// own that is off. It returns the way's redis:// URL. Scripts, which ask for the time inside Redis, are not affected.
func (w *world) shifted(seconds int64) string {
	w.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	keep := func(c net.Conn) {
		mu.Lock()
		defer mu.Unlock()
		open = append(open, c)
	}
	all.Go(func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			server, err := net.Dial("tcp", w.redis.Addr())
			if err != nil {
				client.Close()
				continue
			}
			keep(client)
			keep(server)
			all.Go(func() { _, _ = io.Copy(server, client); server.Close() })
			all.Go(func() { _, _ = io.Copy(shiftingWriter{client, seconds}, server); client.Close() })
		}
	})
	w.t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, c := range open {
			c.Close()
		}
		mu.Unlock()
		all.Wait()
	})
	return "redis://" + l.Addr().String() + "/0"
}

// shiftingWriter changes an answer to TIME, which comes in one piece of its own.
type shiftingWriter struct {
	io.Writer
	by int64
}

func (s shiftingWriter) Write(p []byte) (int, error) {
	out := p
	if m := timeReply.FindSubmatchIndex(p); m != nil {
		told, err := strconv.ParseInt(string(p[m[2]:m[3]]), 10, 64)
		if err != nil {
			return 0, err
		}
		out = bytes.Clone(p)
		copy(out[m[2]:m[3]], strconv.FormatInt(told+s.by, 10))
	}
	return s.Writer.Write(out)
}

// workerBy starts a worker on another way to Redis.
func (w *world) workerBy(way, name string, extra ...string) *process {
	w.t.Helper()
	return start(w.t, command{name: "worker", args: with([]string{"--redis", way, "--store", w.store, "--name", name,
		"--listen", "127.0.0.1:0", "--allow-private", "127.0.0.0/8"}, extra...)})
}

// workerWhoseClockIsOffTakesNoWork starts one whose clock is off by an hour while there is work, and then a right
// one. What the worker does with clocks that are off by seconds is tested in package worker.
func workerWhoseClockIsOffTakesNoWork(t *testing.T) {
	t.Parallel()
	r := newResort(t, 2)
	r.add(20, 20)
	limits := politetest.Limits{Rate: 10, Burst: 1, Conns: 4}
	r.enqueue(r.urls, polite(limits)...)
	wrong := r.workerBy(r.shifted(3600), "wrong")
	address := r.address(wrong)
	await(t, 20*time.Second, "the worker says that its clock is off", func() bool {
		code, reason := ready(t, address)
		return code == 503 && strings.Contains(reason, "clock")
	})
	time.Sleep(3 * time.Second) // longer than an idle worker waits for its next batch
	if n := len(r.hosts.Log()); n != 0 {
		t.Errorf("a worker whose clock is off made %d requests, want none", n)
	}
	right := r.worker("right")
	r.ends(time.Minute)
	code, reason := ready(t, address)
	if code != 503 || !strings.Contains(reason, "clock") {
		t.Errorf("in the end it says %d %q, want 503 and its clock", code, reason)
	}
	right.terminate(20 * time.Second)
	wrong.terminate(20 * time.Second)
	r.kept(limits)
	r.whole(r.want)
	for u, rec := range r.records() {
		if rec.Worker != "right" {
			t.Errorf("%s was fetched by %q", u, rec.Worker)
		}
	}
}

// limitsAreKeptByClocksThatDiffer has three workers whose clocks are a second apart, which is near enough to work.
func limitsAreKeptByClocksThatDiffer(t *testing.T) {
	t.Parallel()
	r := newResort(t, 5)
	r.add(60, 60, 60, 60, 60)
	limits := politetest.Limits{Rate: 5, Burst: 1, Conns: 2}
	r.enqueue(r.urls, polite(limits)...)
	fleet := &crew{world: r.world}
	for _, by := range []int64{-1, 0, 1} {
		fleet.all = append(fleet.all, r.workerBy(r.shifted(by), fmt.Sprint("clock", by), "--visits", "4"))
	}
	r.ends(time.Minute)
	fleet.dismiss()
	r.kept(limits)
	r.whole(r.want)
	workers := map[string]int{}
	for _, rec := range r.records() {
		workers[rec.Worker]++
	}
	t.Logf("pages by worker: %v", workers)
	if len(workers) != 3 {
		t.Errorf("pages were fetched by %v, want all three", workers)
	}
	bound := politetest.Bound([]int{60}, limits.Rate)
	if got := r.hosts.Log().Makespan(); got > bound+5*time.Second {
		t.Errorf("makespan %s, bound %s", got, bound)
	}
}
