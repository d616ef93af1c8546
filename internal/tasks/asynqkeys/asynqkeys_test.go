package asynqkeys_test

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// An upgrade of asynq has to pass here first: read what changed in its internal/base and internal/rdb, run the other
// tests of this package, and then raise Version.
func TestTheLayoutIsThatOfTheAsynqBuiltIn(t *testing.T) {
	text, err := os.ReadFile("../../../go.mod") // a test binary does not tell its modules
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(text)) {
		if strings.Contains(line, "github.com/hibiken/asynq ") {
			lines = append(lines, strings.TrimSpace(line))
		}
	}
	if want := "github.com/hibiken/asynq " + asynqkeys.Version; !slices.Equal(lines, []string{want}) {
		t.Errorf("go.mod has %q, this package knows the keys of %q", lines, want)
	}
}

const queue = "default"

// asynqs is a queue with asynq on it: tasks whose names begin with "hold" are held by their handler until the end.
type asynqs struct {
	t         *testing.T
	direct    redis.UniversalClient
	proxy     *redistest.TCPProxy
	client    *asynq.Client
	inspector *asynq.Inspector
	held      chan string
	release   chan struct{}
	once      sync.Once
}

func newAsynqs(t *testing.T) *asynqs {
	t.Helper()
	server := redistest.Start(t)
	a := &asynqs{t: t, direct: server.Client(), proxy: redistest.Proxy(t, server.Addr()), held: make(chan string, 100), release: make(chan struct{})}
	a.client, a.inspector = asynq.NewClientFromRedisClient(a.direct), asynq.NewInspectorFromRedisClient(a.direct)
	return a
}

func (a *asynqs) enqueue(id string, options ...asynq.Option) {
	a.t.Helper()
	options = append(options, asynq.TaskID(id), asynq.Queue(queue))
	if _, err := a.client.EnqueueContext(a.t.Context(), asynq.NewTask("test", []byte(id)), options...); err != nil {
		a.t.Fatal(err)
	}
}

// hold starts a server, and returns once it has taken these tasks, which it keeps. Its connection can be cut.
func (a *asynqs) hold(ids ...string) {
	a.t.Helper()
	for _, id := range ids {
		a.enqueue(id)
	}
	rdb := redis.NewClient(&redis.Options{Addr: a.proxy.Addr(), MaxRetries: -1})
	server := asynq.NewServerFromRedisClient(rdb, asynq.Config{Concurrency: 20, LogLevel: asynq.FatalLevel, TaskCheckInterval: 10 * time.Millisecond})
	err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		id, _ := asynq.GetTaskID(ctx)
		a.held <- id
		<-a.release
		return nil
	}))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() {
		a.proxy.Heal()
		a.once.Do(func() { close(a.release) })
		server.Shutdown()
		_ = rdb.Close()
	})
	for range ids {
		<-a.held
	}
	server.Stop()
}

func (a *asynqs) now() time.Time {
	a.t.Helper()
	now, err := a.direct.Time(a.t.Context()).Result()
	if err != nil {
		a.t.Fatal(err)
	}
	return now
}

// lease says when the lease of an active task ends, from now; 0 removes it.
func (a *asynqs) lease(id string, left time.Duration) {
	a.t.Helper()
	ctx, key := a.t.Context(), "asynq:{"+queue+"}:lease"
	if err := a.direct.ZScore(ctx, key, id).Err(); err != nil {
		a.t.Fatalf("lease of %s: %v", id, err)
	}
	err := a.direct.ZAdd(ctx, key, redis.Z{Score: float64(a.now().Add(left).Unix()), Member: id}).Err()
	if left == 0 {
		err = a.direct.ZRem(ctx, key, id).Err()
	}
	if err != nil {
		a.t.Fatalf("lease of %s: %v", id, err)
	}
}

func (a *asynqs) recover(limit int) []string {
	a.t.Helper()
	ids, err := asynqkeys.Recover(a.t.Context(), a.direct, queue, a.now(), asynqkeys.DeadLease, limit)
	if err != nil {
		a.t.Fatal(err)
	}
	return ids
}

