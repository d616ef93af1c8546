package dispatch_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const job = tasks.JobID("list")

// post is a job with its outbox, and asynq.
type post struct {
	t          *testing.T
	ledger     *ledger.Ledger
	dispatcher *dispatch.Dispatcher
	inspector  *asynq.Inspector
	accepted   int
}

func onBoth(t *testing.T, test func(*testing.T, *post)) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) { test(t, open(t, rdb)) })
}

func open(t *testing.T, rdb redis.UniversalClient) *post {
	t.Helper()
	l := ledger.New(rdb)
	spec := tasks.DefaultSpec()
	spec.Queue = "low"
	if _, _, err := l.Create(t.Context(), job, spec, nil); err != nil {
		t.Fatal(err)
	}
	return &post{t: t, ledger: l, dispatcher: dispatch.New(rdb, l), inspector: asynq.NewInspectorFromRedisClient(rdb)}
}

// accept puts n batches into the outbox.
func (p *post) accept(n int) []ledger.Envelope {
	p.t.Helper()
	var out []ledger.Envelope
	for range n {
		p.accepted++
		o := ledger.Offer{ID: tasks.BatchID(fmt.Sprintf("batch-%d", p.accepted)), Payload: fmt.Appendf(nil, "payload %d", p.accepted),
			Hashes: []int64{int64(p.accepted)}}
		if answers, err := p.ledger.Accept(p.t.Context(), job, []ledger.Offer{o}); err != nil || !answers[0].Accepted() {
			p.t.Fatalf("accept: %+v, %v", answers, err)
		}
		out = append(out, ledger.Envelope{Batch: o.ID, Payload: o.Payload})
	}
	return out
}

// want checks how many tasks asynq has pending, and how many batches are left in the outbox.
func (p *post) want(pending, outbox int) {
	p.t.Helper()
	info := &asynq.QueueInfo{}
	queues, err := p.inspector.Queues()
	if slices.Contains(queues, "low") {
		info, err = p.inspector.GetQueueInfo("low")
	}
	if err != nil {
		p.t.Fatal(err)
	}
	s, err := p.ledger.Status(p.t.Context(), job)
	if err != nil || info.Size != pending || s.Outbox != int64(outbox) {
		p.t.Errorf("asynq has %d tasks, the outbox %d (%v); want %d and %d", info.Size, s.Outbox, err, pending, outbox)
	}
}

func TestABatchIsOneTaskHoweverOftenItIsSent(t *testing.T) {
	onBoth(t, func(t *testing.T, p *post) {
		batches := p.accept(5)
		for range 3 {
			if err := p.dispatcher.Send(t.Context(), job, "low", batches); err != nil {
				t.Fatal(err)
			}
			p.want(5, 0)
		}
		if err := p.dispatcher.Send(t.Context(), job, "low", nil); err != nil {
			t.Errorf("nothing to send: %v", err)
		}
	})
}

func TestATaskOutlivesAsynqsOwnLimits(t *testing.T) {
	onBoth(t, func(t *testing.T, p *post) {
		batch := p.accept(1)
		if err := p.dispatcher.Send(t.Context(), job, "low", batch); err != nil {
			t.Fatal(err)
		}
		info, err := p.inspector.GetTaskInfo("low", "batch-1")
		if err != nil {
			t.Fatal(err)
		}
		if info.Type != tasks.TaskType || string(info.Payload) != "payload 1" || info.MaxRetry < 2000 || info.Timeout < 24*time.Hour ||
			info.Retention != 0 || info.State != asynq.TaskStatePending {
			t.Errorf("task = %+v", info)
		}
	})
}

func TestABatchThatIsDueLaterIsScheduled(t *testing.T) {
	onBoth(t, func(t *testing.T, p *post) {
		batch := p.accept(1)
		batch[0].Due = time.Now().Add(time.Hour).Truncate(time.Second)
		if err := p.dispatcher.Send(t.Context(), job, "low", batch); err != nil {
			t.Fatal(err)
		}
		info, err := p.inspector.GetTaskInfo("low", "batch-1")
		if err != nil || info.State != asynq.TaskStateScheduled || !info.NextProcessAt.Equal(batch[0].Due) {
			t.Errorf("task = %+v, %v; want it at %s", info, err, batch[0].Due)
		}
	})
}

func TestDrainTakesAllThatIsOldEnough(t *testing.T) {
	onBoth(t, func(t *testing.T, p *post) {
		p.accept(1203) // more than two chunks
		if n, err := p.dispatcher.Drain(t.Context(), job, time.Hour); err != nil || n != 0 {
			t.Errorf("an hour old: %d, %v", n, err)
		}
		p.want(0, 1203)
		if n, err := p.dispatcher.Drain(t.Context(), job, 0); err != nil || n != 1203 {
			t.Errorf("drained %d, %v; want 1203", n, err)
		}
		p.want(1203, 0)
		if n, err := p.dispatcher.Drain(t.Context(), job, 0); err != nil || n != 0 {
			t.Errorf("drained again: %d, %v", n, err)
		}
		if _, err := p.dispatcher.Drain(t.Context(), "nobody", 0); !errors.Is(err, ledger.ErrUnknownJob) {
			t.Errorf("unknown job: %v", err)
		}
	})
}

// A producer that dies between asynq and the outbox leaves batches in both.
func TestACrashBetweenEnqueueAndClearDoesNoHarm(t *testing.T) {
	onBoth(t, func(t *testing.T, p *post) {
		batches := p.accept(3)
		if err := p.dispatcher.Send(t.Context(), job, "low", batches[:2]); err != nil {
			t.Fatal(err)
		}
		again := p.accept(0)
		for _, b := range batches[:2] { // back into the outbox, as if they had never been cleared
			f := ledger.Finishing{Job: job, Batch: "parent-of-" + b.Batch, Children: []ledger.Child{{ID: b.Batch, Requests: 1, Payload: b.Payload}}}
			o := ledger.Offer{ID: f.Batch, Hashes: []int64{int64(1000 + len(again))}}
			if _, err := p.ledger.Accept(t.Context(), job, []ledger.Offer{o}); err != nil {
				t.Fatal(err)
			}
			if first, _, err := p.ledger.Finish(t.Context(), f); err != nil || !first {
				t.Fatalf("finish: %v, %v", first, err)
			}
			again = append(again, b)
		}
		p.want(2, 3)
		if n, err := p.dispatcher.Drain(t.Context(), job, 0); err != nil || n != 3 {
			t.Errorf("drained %d, %v; want 3", n, err)
		}
		p.want(3, 0)
	})
}

func TestWhatCannotBeSentStaysInTheOutbox(t *testing.T) {
	onBoth(t, func(t *testing.T, p *post) {
		batches := p.accept(3)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := p.dispatcher.Send(ctx, job, "low", batches); !errors.Is(err, context.Canceled) {
			t.Errorf("error = %v", err)
		}
		s, err := p.ledger.Status(t.Context(), job)
		if err != nil || s.Outbox != 3 {
			t.Errorf("outbox %d, %v; want 3", s.Outbox, err)
		}
		if _, err := p.dispatcher.Drain(t.Context(), job, 0); err != nil {
			t.Fatal(err)
		}
		p.want(3, 0)
	})
}

func TestConcurrentDrainsSendEachBatchOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, p *post) {
		p.accept(300)
		done := make(chan error)
		for range 4 {
			go func() {
				_, err := p.dispatcher.Drain(t.Context(), job, 0)
				done <- err
			}()
		}
		for range 4 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		p.want(300, 0)
	})
}
