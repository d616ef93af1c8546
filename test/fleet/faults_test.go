//go:build unix

package fleet_test

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/hibiken/asynq"
)

// workerPoints are the places between two steps of a delivery at which a worker can be struck. The mixed list with its
// policy takes a worker past each of them.
var workerPoints = []string{
	"before-begin",    // asynq has delivered a last attempt; the ledger does not know of it
	"after-begin",     // the ledger knows of the delivery; nothing was fetched
	"after-return",    // the batch was given back to the ledger, not yet to asynq
	"after-tried",     // an attempt was noted, and asynq has yet to set the task aside
	"before-commit",   // everything was fetched and lies aside
	"after-commit",    // the unit is visible
	"after-finish",    // the ledger has counted; the children are in the outbox
	"after-enqueue",   // asynq has the children; the outbox has them, too
	"after-children",  // all is done but asynq's task
	"before-archive",  // the last attempt was counted; its task is not in the archive
	"archived-replay", // after-reopen: a replay has begun
}

// hostPoints are the places before and after the scripts that keep a host's permits and line.
var hostPoints = []string{
	"before-host-enter",  // the ledger counts the delivery; the host knows nothing of it
	"after-host-enter",   // it has a permit, or a place in line, of which its worker never heard
	"before-host-robots", // robots.txt was fetched, and nobody told
	"after-host-robots",  // everybody may know it, and its scout still has the permit
	"after-host-learn",   // the host is cooling; the request that taught it has no record
	"before-host-leave",  // all was fetched; the permits are held
	"after-host-leave",   // the next was called; nothing is committed
	"after-host-sweep",   // hosts that were due were looked at; nobody heard when to look again
}

// producerPoints are those of a producer.
var producerPoints = []string{
	"before-accept", // nothing of a group of batches is in Redis
	"after-accept",  // they are accepted; asynq has none
	"after-enqueue", // asynq has them; the outbox has them, too
	"after-send",    // the outbox is cleared
	"before-seal",   // all is in; the job is not sealed
}

// TestKillBetweenAnyTwoSteps ends a process with SIGKILL between every two steps.
func TestKillBetweenAnyTwoSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("dead workers are noticed after 12 s")
	}
	t.Parallel()
	for _, point := range slices.Concat(workerPoints, hostPoints) {
		t.Run("worker/"+point, func(t *testing.T) {
			t.Parallel()
			f := newFault(t, point, "kill")
			victim := f.strikeWorker()
			if victim.exit(10*time.Second) != -1 {
				t.Fatalf("the victim ended by itself: %v", victim.state)
			}
			survivor := f.worker("survivor")
			f.ends(time.Minute)
			survivor.terminate(20 * time.Second)
			f.whole(f.want)
			f.replayed()
		})
	}
	for _, point := range producerPoints {
		t.Run("producer/"+point, func(t *testing.T) {
			t.Parallel()
			f := newFault(t, point, "kill")
			worker := f.worker("worker")
			victim := f.strikeProducer()
			if victim.exit(10*time.Second) != -1 {
				t.Fatalf("the victim ended by itself: %v", victim.state)
			}
			// What was accepted is fetched by whoever lives, before anyone goes on with the list.
			await(t, 40*time.Second, "everything accepted is recorded", func() bool {
				s := f.status()
				return s.Open == 0 && s.Accepted == s.Recorded()
			})
			if s := f.status(); s.State != "accepting" {
				t.Errorf("the job without its producer is %s, want accepting", s.State)
			}
			f.finishList()
			f.ends(time.Minute)
			worker.terminate(20 * time.Second)
			f.whole(f.want)
		})
	}
}

