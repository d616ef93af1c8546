package redisconn

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
)

// anyRedis returns the address of a real server where there is one, else of an in-process one.
func anyRedis(t *testing.T) string {
	t.Helper()
	if redistest.Available() {
		return redistest.Start(t).Addr()
	}
	return miniredis.RunT(t).Addr()
}

// work starts an asynq server on a client and stops it with the test, as a worker would: closing first.
func work(t *testing.T, client redis.UniversalClient, closing chan struct{}, handler asynq.HandlerFunc) {
	t.Helper()
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Concurrency: 4, TaskCheckInterval: 20 * time.Millisecond, ShutdownTimeout: time.Second, LogLevel: asynq.FatalLevel,
		HealthCheckInterval: time.Hour,
	})
	if err := server.Start(handler); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		close(closing)
		server.Shutdown()
	})
}

// TestFinishedTaskStaysFinishedOverAHiccup cuts the line while a task ends. Without the guard the task stays on the
// active list for good, and runs again when its lease is over.
func TestFinishedTaskStaysFinishedOverAHiccup(t *testing.T) {
	addr := anyRedis(t)
	direct := redis.NewClient(&redis.Options{Addr: addr})
	t.Cleanup(func() { _ = direct.Close() })
	proxy := redistest.Proxy(t, addr)
	closing := make(chan struct{})
	client := open(t, "redis://"+proxy.Addr(), Options{Closing: closing})

	var runs atomic.Int32
	began, cut := make(chan struct{}), make(chan struct{})
	work(t, client, closing, func(context.Context, *asynq.Task) error {
		runs.Add(1)
		close(began)
		<-cut
		return nil
	})
	if _, err := asynq.NewClientFromRedisClient(direct).Enqueue(asynq.NewTask("page", nil), asynq.TaskID("one")); err != nil {
		t.Fatal(err)
	}
	<-began
	proxy.Cut()
	close(cut)
	// The first attempt to write the ending gives up after go-redis's own retries, about a second.
	waitFor(t, 20*time.Second, "the ending to fail", func() bool { return proxy.Dials() > 8 })
	if n := direct.LLen(t.Context(), "asynq:{default}:active").Val(); n != 1 {
		t.Fatalf("active list has %d tasks while the line is cut, want 1: the test missed the moment", n)
	}
	time.AfterFunc(time.Second, proxy.Heal) // asynq's own retries are under way by then
	waitFor(t, 20*time.Second, "the task to be gone", func() bool {
		return direct.Exists(t.Context(), "asynq:{default}:t:one", "asynq:{default}:active", "asynq:{default}:lease").Val() == 0
	})
	if got := runs.Load(); got != 1 {
		t.Errorf("the task ran %d times, want once", got)
	}
}

// TestDequeueIsPacedWhileRedisIsAway counts dequeues in two seconds of trouble, and sees that work goes on soon after.
func TestDequeueIsPacedWhileRedisIsAway(t *testing.T) {
	server := miniredis.RunT(t)
	proxy := redistest.Proxy(t, server.Addr())
	tests := map[string]struct{ trouble, relief func() }{
		"connections are reset": {proxy.Cut, proxy.Heal},
		"every answer is an error": {
			func() { server.SetError("MISCONF Errors writing to the AOF file") },
			func() { server.SetError("") },
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			closing := make(chan struct{})
			client := open(t, "redis://"+proxy.Addr(), Options{Closing: closing, PoolSize: 1})
			counter := &counter{}
			client.AddHook(counter)
			done := make(chan struct{})
			work(t, client, closing, func(context.Context, *asynq.Task) error {
				close(done)
				return nil
			})
			waitFor(t, 10*time.Second, "the first dequeue", func() bool { return counter.dequeues.Load() > 0 })
			test.trouble()
			before := counter.dequeues.Load()
			const window, limit = 2 * time.Second, 6
			<-time.After(window) // what is measured is a rate
			if got := counter.dequeues.Load() - before; got == 0 || got > limit {
				t.Errorf("%d dequeues in %s of trouble, want from 1 to %d", got, window, limit)
			}
			test.relief()
			enqueueAt(t, server.Addr())
			select {
			case <-done:
			case <-time.After(10 * time.Second):
				t.Error("no task was taken within 10 s of Redis coming back")
			}
		})
	}
}

