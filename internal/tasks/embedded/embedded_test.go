package embedded

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func start(t *testing.T) redis.UniversalClient {
	t.Helper()
	server, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	client, err := redisconn.Open(server.URL(), redisconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestStartsAreSeparateAndCloseTwice(t *testing.T) {
	one, two := start(t), start(t)
	if err := one.Set(t.Context(), "key", "one", 0).Err(); err != nil {
		t.Fatal(err)
	}
	if n := two.Exists(t.Context(), "key").Val(); n != 0 {
		t.Error("a key of one server is seen in the other")
	}
	server, err := Start()
	if err != nil {
		t.Fatal(err)
	}
	server.Close()
	server.Close()
}

func TestStrangersAreRefused(t *testing.T) {
	client := start(t)
	stranger := redis.NewClient(&redis.Options{Addr: redisconn.Address(client)})
	defer func() { _ = stranger.Close() }()
	if err := stranger.Get(t.Context(), "key").Err(); err == nil || !strings.Contains(err.Error(), "NOAUTH") {
		t.Errorf("a client without password got %v, want NOAUTH", err)
	}
}

func TestPassesTheChecksOfAWorker(t *testing.T) {
	client := start(t)
	warnings, err := redisconn.Check(t.Context(), client)
	if err != nil || len(warnings) != 0 {
		t.Errorf("Check = %q, %v, want nothing", warnings, err)
	}
	offset, err := redisconn.Clock(t.Context(), client)
	if err != nil || offset.Abs() > 200*time.Millisecond {
		t.Errorf("Clock = %s, %v, want about 0", offset, err)
	}
}

func TestTimesToLivePass(t *testing.T) {
	client := start(t)
	if err := client.Set(t.Context(), "short", 1, 300*time.Millisecond).Err(); err != nil {
		t.Fatal(err)
	}
	if err := client.Set(t.Context(), "long", 1, time.Hour).Err(); err != nil {
		t.Fatal(err)
	}
	deadline := time.Now().Add(10 * time.Second)
	for client.Exists(t.Context(), "short").Val() != 0 {
		if time.Now().After(deadline) {
			t.Fatal("a key of 300 ms was there after 10 s")
		}
		time.Sleep(20 * time.Millisecond) // the server has no event for this
	}
	if left := client.TTL(t.Context(), "long").Val(); left >= time.Hour || left < 59*time.Minute {
		t.Errorf("time to live of a key of 1 h = %s, want a little less", left)
	}
}

func TestAsynqRunsEveryKindOfTask(t *testing.T) {
	client := start(t)
	var mu sync.Mutex
	seen := map[string]int{}
	finished := make(chan struct{})
	server := asynq.NewServerFromRedisClient(client, asynq.Config{
		Concurrency: 8, TaskCheckInterval: 20 * time.Millisecond, DelayedTaskCheckInterval: 50 * time.Millisecond,
		LogLevel: asynq.FatalLevel, RetryDelayFunc: func(int, error, *asynq.Task) time.Duration { return time.Second },
	})
	handler := func(_ context.Context, task *asynq.Task) error {
		mu.Lock()
		defer mu.Unlock()
		seen[task.Type()]++
		switch {
		case task.Type() == "fails once" && seen[task.Type()] == 1:
			return fmt.Errorf("not yet")
		case task.Type() == "archived":
			return fmt.Errorf("%w: never", asynq.SkipRetry)
		}
		if seen["plain"] == 100 && seen["fails once"] == 2 && seen["later"] == 1 && seen["kept"] == 1 {
			close(finished)
		}
		return nil
	}
	if err := server.Start(asynq.HandlerFunc(handler)); err != nil {
		t.Fatal(err)
	}
	defer server.Shutdown()
	producer := asynq.NewClientFromRedisClient(client)
	enqueue(t, producer, "archived")
	enqueue(t, producer, "kept", asynq.Retention(time.Hour))
	enqueue(t, producer, "later", asynq.ProcessIn(time.Second))
	enqueue(t, producer, "fails once", asynq.MaxRetry(3))
	for i := range 100 {
		enqueue(t, producer, "plain", asynq.TaskID(fmt.Sprint(i)))
	}
	select {
	case <-finished:
	case <-time.After(20 * time.Second):
		t.Fatalf("after 20 s: %v", seen)
	}
	info, err := asynq.NewInspectorFromRedisClient(client).GetTaskInfo("default", "99")
	if err == nil && info.State == asynq.TaskStatePending {
		t.Errorf("task 99 is %v after it ran", info.State)
	}
	if queue, err := asynq.NewInspectorFromRedisClient(client).GetQueueInfo("default"); err == nil && queue.Archived != 1 {
		t.Errorf("archived = %d, want 1", queue.Archived)
	}
}

func enqueue(t *testing.T, client *asynq.Client, kind string, options ...asynq.Option) {
	t.Helper()
	if _, err := client.Enqueue(asynq.NewTask(kind, []byte(kind)), options...); err != nil {
		t.Fatalf("enqueue %q: %v", kind, err)
	}
}

// TestCommandsOfTheLedger runs what the scripts of this system use, each as a script.
func TestCommandsOfTheLedger(t *testing.T) {
	tests := map[string]struct {
		script string
		want   any
	}{
		"SADD of 64-bit integers as text answers new or not": {
			`local n = {"-9223372036854775807", "9223372036854775807", "9223372036854775806"} return {redis.call("SADD", "s", n[1], n[2]), redis.call("SADD", "s", n[2]), redis.call("SADD", "s", n[3])}`,
			[]any{int64(2), int64(0), int64(1)}},
		"SADD takes a thousand members at once": {
			`local m = {} for i = 1, 1000 do m[i] = i end return redis.call("SADD", "s", unpack(m))`, int64(1000)},
		"HINCRBY counts down below zero": {
			`redis.call("HINCRBY", "h", "open", 2) return redis.call("HINCRBY", "h", "open", -3)`, int64(-1)},
		"HSETNX keeps the first": {
			`redis.call("HSETNX", "h", "f", "a") redis.call("HSETNX", "h", "f", "b") return redis.call("HGET", "h", "f")`, "a"},
		"HGET of nothing is false": {`return redis.call("HGET", "h", "f") == false and "false" or "other"`, "false"},
		"ZADD NX keeps the first score": {
			`redis.call("ZADD", "z", "NX", 1, "m") redis.call("ZADD", "z", "NX", 2, "m") return redis.call("ZSCORE", "z", "m")`, "1"},
		"ZADD XX adds nothing": {
			`redis.call("ZADD", "z", "XX", 1, "m") return redis.call("ZCARD", "z")`, int64(0)},
		"ZADD GT and LT move one way": {
			`redis.call("ZADD", "z", 5, "m") redis.call("ZADD", "z", "GT", 3, "m") redis.call("ZADD", "z", "LT", 7, "m") return redis.call("ZSCORE", "z", "m")`, "5"},
		"ZRANGE BYSCORE LIMIT": {
			`redis.call("ZADD", "z", 1, "a", 2, "b", 3, "c") return redis.call("ZRANGE", "z", "-inf", "(3", "BYSCORE", "LIMIT", 0, 1)`, []any{"a"}},
		"ZRANGEBYSCORE LIMIT": {
			`redis.call("ZADD", "z", 1, "a", 2, "b") return redis.call("ZRANGEBYSCORE", "z", "-inf", 2, "LIMIT", 1, 1)`, []any{"b"}},
		"ZPOPMIN": {`redis.call("ZADD", "z", 1.5, "a") return redis.call("ZPOPMIN", "z")`, []any{"a", "1.5"}},
		"a score of a millisecond time survives": {
			`redis.call("ZADD", "z", 1790000000123, "a") return redis.call("ZSCORE", "z", "a")`, "1790000000123"},
		"LREM and RPUSH to the head": {
			`redis.call("RPUSH", "l", "a", "b", "a") return {redis.call("LREM", "l", 0, "a"), redis.call("LLEN", "l")}`,
			[]any{int64(2), int64(1)}},
		"LPOS": {`redis.call("RPUSH", "l", "a", "b") return redis.call("LPOS", "l", "b")`, int64(1)},
		"cjson both ways": {
			`local v = cjson.decode('{"n":1,"a":["x"]}') v.n = v.n + 1 return cjson.encode({v.n, v.a[1]})`, `[2,"x"]`},
		"an error reply": {`return redis.pcall("LPUSH") ["err"] ~= nil and "err" or "none"`, "err"},
		"SET NX PX": {
			`local a = redis.call("SET", "k", "1", "NX", "PX", 1000) local b = redis.call("SET", "k", "2", "NX", "PX", 1000) return {a, tostring(b)}`,
			[]any{"OK", "false"}},
		"PEXPIRE and PERSIST": {
			`redis.call("SET", "k", 1) return {redis.call("PEXPIRE", "k", 1000), redis.call("PERSIST", "k")}`, []any{int64(1), int64(1)}},
		"tonumber, string.format, math.floor": {`return string.format("%d", math.floor(tonumber("12.7")))`, "12"},
		"HSCAN in a script":                   {`redis.call("HSET", "h", "a", 1) return redis.call("HSCAN", "h", 0)[2]`, []any{"a", "1"}},
		"SRANDMEMBER and SPOP":                {`redis.call("SADD", "s", "a") return {redis.call("SRANDMEMBER", "s"), redis.call("SPOP", "s")}`, []any{"a", "a"}},
		"UNLINK":                              {`redis.call("SET", "k", 1) return redis.call("UNLINK", "k")`, int64(1)},
		"SMISMEMBER":                          {`redis.call("SADD", "s", 1) return redis.call("SMISMEMBER", "s", 1, 2)`, []any{int64(1), int64(0)}},
	}
	clients := map[string]redis.UniversalClient{"embedded": start(t)}
	if redistest.Available() {
		clients["real"] = redistest.Start(t).Client() // the embedded one must not differ
	}
	for name, test := range tests {
		for kind, client := range clients {
			t.Run(name+"/"+kind, func(t *testing.T) { checkScript(t, client, test.script, test.want) })
		}
	}
}

func checkScript(t *testing.T, client redis.UniversalClient, script string, want any) {
	t.Helper()
	if err := client.FlushAll(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	got, err := redis.NewScript(script).Run(t.Context(), client, nil).Result()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
func TestScriptsReadTheRealTime(t *testing.T) {
	client := start(t)
	before := time.Now()
	got, err := redis.NewScript(`local t = redis.call("TIME") return t[1] * 1000 + math.floor(t[2] / 1000)`).
		Run(t.Context(), client, nil).Int64()
	if err != nil {
		t.Fatal(err)
	}
	if got < before.UnixMilli() || got > time.Now().UnixMilli() {
		t.Errorf("TIME in a script = %d ms, want the local time %d", got, before.UnixMilli())
	}
}

func TestScriptsAreFoundByTheirHash(t *testing.T) {
	client := start(t)
	hash, err := client.ScriptLoad(t.Context(), "return KEYS[1] .. ARGV[1]").Result()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := client.EvalSha(t.Context(), hash, []string{"k"}, "v").Text(); err != nil || got != "kv" {
		t.Errorf("EVALSHA = %q, %v, want kv", got, err)
	}
	if err := client.EvalSha(t.Context(), strings.Repeat("0", 40), nil).Err(); !redis.HasErrorPrefix(err, "NOSCRIPT") {
		t.Errorf("EVALSHA of an unknown hash = %v, want NOSCRIPT", err)
	}
}