// TestStopBetweenAnyTwoSteps stops a process for a minute between every two steps, while others go on.
func TestStopBetweenAnyTwoSteps(t *testing.T) {
	if testing.Short() {
		t.Skip("processes sleep for a minute")
	}
	t.Parallel()
	asleep := testDuration(t, "FLEET_TEST_STOP", time.Minute)
	for _, point := range workerPoints {
		t.Run("worker/"+point, func(t *testing.T) {
			t.Parallel()
			f := newFault(t, point, "stop")
			victim := f.strikeWorker()
			stopped := time.Now()
			survivor := f.worker("survivor")
			f.ends(asleep - 5*time.Second) // without the sleeper
			time.Sleep(time.Until(stopped.Add(asleep)))
			victim.signal(syscall.SIGCONT)
			// Awake again it drops what it has: nothing may move any more.
			f.settled(3 * time.Second)
			victim.terminate(20 * time.Second)
			survivor.terminate(20 * time.Second)
			f.whole(f.want)
			f.replayed()
		})
	}
	for _, point := range producerPoints {
		t.Run("producer/"+point, func(t *testing.T) {
			t.Parallel()
			f := newFault(t, point, "stop")
			worker := f.worker("worker")
			victim := f.strikeProducer()
			stopped := time.Now()
			f.finishList() // by another producer
			f.ends(asleep - 5*time.Second)
			time.Sleep(time.Until(stopped.Add(asleep)))
			victim.signal(syscall.SIGCONT)
			if code := victim.exit(20 * time.Second); code != 0 {
				t.Errorf("the producer that slept: exit code %d, want 0", code)
			}
			f.ends(20 * time.Second)
			worker.terminate(20 * time.Second)
			f.whole(f.want)
		})
	}
}

// fault is a world in which one process is struck at one point.
type fault struct {
	*world
	point string
	env   []string // of the victim
	mark  string   // file that is there once it was struck
	urls  []string
	want  map[string]string
}

func newFault(t *testing.T, point, what string) *fault {
	f := &fault{world: newWorld(t), point: point}
	if point == "archived-replay" {
		f.point = "after-reopen"
	}
	dir := t.TempDir()
	struck := f.point + "=" + what
	f.env = []string{"FLEET_FAULT=" + struck, "FLEET_FAULT_DIR=" + dir}
	f.mark = filepath.Join(dir, struck)
	f.urls, f.want = f.mixed(24)
	return f
}

func (f *fault) struck() bool {
	_, err := os.Stat(f.mark)
	return err == nil
}

// strikeWorker enqueues the list and runs a worker until it is struck.
func (f *fault) strikeWorker() *process {
	f.t.Helper()
	switch f.point {
	case "after-reopen":
		f.archiveOne()
	case "before-begin":
		f.lastAttemptOfOne()
	default:
		f.enqueueAll()
	}
	victim := f.worker("victim", f.env...)
	await(f.t, 40*time.Second, "the victim is struck "+f.point, f.struck)
	return victim
}

func (f *fault) enqueueAll() {
	f.t.Helper()
	if res := f.enqueue(f.urls, mixedPolicy...); res.Accepted != int64(len(f.urls)) {
		f.t.Fatalf("enqueue accepted %d, want %d", res.Accepted, len(f.urls))
	}
}

// broken makes the list one request that fails whenever it is tried.
func (f *fault) broken() {
	u := f.origin.URL("/status/500")
	f.urls, f.want = []string{u}, map[string]string{u: "http_500"}
}

// lastAttemptOfOne has one request fail its first attempt. The last one is due soon. Whoever sleeps through that finds
// the task in the archive.
func (f *fault) lastAttemptOfOne() {
	f.t.Helper()
	f.broken()
	f.enqueue(f.urls, "--retries", "1", "--backoff", "base=3s,cap=3s,jitter=none")
	first := f.worker("first")
	await(f.t, 30*time.Second, "the first attempt has failed", func() bool {
		scheduled, err := asynq.NewInspectorFromRedisClient(f.rdb).ListScheduledTasks("default")
		return err == nil && len(scheduled) == 1
	})
	first.terminate(20 * time.Second)
}

// archiveOne has one request fail all its attempts, and then presses Run on its task.
func (f *fault) archiveOne() {
	f.t.Helper()
	f.broken()
	f.enqueue(f.urls, mixedPolicy...)
	first := f.worker("first")
	f.ends(30 * time.Second)
	task := f.archived(1)[0]
	first.terminate(20 * time.Second) // the replay is the victim's
	f.run(task)
}

// replayed demands that a replay was one: the record that counts is of the first generation after it.
func (f *fault) replayed() {
	f.t.Helper()
	if f.point != "after-reopen" {
		return
	}
	for u, r := range f.records() {
		if r.Generation != 1 {
			f.t.Errorf("record of %s: generation %d after a replay, want 1", u, r.Generation)
		}
	}
}

// strikeProducer enqueues until the producer is struck.
func (f *fault) strikeProducer() *process {
	f.t.Helper()
	victim := f.producer(list(f.urls), with(mixedPolicy, f.env...)...)
	await(f.t, 40*time.Second, "the producer is struck "+f.point, f.struck)
	return victim
}

