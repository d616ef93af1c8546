package ledger_test

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// failure is the finish of a batch of one whose last attempt failed, and its note.
func failure(job tasks.JobID, o ledger.Offer, n, generation int) ledger.Finishing {
	id := requestID(job, n)
	return ledger.Finishing{Job: job, Batch: o.ID, Recorded: 1, Counters: counters("failed", 1, 0), Request: id, Generation: generation,
		Archive: &ledger.Note{Request: id, Generation: generation, Outcome: "failed", Class: "reset", Error: "reset"}}
}

func TestAFinishOfAnEarlierGenerationLeavesTheReplayOpen(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("slept")
		ctx, l := t.Context(), newJob(t, rdb, job)
		o := offer(job, 1)
		accept(t, l, job, o)
		old := failure(job, o, 1, 0)
		if first, _, err := l.Finish(ctx, old); err != nil || !first {
			t.Fatalf("finish = %v, %v", first, err)
		}
		d, err := l.Begin(ctx, ledger.Start{Job: job, Batch: o.ID, Request: requestID(job, 1), Token: "t"})
		if err != nil || d.State != ledger.BatchArchived {
			t.Fatalf("begin = %+v, %v", d, err)
		}
		if ok, err := l.Reopen(ctx, job, o.ID, d, 0); err != nil || !ok {
			t.Fatalf("reopen = %v, %v", ok, err)
		}
		if first, ended, err := l.Finish(ctx, old); err != nil || first || ended {
			t.Errorf("a finish that slept over the replay = %v, %v, %v, want nothing done", first, ended, err)
		}
		if s := status(t, l, job); s.Open != 1 || s.Failed != 0 {
			t.Errorf("status %+v, want the replay open", s)
		}
		if first, _, err := l.Finish(ctx, failure(job, o, 1, 1)); err != nil || !first {
			t.Errorf("the replay's own finish = %v, %v", first, err)
		}
	})
}

func TestARecordWhoseBatchIsNotFinishedIsNotTakenAgain(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("early")
		ctx, l := t.Context(), newJob(t, rdb, job)
		o := offer(job, 1)
		accept(t, l, job, o)
		again := ledger.Retake{Request: requestID(job, 1), Generation: 1, Payload: o.Payload, Outcome: "failed", Class: "reset", From: o.ID}
		if _, taken, err := l.Retake(ctx, job, again); err != nil || taken {
			t.Fatalf("retake beside the open batch = %v, %v, want it refused", taken, err)
		}
		if _, _, err := l.Finish(ctx, failure(job, o, 1, 0)); err != nil {
			t.Fatal(err)
		}
		if _, taken, err := l.Retake(ctx, job, again); err != nil || !taken {
			t.Errorf("retake after the finish = %v, %v, want it taken", taken, err)
		}
	})
}
