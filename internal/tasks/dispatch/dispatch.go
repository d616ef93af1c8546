// Package dispatch hands accepted batches from a job's outbox to asynq.
//
// It promises that a batch is handed over at least once and that handing it over twice does no harm: a batch's id is
// its task's id, so asynq takes it once, and the outbox is cleared only afterwards.
package dispatch

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/errgroup"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/faults"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

const (
	// maxRetry is asynq's own limit. It stands above any number of attempts and replays of ours, because asynq
	// archives a task at its limit whatever its handler says (asynq v0.26.0, processor.go). The outcome table
	// ends tasks.
	maxRetry = 10_000
	// taskTimeout replaces asynq's 30 minutes for tasks that name none. What bounds a batch are its requests.
	taskTimeout = 7 * 24 * time.Hour
	// parallel is how many tasks of one call are on their way at once.
	parallel = 64
)

// Dispatcher is safe for use by many goroutines.
type Dispatcher struct {
	client *asynq.Client
	ledger *ledger.Ledger
}

// New returns a dispatcher that enqueues through rdb and clears outboxes of l.
func New(rdb redis.UniversalClient, l *ledger.Ledger) *Dispatcher {
	return &Dispatcher{client: asynq.NewClientFromRedisClient(pipelined(rdb)), ledger: l}
}

// pipelined returns rdb with commands of different goroutines sent together where it can: an enqueue is a small command,
// and half of its cost are the system calls of both sides. What it starts ends with rdb.
func pipelined(rdb redis.UniversalClient) redis.UniversalClient {
	client, ok := rdb.(*redis.Client)
	if !ok {
		return rdb
	}
	together, err := client.AutoPipeline()
	if err != nil {
		return rdb
	}
	return together
}

// Send hands batches to asynq and clears them from the outbox. On an error some may have been handed over; calling
// again does no harm.
func (d *Dispatcher) Send(ctx context.Context, job tasks.JobID, queue string, batches []ledger.Envelope) error {
	if len(batches) == 0 {
		return nil
	}
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	ids := make([]tasks.BatchID, len(batches))
	for i := range batches {
		ids[i] = batches[i].Batch
		group.Go(func() error { return d.enqueue(gctx, queue, &batches[i]) })
	}
	if err := group.Wait(); err != nil {
		return fmt.Errorf("hand %d batches of job %s to asynq: %w", len(batches), job, err)
	}
	faults.Point("after-enqueue")
	return d.ledger.Sent(ctx, job, ids...)
}

func (d *Dispatcher) enqueue(ctx context.Context, queue string, e *ledger.Envelope) error {
	options := []asynq.Option{
		asynq.TaskID(string(e.Batch)), asynq.Queue(queue), asynq.MaxRetry(maxRetry), asynq.Timeout(taskTimeout),
	}
	if !e.Due.IsZero() {
		options = append(options, asynq.ProcessAt(e.Due))
	}
	_, err := d.client.EnqueueContext(ctx, asynq.NewTask(tasks.TaskType, e.Payload), options...)
	if errors.Is(err, asynq.ErrTaskIDConflict) {
		return nil // it is there: an earlier try got through
	}
	return err
}

// Drain hands over what has been in the job's outbox for at least age, and returns how many batches that were.
func (d *Dispatcher) Drain(ctx context.Context, job tasks.JobID, age time.Duration) (int, error) {
	spec, err := d.ledger.Spec(ctx, job)
	if err != nil {
		return 0, err
	}
	total := 0
	for batches, err := range d.ledger.Outbox(ctx, job, age) {
		if err != nil {
			return total, err
		}
		if err := d.Send(ctx, job, spec.Queue, batches); err != nil {
			return total, err
		}
		total += len(batches)
	}
	return total, nil
}