// finishList runs the same command again.
func (f *fault) finishList() {
	f.t.Helper()
	res := f.enqueue(f.urls, mixedPolicy...)
	if got := f.status().Accepted; got != int64(len(f.urls)) || res.Accepted+res.Duplicates != got {
		f.t.Errorf("after the list was taken again the job has accepted %d (now %d, duplicates %d), want %d",
			got, res.Accepted, res.Duplicates, len(f.urls))
	}
}

// settled demands that the job's figures stay as they are.
func (f *fault) settled(length time.Duration) {
	f.t.Helper()
	before := f.status()
	for end := time.Now().Add(length); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if s := f.status(); s.Recorded() != before.Recorded() || s.Open != before.Open || s.State != "ended" {
			f.t.Fatalf("the figures of an ended job moved: %+v, before %+v", s, before)
		}
	}
}

// archived waits until asynq's archive holds n tasks and returns them.
func (w *world) archived(n int) []*asynq.TaskInfo {
	w.t.Helper()
	inspector := asynq.NewInspectorFromRedisClient(w.rdb)
	var tasks []*asynq.TaskInfo
	await(w.t, 20*time.Second, "the archive holds the failed tasks", func() bool {
		found, err := inspector.ListArchivedTasks("default")
		tasks = found
		return err == nil && len(found) == n
	})
	return tasks
}

// run presses Run on a task.
func (w *world) run(task *asynq.TaskInfo) {
	w.t.Helper()
	if err := asynq.NewInspectorFromRedisClient(w.rdb).RunTask(task.Queue, task.ID); err != nil {
		w.t.Fatal(err)
	}
}

// TestArchivedRequestIsReplayed has a request fail all its attempts, and runs it again as an operator would.
func TestArchivedRequestIsReplayed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	down, up := w.origin.URL("/status/500?down"), w.origin.URL("/flaky/2/mended")
	w.enqueue([]string{down, up}, with(mixedPolicy, "--retry-on=-503")...)
	worker := w.worker("worker")
	w.ends(30 * time.Second)
	w.whole(map[string]string{down: "http_500", up: "http_503"})
	task := w.archived(1)[0]
	if !strings.Contains(task.LastErr, "http_500") || !strings.Contains(task.LastErr, "attempts: 2") {
		t.Errorf("error in the archive: %q, want http_500 after 2 attempts", task.LastErr)
	}
	before := w.origin.Count("/status/500?down")
	w.run(task)
	await(t, 30*time.Second, "the replay has failed, too", func() bool {
		info, err := asynq.NewInspectorFromRedisClient(w.rdb).GetTaskInfo(task.Queue, task.ID)
		return err == nil && info.State == asynq.TaskStateArchived && info.LastErr != task.LastErr
	})
	if got := w.origin.Count("/status/500?down") - before; got != 2 {
		t.Errorf("the replay made %d attempts, want 2", got)
	}
	w.whole(map[string]string{down: "http_500", up: "http_503"})
	if r := w.records()[down]; r.Generation != 1 || r.Attempts != 2 {
		t.Errorf("record of the replay: generation %d, attempts %d; want 1, 2", r.Generation, r.Attempts)
	}
	s := w.status()
	if s.HTTPErr != 2 || s.Open != 0 || s.Classes["http_500"] != 1 || s.State != "ended" {
		t.Errorf("after the replay: %+v, want 2 http_error, of them 1 http_500, and the job ended", s)
	}
	worker.terminate(20 * time.Second)
}

// TestReplayThatSucceedsIsTheRecord replays a request whose host was mended.
func TestReplayThatSucceedsIsTheRecord(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	u := w.origin.URL("/flaky/2/mended") // fails both attempts, as 503 costs one here
	w.enqueue([]string{u}, with(mixedPolicy, "--patience", "1ms")...)
	worker := w.worker("worker")
	w.ends(30 * time.Second)
	w.whole(map[string]string{u: "host_unavailable"})
	for i := 0; w.status().OK == 0 && i < 4; i++ {
		w.run(w.archived(1)[0])
		await(t, 30*time.Second, "the replay has ended", func() bool {
			g, err := w.ledger.Generations(context.Background(), job)
			return err == nil && slices.Contains(slices.Collect(maps.Values(g)), i+1) && w.status().Open == 0
		})
	}
	w.whole(map[string]string{u: "ok"})
	if s := w.status(); s.OK != 1 || s.Failed != 0 || len(s.Classes) != 0 {
		t.Errorf("after the replay: %+v, want 1 ok and no failure", s)
	}
	worker.terminate(20 * time.Second)
}
