package ledger

import (
	"context"
	_ "embed" // the script
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

//go:embed large.lua
var largeText string

var largeScript = redis.NewScript(largeText)

// Large is how far the transfer of one large body is. It is for people, and tells the next attempt that the beginning of
// the body is kept; nothing is counted by it.
type Large struct {
	URL    string        `json:"url"`
	Have   int64         `json:"have"`   // bytes, as sent; of a body that was cut, those that are kept
	Length int64         `json:"length"` // of the whole
	At     int64         `json:"at"`     // when this was noted, Unix milliseconds
	Worker string        `json:"worker"`
	Cut    bool          `json:"cut,omitempty"` // nobody is at it now: another attempt goes on from what is kept, if anything is
	Batch  tasks.BatchID `json:"-"`             // whose request it is of, for NoteLarge only
}

// NoteLarge notes how far large bodies of a job are. Of a job that is not here nothing is noted, nor of a batch that is
// not open: a note that comes after Finish and ForgetLarge would stay.
func (l *Ledger) NoteLarge(ctx context.Context, job tasks.JobID, bodies map[tasks.RequestID]Large) error {
	if len(bodies) == 0 {
		return nil
	}
	args := make([]any, 0, 3*len(bodies))
	for id, b := range bodies {
		data, err := json.Marshal(b)
		if err != nil {
			return fmt.Errorf("note large body of job %s: %w", job, err)
		}
		args = append(args, string(id), string(b.Batch), data)
	}
	k := keysOf(job)
	err := largeScript.Run(ctx, l.rdb, []string{k.stats, k.large, k.open}, args...).Err()
	return wrap(err, "note %d large bodies of job %s", len(bodies), job)
}

// ForgetLarge drops the notes on large bodies; all of the job's when no request is named.
func (l *Ledger) ForgetLarge(ctx context.Context, job tasks.JobID, requests ...tasks.RequestID) error {
	k := keysOf(job)
	if len(requests) == 0 {
		return wrap(l.rdb.Del(ctx, k.large).Err(), "forget the large bodies of job %s", job)
	}
	ids := make([]string, len(requests))
	for i, id := range requests {
		ids[i] = string(id)
	}
	return wrap(l.rdb.HDel(ctx, k.large, ids...).Err(), "forget %d large bodies of job %s", len(ids), job)
}

// LargeOf returns which of these requests have a large body under way, or the beginning of one.
func (l *Ledger) LargeOf(ctx context.Context, job tasks.JobID, requests []tasks.RequestID) (map[tasks.RequestID]bool, error) {
	ids := make([]string, len(requests))
	for i, id := range requests {
		ids[i] = string(id)
	}
	values, err := l.rdb.HMGet(ctx, keysOf(job).large, ids...).Result()
	if err != nil {
		return nil, fmt.Errorf("look for large bodies of job %s: %w", job, err)
	}
	found := map[tasks.RequestID]bool{}
	for i, v := range values {
		if v != nil {
			found[requests[i]] = true
		}
	}
	return found, nil
}

// largeShown is how many large bodies are listed; a job rarely has more under way at once.
const largeShown = 1000

// LargeBodies returns the large bodies of a job that are under way or were cut, at most a thousand of them.
func (l *Ledger) LargeBodies(ctx context.Context, job tasks.JobID) (map[tasks.RequestID]Large, error) {
	bodies := map[tasks.RequestID]Large{}
	it := l.rdb.HScan(ctx, keysOf(job).large, 0, "", 100).Iterator()
	for len(bodies) < largeShown && it.Next(ctx) {
		id := tasks.RequestID(it.Val())
		if !it.Next(ctx) {
			break
		}
		var b Large
		if err := json.Unmarshal([]byte(it.Val()), &b); err != nil {
			return bodies, fmt.Errorf("large body of request %s of job %s: %w", id, job, err)
		}
		bodies[id] = b
	}
	if err := it.Err(); err != nil && !errors.Is(err, redis.Nil) {
		return bodies, fmt.Errorf("list the large bodies of job %s: %w", job, err)
	}
	return bodies, nil
}

// Time is when this was noted.
func (b Large) Time() time.Time { return time.UnixMilli(b.At) }
