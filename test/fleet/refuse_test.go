//go:build unix

package fleet_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// TestWorkerWithAnotherStoreRefuses starts a second worker with a store of its own in the middle of a job.
func TestWorkerWithAnotherStoreRefuses(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.origin.URL("/page/first")
	w.enqueue([]string{first}, unlimited...)
	right := w.worker("right")
	w.ends(30 * time.Second)
	right.terminate(20 * time.Second)

	want := map[string]string{first: "ok"}
	var urls []string
	for i := range 20 {
		u := w.origin.URL(fmt.Sprintf("/page/%d", i))
		urls = append(urls, u)
		want[u] = "ok"
	}
	w.enqueue(urls)
	stranger := &world{t: t, redis: w.redis, store: t.TempDir()}
	wrong := stranger.worker("wrong")
	await(t, 30*time.Second, "the worker with another store refuses", func() bool { return len(wrong.logged("job refused")) > 0 })
	said := fmt.Sprint(wrong.logged("job refused")[0]["error"])
	for _, part := range []string{"job " + job, "another", stranger.store, "--store"} {
		if !strings.Contains(said, part) {
			t.Errorf("it said %q, want it to name %q", said, part)
		}
	}
	wrong.terminate(20 * time.Second)
	if n := w.origin.Total() - w.origin.Count("/robots.txt"); n != 1 {
		t.Errorf("the origin saw %d requests, want 1: a worker that refuses fetches nothing", n)
	}
	w.dueNow()
	right = w.worker("right")
	w.ends(time.Minute)
	right.terminate(20 * time.Second)
	w.whole(want)
}

// TestSpecOfNewerVersionIsRefused has a job made by a newer version, and then by this one.
func TestSpecOfNewerVersionIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.origin.URL("/page/1")
	w.enqueue([]string{u}, unlimited...)
	ctx := context.Background()
	const key = "fetchfleet:{" + job + "}:spec"
	spec, err := w.rdb.Get(ctx, key).Result()
	if err != nil {
		t.Fatal(err)
	}
	newer := strings.Replace(spec, `"v":1`, `"v":99,"unheard_of":true`, 1)
	if newer == spec {
		t.Fatalf("the spec %s has no version", spec)
	}
	if err := w.rdb.Set(ctx, key, newer, 0).Err(); err != nil {
		t.Fatal(err)
	}
	worker := w.worker("worker")
	await(t, 30*time.Second, "the worker refuses the job", func() bool { return len(worker.logged("job refused")) > 0 })
	if said := fmt.Sprint(worker.logged("job refused")[0]["error"]); !strings.Contains(said, "version 99") || !strings.Contains(said, "upgrade") {
		t.Errorf("the worker said %q, want version 99 and upgrade", said)
	}
	again := w.producer(list([]string{u}))
	if code := again.exit(30 * time.Second); code != 1 || !strings.Contains(again.text(), "upgrade") {
		t.Errorf("enqueue into a newer job: exit code %d, said %q; want 1 and upgrade", code, again.text())
	}
	if err := w.rdb.Set(ctx, key, spec, 0).Err(); err != nil {
		t.Fatal(err)
	}
	w.dueNow()
	w.ends(time.Minute)
	worker.terminate(20 * time.Second)
	w.whole(map[string]string{u: "ok"})
}

// dueNow runs what was refused at once, instead of when its wait is over.
func (w *world) dueNow() {
	w.t.Helper()
	inspector := asynq.NewInspectorFromRedisClient(w.rdb)
	await(w.t, 20*time.Second, "what was refused waits", func() bool {
		n, err := inspector.RunAllRetryTasks("default")
		return err == nil && n > 0
	})
}
