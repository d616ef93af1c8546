//go:build unix

package fleet_test

import (
	"fmt"
	"testing"
	"time"
)

// TestLargeBodiesAreStreamed has eight bodies of 200 MB come in at once.
func TestLargeBodiesAreStreamed(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 1.6 GB")
	}
	t.Parallel()
	const mb, limit = 200, 96 << 20
	w := newWorld(t)
	want := map[string]string{}
	var urls []string
	for i := range 8 {
		u := fmt.Sprintf("%s/large?mb=%d&n=%d", w.origin.Host(1+i), mb, i)
		urls = append(urls, u)
		want[u] = "ok"
	}
	w.enqueue(urls, unlimited...)
	dir := t.TempDir() // the race detector's shadow memory is not the worker's
	if err := build(dir, false); err != nil {
		t.Fatal(err)
	}
	worker := start(t, command{name: "worker", dir: dir, args: []string{"--redis", w.redis.URL(), "--store", w.store,
		"--listen", "127.0.0.1:0", "--allow-private", "127.0.0.0/8", "--sync", "off"}})
	var peak int
	together := 0
	for end := time.Now().Add(2 * time.Minute); w.status().State != "ended"; time.Sleep(20 * time.Millisecond) {
		now := 0
		for n := range 8 {
			now += w.origin.InService(fmt.Sprintf("127.0.0.%d%s", n+1, w.origin.Addr()[len("127.0.0.1"):]))
		}
		together = max(together, now)
		if time.Now().After(end) {
			t.Fatalf("the job did not end: %+v", w.status())
		}
	}
	peak = peakMemory(t, worker.os.Pid)
	worker.terminate(20 * time.Second)
	t.Logf("%d bodies of %d MB at once: the worker had at most %.1f MiB resident", together, mb, float64(peak)/(1<<20))
	if together < 8 {
		t.Errorf("only %d bodies came at once, want 8", together)
	}
	if peak > limit {
		t.Errorf("the worker had %d bytes resident, want at most %d", peak, limit)
	}
	report := w.audit()
	if report.Recorded != 8 {
		t.Errorf("%d recorded, want 8", report.Recorded)
	}
	for u, r := range w.records() {
		if r.Bytes != mb<<20 || want[u] != string(r.Outcome) {
			t.Errorf("%s: %s with %d bytes, want ok with %d", u, r.Outcome, r.Bytes, mb<<20)
		}
	}
}
