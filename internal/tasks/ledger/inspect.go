package ledger

import (
	"context"
	_ "embed" // the scripts
	"fmt"
	"strconv"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

//go:embed seen.lua
var seenText string

//go:embed restore.lua
var restoreText string

var (
	seenScript    = redis.NewScript(seenText)
	restoreScript = redis.NewScript(restoreText)
)

// OpenBatches returns every batch in the open set with its number of requests.
func (l *Ledger) OpenBatches(ctx context.Context, job tasks.JobID) (map[tasks.BatchID]int, error) {
	open := map[tasks.BatchID]int{}
	it := l.rdb.HScan(ctx, keysOf(job).open, 0, "", 1000).Iterator()
	for it.Next(ctx) {
		id := it.Val()
		if !it.Next(ctx) {
			break
		}
		n, err := strconv.Atoi(it.Val())
		if err != nil {
			return nil, fmt.Errorf("open set of job %s: batch %s: %w", job, id, err)
		}
		open[tasks.BatchID(id)] = n
	}
	return open, wrap(it.Err(), "list open batches of job %s", job)
}

// Generations returns the generation of every request that was taken more than once.
func (l *Ledger) Generations(ctx context.Context, job tasks.JobID) (map[string]int, error) {
	values, err := l.rdb.HGetAll(ctx, keysOf(job).generations).Result()
	if err != nil {
		return nil, fmt.Errorf("read the generations of job %s: %w", job, err)
	}
	generations := make(map[string]int, len(values))
	for id, text := range values {
		if generations[id], err = strconv.Atoi(text); err != nil {
			return nil, fmt.Errorf("generation of request %s of job %s: %w", id, job, err)
		}
	}
	return generations, nil
}

// InOutbox reports which batches wait in the outbox.
func (l *Ledger) InOutbox(ctx context.Context, job tasks.JobID, ids []string) ([]bool, error) {
	in := make([]bool, len(ids))
	if len(ids) == 0 {
		return in, nil
	}
	values, err := l.rdb.HMGet(ctx, keysOf(job).outbox, ids...).Result()
	if err != nil {
		return nil, fmt.Errorf("read the outbox of job %s: %w", job, err)
	}
	for i, v := range values {
		in[i] = v != nil
	}
	return in, nil
}

// Unseen returns the indexes of those hashes that the job has never accepted.
func (l *Ledger) Unseen(ctx context.Context, job tasks.JobID, hashes []int64) ([]int, error) {
	k := keysOf(job)
	args := make([]any, 0, len(hashes)+1)
	args = append(args, k.seen)
	for _, h := range hashes {
		args = append(args, h)
	}
	found, err := seenScript.Run(ctx, l.rdb, []string{k.stats}, args...).Int64Slice()
	if err != nil {
		return nil, fmt.Errorf("look up %d requests of job %s: %w", len(hashes), job, err)
	}
	missing := make([]int, len(found))
	for i, n := range found {
		missing[i] = int(n - 1)
	}
	return missing, nil
}

// Restoration puts a job back into an empty ledger. Make it with Restore, add to it, and Close it.
type Restoration struct {
	ledger *Ledger
	job    tasks.JobID
	sets   int

	hashes      []int64
	generations []any
	open        []any
	counters    map[string]int64
	accepted    int64
	openCount   int64
}

// Restore begins to put a job back into the ledger, which must not know anything of it but its spec. requests is about
// how many it has.
func (l *Ledger) Restore(job tasks.JobID, requests int) *Restoration {
	sets := seenSets
	for sets*seenLoad < requests {
		sets *= 2
	}
	return &Restoration{ledger: l, job: job, sets: sets, counters: map[string]int64{}}
}

// restoreChunk is how many entries go into one script call.
const restoreChunk = 1000

// Recorded adds a request that has its record.
func (r *Restoration) Recorded(ctx context.Context, id tasks.RequestID, generation int, counters ...Counter) error {
	h, err := id.SeenHash()
	if err != nil {
		return err
	}
	r.hashes = append(r.hashes, h)
	if generation > 0 {
		r.generations = append(r.generations, string(id), generation)
	}
	for _, c := range counters {
		r.counters[c.Name] += c.Add
	}
	r.accepted++
	return r.flush(ctx, restoreChunk)
}

// Open adds a batch that is still to be worked, with the ids of its requests.
func (r *Restoration) Open(ctx context.Context, c Child, ids []tasks.RequestID) error {
	for _, id := range ids {
		h, err := id.SeenHash()
		if err != nil {
			return err
		}
		r.hashes = append(r.hashes, h)
	}
	r.accepted += int64(len(ids))
	r.openCount += int64(c.Requests)
	r.open = append(r.open, string(c.ID), c.Requests, c.Due, c.Payload)
	return r.flush(ctx, restoreChunk)
}

func (r *Restoration) flush(ctx context.Context, at int) error {
	if len(r.hashes)+len(r.open) < at {
		return nil
	}
	k := keysOf(r.job)
	args := []any{k.seen, r.sets, len(r.hashes)}
	for _, h := range r.hashes {
		args = append(args, h)
	}
	args = append(args, len(r.generations)/2)
	args = append(append(args, r.generations...), r.open...)
	err := restoreScript.Run(ctx, r.ledger.rdb, []string{k.stats, k.open, k.outbox, k.generations}, args...).Err()
	r.hashes, r.generations, r.open = r.hashes[:0], r.generations[:0], r.open[:0]
	return wrap(err, "restore job %s", r.job)
}

// Close writes what is left and sets the counters.
func (r *Restoration) Close(ctx context.Context) error {
	if err := r.flush(ctx, 0); err != nil {
		return err
	}
	fields := []any{"accepted", r.accepted, "open", r.openCount, "seen_sets", r.sets}
	for name, n := range r.counters {
		fields = append(fields, name, n)
	}
	return wrap(r.ledger.rdb.HSet(ctx, keysOf(r.job).stats, fields...).Err(), "restore job %s", r.job)
}