// pending are the ids that asynq will take next, first to last.
func (a *asynqs) pending() []string {
	a.t.Helper()
	ids, err := a.direct.LRange(a.t.Context(), "asynq:{"+queue+"}:pending", 0, -1).Result()
	if err != nil {
		a.t.Fatal(err)
	}
	slices.Reverse(ids)
	return ids
}

func TestStatesAreThoseThatAsynqTells(t *testing.T) {
	a := newAsynqs(t)
	a.hold("active")
	a.enqueue("pending")
	a.enqueue("scheduled", asynq.ProcessIn(time.Hour))
	a.enqueue("archived")
	if err := a.inspector.ArchiveTask(queue, "archived"); err != nil {
		t.Fatal(err)
	}
	ids := []string{"active", "pending", "scheduled", "archived", "never"}
	got, err := asynqkeys.States(t.Context(), a.direct, queue, ids)
	if want := []string{"active", "pending", "scheduled", "archived", ""}; err != nil || !slices.Equal(got, want) {
		t.Errorf("states = %q (%v), want %q", got, err, want)
	}
	for i, id := range ids[:4] {
		if info, err := a.inspector.GetTaskInfo(queue, id); err != nil || info.State.String() != got[i] {
			t.Errorf("%s: asynq says %v, %v", id, info, err)
		}
	}
	if got, err := asynqkeys.States(t.Context(), a.direct, "low", nil); err != nil || len(got) != 0 {
		t.Errorf("no tasks: %v, %v", got, err)
	}
}

func TestRetryAndCompletedStates(t *testing.T) {
	a := newAsynqs(t)
	rdb := redis.NewClient(&redis.Options{Addr: a.proxy.Addr()})
	defer func() { _ = rdb.Close() }()
	server := asynq.NewServerFromRedisClient(rdb, asynq.Config{LogLevel: asynq.FatalLevel, TaskCheckInterval: 10 * time.Millisecond,
		RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Hour }})
	a.enqueue("completed", asynq.Retention(time.Hour))
	a.enqueue("retry")
	err := server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		if id, _ := asynq.GetTaskID(ctx); id == "retry" {
			return context.DeadlineExceeded
		}
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	want := []string{"completed", "retry"}
	var got []string
	for range 500 {
		if got, err = asynqkeys.States(t.Context(), a.direct, queue, want); err != nil {
			t.Fatal(err)
		}
		if slices.Equal(got, want) {
			return
		}
		<-time.After(10 * time.Millisecond)
	}
	t.Errorf("states = %q, want %q", got, want)
}

func TestRecoverTakesOnlyWhatTheDeadHeld(t *testing.T) {
	for name, c := range map[string]struct {
		left time.Duration // of the lease; 0 = there is none
		dead bool
	}{
		"just renewed":                  {30 * time.Second, false},
		"one renewal late":              {25 * time.Second, false},
		"two renewals late":             {19 * time.Second, false},
		"three renewals late":           {17 * time.Second, true},
		"ran out":                       {-time.Minute, true},
		"without a lease after a crash": {0, true},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAsynqs(t)
			a.hold("hold")
			a.proxy.Cut() // its server renews no lease any more
			a.enqueue("backlog-1")
			a.enqueue("backlog-2")
			a.lease("hold", c.left)
			want, backlog := []string(nil), []string{"backlog-1", "backlog-2"}
			if c.dead {
				want, backlog = []string{"hold"}, append([]string{"hold"}, backlog...)
			}
			if got := a.recover(100); !slices.Equal(got, want) {
				t.Errorf("recovered %q, want %q", got, want)
			}
			if got := a.pending(); !slices.Equal(got, backlog) {
				t.Errorf("pending %q, want %q", got, backlog)
			}
			if got := a.recover(100); len(got) != 0 {
				t.Errorf("recovered again: %q", got)
			}
		})
	}
}

