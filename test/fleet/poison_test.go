//go:build unix

package fleet_test

import (
	"fmt"
	"testing"
	"time"
)

// TestCrashingRequestIsIsolated has one request of a batch of 32 crash each worker that tries it.
func TestCrashingRequestIsIsolated(t *testing.T) {
	if testing.Short() {
		t.Skip("six crashes are noticed after 12 s each")
	}
	t.Parallel()
	w := newWorld(t)
	want := map[string]string{}
	var urls []string
	for i := range 64 { // of one host: batches of 1, 1, 2, 4, 8, 16 and 32
		u := w.origin.URL(fmt.Sprintf("/slow/%d?ms=300", i))
		want[u] = "ok"
		if i == 50 {
			u = w.origin.URL("/page/crash-me")
			want[u] = "crashed"
		}
		urls = append(urls, u)
	}
	delete(want, w.origin.URL("/slow/50?ms=300"))
	w.enqueue(urls, unlimited...)
	began := time.Now()
	fleet := &crew{world: w}
	crashes := 0
	for end := began.Add(4 * time.Minute); w.status().State != "ended"; time.Sleep(50 * time.Millisecond) {
		if n := len(fleet.all); n == 0 || fleet.all[n-1].gone() {
			crashes = n
			fleet.hire("fragile", "FLEET_FAULT_URL=crash-me")
		}
		if time.Now().After(end) {
			t.Fatalf("the job did not end within %s: %+v", time.Since(began), w.status())
		}
	}
	fleet.dismiss()
	t.Logf("ended after %d crashes in %.0f s", crashes, time.Since(began).Seconds())
	if crashes != 6 {
		t.Errorf("%d crashes, want 6: three of the batch and three of the request alone", crashes)
	}
	w.whole(want)
	if n := w.origin.Count("/page/crash-me"); n != 0 {
		t.Errorf("the origin saw the crashing request %d times, want 0", n)
	}
}

// TestHostsThatNeverServeEndTheJob has one host never answer and one always ask to come back later.
func TestHostsThatNeverServeEndTheJob(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, patience, class, busy string
	}{
		{"429 for longer than the patience is a host that is not available", "2s", "host_unavailable", "/always429"},
		{"429 within the patience uses up the attempts in the end", "1h", "http_429", "/always429?retry-after=1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			silent, busy, good := w.origin.Host(1)+"/hang", w.origin.Host(2)+c.busy, w.origin.Host(3)+"/page/1"
			w.enqueue([]string{silent, busy, good}, with(unlimited, "--timeout", "1s", "--retries", "2", "--patience", c.patience,
				"--backoff", "base=100ms,cap=300ms,jitter=none")...)
			worker := w.worker("worker")
			w.ends(time.Minute)
			worker.terminate(20 * time.Second)
			w.whole(map[string]string{silent: "header_timeout", busy: c.class, good: "ok"})
			if n := w.origin.Count("/hang"); n != 3 {
				t.Errorf("the silent host was tried %d times, want 3", n)
			}
			t.Logf("the busy host was asked %d times", w.origin.Count("/always429"))
		})
	}
}
