package redisconn

import (
	"context"
	"errors"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// Waits of the guard.
const (
	firstPause = 250 * time.Millisecond // after the first failed dequeue in a row
	lastPause  = 2 * time.Second        // the longest, so that work begins soon after Redis is back
	settleTime = 3 * time.Second        // for one write of a finished task whose own time is over
	quietTime  = 250 * time.Millisecond // after such a write failed, the others waiting fail at once
)

// guard is a go-redis hook around two faults of asynq v0.26.0. It looks at scripts only, by the keys they name.
//
// Lost endings: asynq retries the write that ends a task (done, retry, archive, complete) in a closure over a context
// that it has cancelled by then, so the retry can never succeed and the task runs again. The guard runs a script that
// names an active list under a fresh context when the caller's is over. asynq itself stops retrying when the task's
// lease is over, so a late write cannot meet the task's next delivery.
//
// Spinning: while Redis is away asynq's dequeue loop calls again at once. The guard holds back the return of a failed
// dequeue, longer with every failure in a row.
type guard struct {
	closing    <-chan struct{}
	failures   atomic.Int32 // dequeues that failed in a row
	quietUntil atomic.Int64 // Unix nanoseconds
}

func newGuard(closing <-chan struct{}) *guard { return &guard{closing: closing} }

// DialHook changes nothing.
func (g *guard) DialHook(next redis.DialHook) redis.DialHook { return next }

// ProcessPipelineHook changes nothing: asynq sends its scripts one by one.
func (g *guard) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

// ProcessHook lets every command through, and looks after scripts that dequeue or end a task.
func (g *guard) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		keys := scriptKeys(cmd)
		switch {
		case keys == nil:
			return next(ctx, cmd)
		case isDequeue(keys):
			err := next(ctx, cmd)
			g.pace(ctx, err)
			return err
		case ctx.Err() != nil && namesActive(keys):
			return g.settle(ctx, cmd, next)
		default:
			return next(ctx, cmd)
		}
	}
}

// settle runs a script whose caller's time is over, under a context of its own. When Redis proves to be away, those
// that follow within quietTime fail without asking, so that a shutdown with many of them does not take minutes.
func (g *guard) settle(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
	if time.Now().UnixNano() < g.quietUntil.Load() {
		return next(ctx, cmd) // the caller's own error, at once
	}
	fresh, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	err := next(fresh, cmd)
	if unreachable(err) {
		g.quietUntil.Store(time.Now().Add(quietTime).UnixNano())
	}
	return err
}

// pace waits after a failed dequeue, and forgets the failures after a good one.
func (g *guard) pace(ctx context.Context, err error) {
	if err == nil || errors.Is(err, redis.Nil) || redis.HasErrorPrefix(err, "NOSCRIPT") {
		if g.failures.Load() != 0 {
			g.failures.Store(0)
		}
		return
	}
	timer := time.NewTimer(pause(g.failures.Add(1)))
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-g.closing:
	case <-ctx.Done():
	}
}

// pause returns the wait after the nth failure in a row: doubling, with up to a quarter more by chance so that a
// fleet does not come back in step.
func pause(n int32) time.Duration {
	d := min(firstPause<<min(n-1, 8), lastPause)
	return min(d+rand.N(d/4), lastPause)
}

// scriptKeys returns the KEYS of an EVAL or EVALSHA, nil for any other command.
func scriptKeys(cmd redis.Cmder) []any {
	args := cmd.Args()
	if len(args) < 4 {
		return nil
	}
	name, ok := args[0].(string)
	if !ok || !strings.EqualFold(name, "evalsha") && !strings.EqualFold(name, "eval") {
		return nil
	}
	n, ok := args[2].(int)
	if !ok || n < 1 || 3+n > len(args) {
		return nil
	}
	return args[3 : 3+n]
}

// isDequeue recognises asynq's dequeue by its keys: pending, paused, active, lease.
func isDequeue(keys []any) bool {
	return len(keys) == 4 && hasSuffix(keys[0], ":pending") && hasSuffix(keys[1], ":paused") &&
		hasSuffix(keys[2], ":active") && hasSuffix(keys[3], ":lease")
}

func namesActive(keys []any) bool {
	for _, key := range keys {
		if hasSuffix(key, ":active") {
			return true
		}
	}
	return false
}

func hasSuffix(key any, suffix string) bool {
	s, ok := key.(string)
	return ok && strings.HasSuffix(s, suffix)
}

// unreachable reports whether an error came from the way to Redis rather than from Redis.
func unreachable(err error) bool {
	var answer redis.Error
	return err != nil && !errors.As(err, &answer)
}