func enqueueAt(t *testing.T, addr string) {
	t.Helper()
	client := redis.NewClient(&redis.Options{Addr: addr})
	defer func() { _ = client.Close() }()
	if _, err := asynq.NewClientFromRedisClient(client).Enqueue(asynq.NewTask("page", nil)); err != nil {
		t.Fatal(err)
	}
}

func TestClosingEndsAPauseEarly(t *testing.T) {
	closing := make(chan struct{})
	g := newGuard(closing)
	g.failures.Store(20)
	close(closing)
	began := time.Now()
	g.pace(t.Context(), errors.New("no route"))
	if took := time.Since(began); took > firstPause {
		t.Errorf("pace took %s after closing, want no wait", took)
	}
}

func TestPauseGrowsToItsLimit(t *testing.T) {
	for n, least := range map[int32]time.Duration{1: firstPause, 2: 2 * firstPause, 3: 4 * firstPause, 4: lastPause, 1 << 30: lastPause} {
		if got := pause(n); got < least || got > lastPause {
			t.Errorf("pause(%d) = %s, want from %s to %s", n, got, least, lastPause)
		}
	}
}

func TestGuardTouchesOnlyEndingsOfWhichTheTimeIsOver(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	done := []any{"evalsha", "sha", 2, "asynq:{low}:active", "asynq:{low}:lease", "id"}
	tests := map[string]struct {
		ctx       context.Context
		args      []any
		wantFresh bool
	}{
		"an ending whose time is over gets a fresh context":   {over, done, true},
		"an ending in time keeps the caller's":                {t.Context(), done, false},
		"another script keeps the caller's":                   {over, []any{"evalsha", "sha", 1, "ff:job", "x:active"}, false},
		"another command keeps the caller's":                  {over, []any{"llen", "asynq:{low}:active"}, false},
		"a script with a broken key count keeps the caller's": {over, []any{"eval", "return 1", 9, "x:active"}, false},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			var ran context.Context
			process := newGuard(nil).ProcessHook(func(ctx context.Context, _ redis.Cmder) error {
				ran = ctx
				return ctx.Err()
			})
			err := process(test.ctx, redis.NewCmd(test.ctx, test.args...))
			if fresh := ran != test.ctx; fresh != test.wantFresh {
				t.Errorf("ran with a fresh context: %v, want %v", fresh, test.wantFresh)
			}
			if test.wantFresh && err != nil {
				t.Errorf("error = %v", err)
			}
		})
	}
}

func TestEndingsFailAtOnceAfterOneFoundRedisAway(t *testing.T) {
	over, cancel := context.WithCancel(t.Context())
	cancel()
	asked := 0
	process := newGuard(nil).ProcessHook(func(ctx context.Context, _ redis.Cmder) error {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		asked++
		return errors.New("no route")
	})
	for range 100 {
		_ = process(over, redis.NewCmd(over, "evalsha", "sha", 1, "asynq:{low}:active"))
	}
	if asked > 2 { // two when the machine stalls for a quarter of a second
		t.Errorf("%d of 100 endings asked a Redis that is away, want 1", asked)
	}
}

// counter counts dequeue scripts on their way to Redis.
type counter struct{ dequeues atomic.Int64 }

func (c *counter) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *counter) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (c *counter) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if isDequeue(scriptKeys(cmd)) {
			c.dequeues.Add(1)
		}
		return next(ctx, cmd)
	}
}

// waitFor polls a condition of the other process until it holds.
func waitFor(t *testing.T, limit time.Duration, what string, holds func() bool) {
	t.Helper()
	deadline := time.After(limit)
	for !holds() {
		select {
		case <-deadline:
			t.Fatalf("waited %s for %s", limit, what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}