func TestARecoveredTaskIsRunByAsynq(t *testing.T) {
	a := newAsynqs(t)
	a.hold("hold")
	a.proxy.Cut()
	a.lease("hold", time.Second)
	if got := a.recover(1); !slices.Equal(got, []string{"hold"}) {
		t.Fatalf("recovered %q", got)
	}
	info, err := a.inspector.GetTaskInfo(queue, "hold")
	if err != nil || info.State != asynq.TaskStatePending || info.Retried != 0 {
		t.Errorf("asynq says %+v, %v; want it pending with no retry counted", info, err)
	}
	ran := make(chan string, 1)
	server := asynq.NewServerFromRedisClient(a.direct, asynq.Config{LogLevel: asynq.FatalLevel, TaskCheckInterval: 10 * time.Millisecond})
	err = server.Start(asynq.HandlerFunc(func(ctx context.Context, task *asynq.Task) error {
		ran <- string(task.Payload())
		return nil
	}))
	if err != nil {
		t.Fatal(err)
	}
	if got := <-ran; got != "hold" {
		t.Errorf("ran %q", got)
	}
	server.Shutdown()
}

func TestRecoverStopsAtItsLimit(t *testing.T) {
	a := newAsynqs(t)
	a.hold("hold-1", "hold-2", "hold-3")
	a.proxy.Cut()
	for _, id := range []string{"hold-1", "hold-2", "hold-3"} {
		a.lease(id, time.Second)
	}
	if got := a.recover(2); len(got) != 2 {
		t.Errorf("recovered %q, want two", got)
	}
	if got := a.recover(2); len(got) != 1 {
		t.Errorf("recovered %q, want the third", got)
	}
}

func TestManyWorkersRecoverEachTaskOnce(t *testing.T) {
	a := newAsynqs(t)
	var ids []string
	for i := range 20 {
		ids = append(ids, "hold-"+strconv.Itoa(i))
	}
	a.hold(ids...)
	a.proxy.Cut()
	for i, id := range ids {
		a.lease(id, time.Duration(i%2)*time.Second) // half of them have none
	}
	var mu sync.Mutex
	var recovered []string
	var workers sync.WaitGroup
	for range 8 {
		workers.Go(func() {
			got, err := asynqkeys.Recover(t.Context(), a.direct, queue, time.Now(), asynqkeys.DeadLease, 7)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			recovered = append(recovered, got...)
		})
	}
	workers.Wait()
	pending := a.pending()
	for _, list := range [][]string{recovered, pending} {
		slices.Sort(list)
		if want := slices.Sorted(slices.Values(ids)); !slices.Equal(list, want) {
			t.Errorf("got %q, want each once", list)
		}
	}
	if n := a.direct.LLen(t.Context(), "asynq:{"+queue+"}:active").Val(); n != 0 {
		t.Errorf("%d are still active", n)
	}
}

func TestATaskThatIsGoneIsNotBroughtBack(t *testing.T) {
	a := newAsynqs(t)
	a.hold("hold")
	a.proxy.Cut()
	a.lease("hold", time.Second)
	if err := a.direct.Del(t.Context(), "asynq:{"+queue+"}:t:hold").Err(); err != nil {
		t.Fatal(err)
	}
	if got := a.recover(10); len(got) != 0 || len(a.pending()) != 0 {
		t.Errorf("recovered %q, pending %q", got, a.pending())
	}
}

func TestRecoverWorksOnTheEmbeddedRedis(t *testing.T) {
	rdb := taskstest.Embedded(t)
	ctx := t.Context()
	pipe := rdb.Pipeline()
	for i, id := range []string{"dead", "living", "bare"} {
		pipe.LPush(ctx, "asynq:{low}:active", id)
		pipe.HSet(ctx, "asynq:{low}:t:"+id, "state", "active")
		if i < 2 {
			pipe.ZAdd(ctx, "asynq:{low}:lease", redis.Z{Score: float64(time.Now().Unix() + int64(i)*30), Member: id})
		}
	}
	if _, err := pipe.Exec(ctx); err != nil {
		t.Fatal(err)
	}
	got, err := asynqkeys.Recover(ctx, rdb, "low", time.Now(), asynqkeys.DeadLease, 10)
	if want := []string{"dead", "bare"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("recovered %q (%v), want %q", got, err, want)
	}
}
