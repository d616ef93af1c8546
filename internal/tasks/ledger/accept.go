package ledger

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"math/bits"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

//go:embed accept.lua
var acceptText string

var acceptScript = redis.NewScript(acceptText)

// Offer is a batch offered to the ledger.
type Offer struct {
	ID      tasks.BatchID
	Payload []byte
	Hashes  []int64 // RequestID.SeenHash of each of its requests, in order
}

// Answer is what became of an offer.
type Answer struct {
	// Open says that this very batch was accepted before and is open.
	Open bool
	// Taken are the indexes of requests that the job has already. If there are any, nothing of the offer was
	// accepted: build the batch again without them.
	Taken []int
}

// Accepted reports whether the offer was accepted by this call.
func (a Answer) Accepted() bool { return !a.Open && len(a.Taken) == 0 }

// Accept takes batches into a job, each whole or not at all, and puts their payloads into the outbox.
// The caller hands accepted batches to asynq and then calls Sent.
func (l *Ledger) Accept(ctx context.Context, job tasks.JobID, offers []Offer) ([]Answer, error) {
	k := keysOf(job)
	for {
		sets := l.sets(job)
		now, err := l.clock.now(ctx, l.rdb)
		if err != nil {
			return nil, fmt.Errorf("read the time of Redis: %w", err)
		}
		res, err := acceptScript.Run(ctx, l.rdb, []string{k.stats, k.open, k.outbox, liveKey},
			acceptArgs(job, sets, now, offers)...).Slice()
		if err != nil {
			return nil, fmt.Errorf("accept %d batches into job %s: %w", len(offers), job, err)
		}
		l.seenSets.Store(job, res[0].(int64))
		if len(res) == 3 {
			l.clock.set(res[2].(int64))
			return answers(res[1].([]any)), nil
		}
	}
}

// sets is the number of the job's seen sets as last heard of.
func (l *Ledger) sets(job tasks.JobID) int64 {
	if n, ok := l.seenSets.Load(job); ok {
		return n.(int64)
	}
	return seenSets
}

func acceptArgs(job tasks.JobID, sets, now int64, offers []Offer) []any {
	n := 4
	for i := range offers {
		n += 3 + 2*len(offers[i].Hashes)
	}
	args := make([]any, 0, n)
	args = append(args, keysOf(job).seen, seenLoad, sets, string(job))
	for i := range offers {
		o := &offers[i]
		args = append(args, string(o.ID), envelope(now, o.Payload), len(o.Hashes))
		for _, h := range o.Hashes {
			args = append(args, seenSet(h, sets), h)
		}
	}
	return args
}

// seenSet is the set that a hash belongs into when there are so many: accept.lua says how.
func seenSet(hash, sets int64) int64 {
	const digits = 1_000_000_000_000
	r := hash % digits
	if r < 0 {
		r = -r
	}
	power := int64(1) << (bits.Len64(uint64(sets)) - 1)
	if s := r % (power * 2); s < sets {
		return s
	}
	return r % power
}

func answers(results []any) []Answer {
	out := make([]Answer, len(results))
	for i, r := range results {
		for _, index := range r.([]any) {
			if n := index.(int64); n == 0 {
				out[i].Open = true
			} else {
				out[i].Taken = append(out[i].Taken, int(n-1))
			}
		}
	}
	return out
}

func wrap(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", fmt.Sprintf(format, args...), err)
}
