//go:build unix

package fleet_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"
)

// batchSize is the most requests that enqueue puts into one batch.
const batchSize = 32

// TestKilledWorkersLoseNothing kills one of three workers three times and restarts Redis while a large list is fetched.
func TestKilledWorkersLoseNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	w := newWorld(t)
	n := 20_000
	if text := os.Getenv("FLEET_TEST_URLS"); text != "" {
		var err error
		if n, err = strconv.Atoi(text); err != nil {
			t.Fatal(err)
		}
	}
	want := map[string]string{}
	var urls []string
	for i := range n {
		u := fmt.Sprintf("%s/slow/%d?ms=350", w.origin.Host(1+i%40), i)
		urls = append(urls, u)
		want[u] = "ok"
	}
	if res := w.enqueue(urls, unlimited...); res.Accepted != int64(n) {
		t.Fatalf("enqueue accepted %d, want %d", res.Accepted, n)
	}
	began := time.Now()
	fleet := &crew{world: w, size: []string{"--visits", "64", "--concurrency", "40"}}
	victim := fleet.hire("victim")
	fleet.hire("second")
	fleet.hire("third")
	w.takesBatches(victim)
	for kill := 1; kill <= 3; kill++ {
		recorded := w.status().Recorded()
		await(t, time.Minute, "the job has moved on", func() bool { return w.status().Recorded() > recorded+int64(n/20) })
		held := w.active()
		before, _ := w.deliveries(held)
		victim.kill()
		at := time.Now()
		victim = fleet.hire("victim")
		if kill == 2 {
			w.redis.Restart()
		}
		again := w.runningAgain(held, before, at.Add(30*time.Second))
		took := time.Since(at)
		t.Logf("kill %d: %d batches were active, %d of them ran again, the last after %.1f s", kill, len(held), again, took.Seconds())
		if again == 0 {
			t.Errorf("kill %d: the killed worker held nothing, so nothing was shown", kill)
		}
		if took > 20*time.Second {
			t.Errorf("kill %d: its batches were running again after %s, want within 20s", kill, took)
		}
	}
	w.ends(3 * time.Minute)
	t.Logf("%d URLs in %.1f s", n, time.Since(began).Seconds())
	redelivered := fleet.redelivered()
	fleet.dismiss()
	w.whole(want)
	extra := w.origin.Total() - n
	t.Logf("the origin saw %d requests more than there are URLs; %d batches were redelivered", extra, redelivered)
	if extra > redelivered*batchSize {
		t.Errorf("the origin saw %d requests too many, more than %d redeliveries of up to %d explain", extra, redelivered, batchSize)
	}
}

// runningAgain waits until each batch is finished or was begun again, and returns how many were the latter.
func (w *world) runningAgain(ids []string, before []int, deadline time.Time) int {
	w.t.Helper()
	rerun := make([]bool, len(ids))
	for {
		left, n := 0, 0
		now, ok := w.deliveries(ids)
		for i := range now {
			rerun[i] = rerun[i] || now[i] > before[i]
			if rerun[i] {
				n++
			} else if now[i] >= 0 {
				left++
			}
		}
		if ok && left == 0 {
			return n
		}
		if time.Now().After(deadline) {
			w.t.Errorf("%d batches of the killed worker are not running again", left)
			return n
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// crew is all workers that a test has started.
type crew struct {
	*world
	size []string
	all  []*process
}

func (c *crew) hire(name string, extra ...string) *process {
	c.t.Helper()
	p := c.worker(name, with(c.size, extra...)...)
	c.all = append(c.all, p)
	return p
}

// dismiss ends all that still run with SIGTERM.
func (c *crew) dismiss() {
	c.t.Helper()
	for _, p := range c.all {
		if !p.gone() {
			p.terminate(30 * time.Second)
		}
	}
}

// redelivered is how many batches the crew has put back for dead workers.
func (c *crew) redelivered() int {
	n := 0
	for _, p := range c.all {
		for _, entry := range p.logged("batches of a dead worker put back") {
			n += int(entry["batches"].(float64))
		}
	}
	return n
}
