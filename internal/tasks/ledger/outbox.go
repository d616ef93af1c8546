package ledger

import (
	"context"
	_ "embed" // the script
	"fmt"
	"iter"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

//go:embed outbox.lua
var outboxText string

var outboxScript = redis.NewScript(outboxText)

// outboxChunk is how many batches are read from the outbox at once: their payloads take up to 8 KiB each.
const outboxChunk = 500

// Envelope is a batch that waits in the outbox.
type Envelope struct {
	Batch   tasks.BatchID
	Due     time.Time // zero = at once
	Payload []byte
}

// Sent clears batches from the outbox: asynq has them.
func (l *Ledger) Sent(ctx context.Context, job tasks.JobID, ids ...tasks.BatchID) error {
	if len(ids) == 0 {
		return nil
	}
	fields := make([]string, len(ids))
	for i, id := range ids {
		fields[i] = string(id)
	}
	err := l.rdb.HDel(ctx, keysOf(job).outbox, fields...).Err()
	return wrap(err, "clear %d batches from the outbox of job %s", len(ids), job)
}

// Outbox walks over the batches that have been in the outbox for at least age, some at a time and in no order. They may
// be cleared during the walk. A batch that is there all along comes at least once, now and then twice. An error ends
// the walk.
func (l *Ledger) Outbox(ctx context.Context, job tasks.JobID, age time.Duration) iter.Seq2[[]Envelope, error] {
	k := keysOf(job)
	return func(yield func([]Envelope, error) bool) {
		for at := "0"; ; {
			res, err := outboxScript.Run(ctx, l.rdb, []string{k.outbox}, at, age.Milliseconds(), outboxChunk).Slice()
			if err != nil {
				yield(nil, fmt.Errorf("list the outbox of job %s: %w", job, err))
				return
			}
			for ids := range slices.Chunk(texts(res[1].([]any)), outboxChunk) { // a step may find more than asked for
				envelopes, err := l.envelopes(ctx, job, ids)
				if err != nil {
					yield(nil, err)
					return
				}
				if len(envelopes) > 0 && !yield(envelopes, nil) {
					return
				}
			}
			if at = res[0].(string); at == "0" {
				return
			}
		}
	}
}

// envelopes reads batches of the outbox, leaving out those sent meanwhile.
func (l *Ledger) envelopes(ctx context.Context, job tasks.JobID, ids []string) ([]Envelope, error) {
	values, err := l.rdb.HMGet(ctx, keysOf(job).outbox, ids...).Result()
	if err != nil {
		return nil, fmt.Errorf("read the outbox of job %s: %w", job, err)
	}
	var out []Envelope
	for i, id := range ids {
		value, ok := values[i].(string)
		if !ok {
			continue
		}
		e, err := parseEnvelope(tasks.BatchID(id), value)
		if err != nil {
			return nil, fmt.Errorf("outbox of job %s: %w", job, err)
		}
		out = append(out, e)
	}
	return out, nil
}

// envelope is a batch that is due at once, as it stands in the outbox: "DUE|SINCE|payload", both in Unix milliseconds.
func envelope(since int64, payload []byte) []byte {
	b := append(make([]byte, 0, len(payload)+24), "0|"...)
	b = append(strconv.AppendInt(b, since, 10), '|')
	return append(b, payload...)
}

// parseEnvelope reads what envelope and the scripts put into the outbox.
func parseEnvelope(id tasks.BatchID, value string) (Envelope, error) {
	due, rest, _ := strings.Cut(value, "|")
	_, payload, ok := strings.Cut(rest, "|")
	ms, err := strconv.ParseInt(due, 10, 64)
	if !ok || err != nil {
		return Envelope{}, fmt.Errorf("batch %s: not an envelope", id)
	}
	e := Envelope{Batch: id, Payload: []byte(payload)}
	if ms > 0 {
		e.Due = time.UnixMilli(ms)
	}
	return e, nil
}

func texts(values []any) []string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = v.(string)
	}
	return out
}
