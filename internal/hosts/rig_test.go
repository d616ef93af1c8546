package hosts_test

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// rig is a source with queues around it whose tasks are in the states that a test puts them in, and a time that it moves.
type rig struct {
	t      testing.TB
	source hosts.Source
	queues queues
	pass   func(time.Duration) // moves time on
	now    func() time.Time
}

// queues are the tasks of asynq: pending, active, stalled (active, without a living worker), retry, or gone.
type queues interface {
	put(queue, id, state string)
	state(queue, id string) string
}

// fakeQueues are those of the Memory source.
type fakeQueues struct {
	mu     sync.Mutex
	states map[string]string
	calls  []string // of tasks that waited, in order
}

func (q *fakeQueues) put(queue, id, state string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.states[queue+"/"+id] = state
}

func (q *fakeQueues) state(queue, id string) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	if s := q.states[queue+"/"+id]; s != "" {
		return s
	}
	return "gone"
}

// Call implements hosts.Tasks.
func (q *fakeQueues) Call(queue, id string) string {
	switch s := q.state(queue, id); s {
	case "retry":
		q.put(queue, id, "pending")
		q.calls = append(q.calls, id)
		return "called"
	case "stalled":
		return "active"
	default:
		return s
	}
}

// Alive implements hosts.Tasks.
func (q *fakeQueues) Alive(queue, id string) bool { return q.state(queue, id) == "active" }

// onSources runs a claim on the reference model and on Redis, real and embedded.
func onSources(t *testing.T, claim func(*testing.T, *rig)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) { claim(t, memoryRig(t)) })
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) { claim(t, redisRig(t, rdb)) })
}

func memoryRig(t testing.TB) *rig {
	clock := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	q := &fakeQueues{states: map[string]string{}}
	now := func() time.Time { return clock }
	return &rig{t: t, source: hosts.NewMemory(q, now), queues: q, now: now, pass: func(d time.Duration) { clock = clock.Add(d) }}
}

// asynqTasks are tasks in asynq's own keys.
type asynqTasks struct {
	t   testing.TB
	rdb redis.UniversalClient
}

func (q asynqTasks) put(queue, id, state string) {
	ctx, prefix := q.t.Context(), "asynq:{"+queue+"}:"
	_, err := q.rdb.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, set := range []string{"retry", "lease"} {
			p.ZRem(ctx, prefix+set, id)
		}
		p.LRem(ctx, prefix+"pending", 0, id)
		p.HSet(ctx, prefix+"t:"+id, "state", strings.ReplaceAll(state, "stalled", "active"))
		switch state {
		case "gone":
			p.Del(ctx, prefix+"t:"+id)
		case "retry":
			p.ZAdd(ctx, prefix+"retry", redis.Z{Score: float64(time.Now().Add(time.Minute).Unix()), Member: id})
		case "pending":
			p.LPush(ctx, prefix+"pending", id)
		case "active":
			p.ZAdd(ctx, prefix+"lease", redis.Z{Score: float64(time.Now().Add(time.Hour).Unix()), Member: id})
		case "stalled":
			p.ZAdd(ctx, prefix+"lease", redis.Z{Score: float64(time.Now().Add(-time.Minute).Unix()), Member: id})
		}
		return nil
	})
	if err != nil {
		q.t.Fatal(err)
	}
}

func (q asynqTasks) state(queue, id string) string {
	s, err := q.rdb.HGet(q.t.Context(), "asynq:{"+queue+"}:t:"+id, "state").Result()
	if errors.Is(err, redis.Nil) {
		return "gone"
	}
	if err != nil {
		q.t.Fatal(err)
	}
	return s
}

// older makes everything that the source noted older.
var older = redis.NewScript(`
local d = tonumber(ARGV[1])
local function int(x) return string.format('%.0f', x) end
local function back(v) return int(tonumber(v) - d) end
local TIMES = { 'until', 'tat', 'slow_at', 'down', 'bad_at', 'care', 'checked', 'called_at', 'robots_at', 'robots_exp',
  'robots_try', 'robots_down' }
for _, key in ipairs(redis.call('KEYS', 'fetchfleet:host*')) do
  local kind = string.match(key, '^fetchfleet:host:.*:(%a+)$') or string.match(key, '^fetchfleet:hosts:(%a+)$') or 'state'
  if kind == 'due' then
    for _, host in ipairs(redis.call('ZRANGE', key, 0, -1)) do redis.call('ZINCRBY', key, -d / 1000, host) end
  elseif kind == 'state' then
    for _, f in ipairs(TIMES) do
      local v = tonumber(redis.call('HGET', key, f) or '0')
      if v > 0 then redis.call('HSET', key, f, back(v)) end
    end
  elseif kind == 'visits' or kind == 'since' or kind == 'waiting' or kind == 'shut' then
    local all = redis.call('HGETALL', key)
    for i = 1, #all, 2 do
      local v = all[i + 1]
      if kind == 'visits' then v = string.gsub(v, '^(%d+ )(%d+)', function(p, s) return p .. back(s) end) end
      if kind == 'waiting' then
        v = string.gsub(v, '^(%S+) (%d+) (%d) (%d+)', function(q, s, r, c) return q .. ' ' .. back(s) .. ' ' .. r .. ' ' .. back(c) end)
      end
      if kind == 'since' or kind == 'shut' then v = back(v) end
      redis.call('HSET', key, all[i], v)
    end
  end
end
return 1`)

