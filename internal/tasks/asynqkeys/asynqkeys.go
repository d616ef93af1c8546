// Package asynqkeys is the one place that reads and writes asynq's own keys. It is pinned to the layout of asynq
// v0.26.0; a test fails when another version is built in, so that an upgrade is checked here first.
//
// It promises that every script checks a task's state before it moves it, so a call that comes late, early or twice
// moves nothing that should stay.
package asynqkeys

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// Version is the asynq version whose layout this package knows.
const Version = "v0.26.0"

// DeadLease is how far ahead a lease must end for its task to count as owned. A living worker renews it every 5 s to
// 30 s ahead; below 18 s two renewals were missed.
const DeadLease = 18 * time.Second

//go:embed recover.lua
var recoverText string

var recoverScript = redis.NewScript(recoverText)

func prefix(queue string) string { return "asynq:{" + queue + "}:" }

// Recover puts active tasks of a queue whose lease ends within within of now back to the head of pending, at most
// limit of them, and returns their ids. now is the time of Redis.
func Recover(ctx context.Context, rdb redis.UniversalClient, queue string, now time.Time, within time.Duration, limit int) ([]string, error) {
	p := prefix(queue)
	ids, err := recoverScript.Run(ctx, rdb, []string{p + "active", p + "lease", p + "pending"},
		p+"t:", now.Add(within).Unix(), limit).StringSlice()
	if err != nil {
		return nil, fmt.Errorf("recover dead tasks of queue %s: %w", queue, err)
	}
	return ids, nil
}

// States returns the state of each task ("pending", "active", "scheduled", "retry", "archived", "completed", or ""
// when asynq has no such task).
func States(ctx context.Context, rdb redis.UniversalClient, queue string, ids []string) ([]string, error) {
	pipe := rdb.Pipeline()
	cmds := make([]*redis.StringCmd, len(ids))
	for i, id := range ids {
		cmds[i] = pipe.HGet(ctx, prefix(queue)+"t:"+id, "state")
	}
	if _, err := pipe.Exec(ctx); err != nil && err != redis.Nil {
		return nil, fmt.Errorf("read states of %d tasks of queue %s: %w", len(ids), queue, err)
	}
	states := make([]string, len(ids))
	for i, c := range cmds {
		states[i] = c.Val()
	}
	return states, nil
}

// CallLua defines two functions for scripts of others: asynq_call(queue, id, now) puts a waiting task at the head of its
// queue's pending list, asynq_alive(queue, id, now) tells whether a task is in living hands. now is Redis time in µs.
//
//go:embed call.lua
var CallLua string