func redisRig(t testing.TB, rdb redis.UniversalClient) *rig {
	return &rig{t: t, source: hosts.NewRedis(rdb, asynqkeys.CallLua, nil), queues: asynqTasks{t, rdb}, now: time.Now,
		pass: func(d time.Duration) {
			if err := older.Run(t.Context(), rdb, nil, d.Microseconds()).Err(); err != nil {
				t.Fatal(err)
			}
		}}
}

const host = "example.org"

// ask is what a batch of one request asks under limits.
func ask(batch string, l hosts.Limits, change ...func(*hosts.Ask)) hosts.Ask {
	a := hosts.Ask{Host: host, Batch: batch, Visit: "visit-" + batch, Queue: "default", Priority: 1, Job: "job", Want: 1, Limits: l}
	for _, c := range change {
		c(&a)
	}
	return a
}

func want(n int) func(*hosts.Ask)        { return func(a *hosts.Ask) { a.Want = n } }
func ofJob(job string) func(*hosts.Ask)  { return func(a *hosts.Ask) { a.Job = job } }
func visit(name string) func(*hosts.Ask) { return func(a *hosts.Ask) { a.Visit = name } }
func needsRobots(a *hosts.Ask)           { a.Robots = true }
func patience(d time.Duration) func(*hosts.Ask) {
	return func(a *hosts.Ask) { a.Patience = d }
}
func at(host, site string) func(*hosts.Ask) {
	return func(a *hosts.Ask) { a.Host, a.Site = host, site }
}
func inQueue(queue string, priority int) func(*hosts.Ask) {
	return func(a *hosts.Ask) { a.Queue, a.Priority = queue, priority }
}

// enter has a batch that is being worked ask. A batch that is to wait writes its deferral.
func (r *rig) enter(a hosts.Ask) hosts.Answer {
	r.t.Helper()
	answer := r.begin(a)
	if answer.Line != nil {
		r.queues.put(a.Queue, a.Batch, "retry")
	}
	return answer
}

// begin is enter without the deferral.
func (r *rig) begin(a hosts.Ask) hosts.Answer {
	r.t.Helper()
	r.queues.put(a.Queue, a.Batch, "active")
	answer, err := r.source.Enter(r.t.Context(), a)
	if err != nil {
		r.t.Fatal(err)
	}
	return answer
}

func (r *rig) mustEnter(a hosts.Ask) *hosts.Grant {
	r.t.Helper()
	answer := r.enter(a)
	if answer.Grant == nil {
		r.t.Fatalf("batch %s is not let in: line %+v, unavailable %v", a.Batch, answer.Line, answer.Unavailable)
	}
	return answer.Grant
}

func (r *rig) mustWait(a hosts.Ask) *hosts.Line {
	r.t.Helper()
	answer := r.enter(a)
	if answer.Line == nil {
		r.t.Fatalf("batch %s does not stand in line: grant %+v, unavailable %v", a.Batch, answer.Grant, answer.Unavailable)
	}
	return answer.Line
}

// leave ends a visit as the end of its batch does. well is how many exchanges went well.
func (r *rig) leave(a hosts.Ask, well int) time.Duration {
	r.t.Helper()
	sweep, err := r.source.Leave(r.t.Context(), a, -1, 0, hosts.Times{}, well)
	if err != nil {
		r.t.Fatal(err)
	}
	r.queues.put(a.Queue, a.Batch, "gone")
	return sweep
}

// order is the order in which the batches of a line are called, one after the other, as the visitor leaves.
func (r *rig) order(visiting hosts.Ask, line []hosts.Ask) (batches []string) {
	r.t.Helper()
	for range line {
		r.leave(visiting, 1)
		called := r.called(line...)
		if len(called) != 1 {
			r.t.Fatalf("called %q after %q, want one", called, batches)
		}
		batches = append(batches, called[0])
		visiting = line[slices.IndexFunc(line, func(a hosts.Ask) bool { return a.Batch == called[0] })]
		r.mustEnter(visiting)
	}
	return batches
}

func (r *rig) learn(l hosts.Lesson, pause time.Duration) time.Duration {
	r.t.Helper()
	return r.learnAt(hosts.Ask{Host: host, Job: "job"}, l, pause)
}

func (r *rig) learnAt(a hosts.Ask, l hosts.Lesson, pause time.Duration) time.Duration {
	r.t.Helper()
	alone, err := r.source.Learn(r.t.Context(), a, l, pause)
	if err != nil {
		r.t.Fatal(err)
	}
	return alone
}

func (r *rig) robots(a hosts.Ask, known bool, lasts time.Duration, text string) {
	r.t.Helper()
	if _, err := r.source.Robots(r.t.Context(), a, known, lasts, text); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) sweep() time.Duration {
	r.t.Helper()
	next, err := r.source.Sweep(r.t.Context())
	if err != nil {
		r.t.Fatal(err)
	}
	return next
}

// called are those of the batches, of the default queue, that were put at the head of pending or stand there.
func (r *rig) called(batches ...hosts.Ask) (out []string) {
	for _, a := range batches {
		if r.queues.state(a.Queue, a.Batch) == "pending" {
			out = append(out, a.Batch)
		}
	}
	return out
}

// near reports whether two durations are the same but for what a busy machine does to them.
func near(got, want time.Duration) bool { return (got - want).Abs() < 400*time.Millisecond }
