package enqueuer

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/faults"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

const (
	offersPerCall = 32 // batches accepted by one script call: round trips and script starts become noise
	senders       = 8  // calls under way at once
	// redisPatience is how long an unreachable Redis is waited for before the enqueuer gives up and says how to go on.
	redisPatience = time.Minute
)

// sender accepts batches into the ledger and hands them to asynq, several calls at a time.
type sender struct {
	job        tasks.JobID
	queue      string
	ledger     *ledger.Ledger
	dispatcher *dispatch.Dispatcher

	ctx    context.Context // of the run, which start begins and wait ends
	offers chan []batch
	next   []batch
	wg     sync.WaitGroup
	once   sync.Once
	err    error
	broken atomic.Bool

	underWay sync.Map // ids of the batches in the hands of a sender

	accepted, duplicates, batches, conditional atomic.Int64
}

func (s *sender) start(ctx context.Context) {
	s.ctx = ctx
	s.offers = make(chan []batch, senders)
	for range senders {
		s.wg.Go(func() {
			for group := range s.offers {
				if s.failed() {
					continue
				}
				if err := s.send(ctx, group); err != nil {
					s.once.Do(func() { s.err = err })
					s.broken.Store(true)
				}
			}
		})
	}
}

// offer queues a batch. It blocks while all senders are busy.
func (s *sender) offer(b batch) {
	if s.next = append(s.next, b); len(s.next) == offersPerCall {
		s.flush()
	}
}

// flush queues what waits for its call to be full.
func (s *sender) flush() {
	if len(s.next) > 0 {
		s.offers <- s.next
		s.next = nil
	}
}

func (s *sender) failed() bool { return s.broken.Load() }

// wait sends what is left and returns the first error.
func (s *sender) wait() error {
	s.flush()
	close(s.offers)
	s.wg.Wait()
	if s.err != nil {
		return s.err
	}
	if s.ctx.Err() != nil {
		return context.Cause(s.ctx)
	}
	return nil
}

// send accepts and enqueues batches; those refused are built again without what the job has.
func (s *sender) send(ctx context.Context, batches []batch) error {
	for len(batches) > 0 {
		offers, err := s.form(batches)
		if err != nil {
			return err
		}
		batches, err = s.sendOnce(ctx, offers)
		s.release(offers)
		if err != nil {
			return err
		}
	}
	return nil
}

// sendOnce returns what is left of the batches that were refused.
func (s *sender) sendOnce(ctx context.Context, offers []offer) (rest []batch, err error) {
	faults.Point("before-accept")
	answers, ours, err := s.accept(ctx, offers)
	if err != nil {
		return nil, err
	}
	faults.Point("after-accept")
	var accepted []ledger.Envelope
	for i, a := range answers {
		n := int64(len(offers[i].batch.pending))
		switch {
		case a.Accepted(), ours[offers[i].ID]:
			s.accepted.Add(n)
			s.batches.Add(1)
			s.conditional.Add(conditional(offers[i].batch))
			accepted = append(accepted, ledger.Envelope{Batch: offers[i].ID, Payload: offers[i].Payload})
		case a.Open:
			s.duplicates.Add(n)
		default:
			s.duplicates.Add(int64(len(a.Taken)))
			if left := without(offers[i].batch, a.Taken); len(left.pending) > 0 {
				rest = append(rest, left)
			}
		}
	}
	if err := s.retry(ctx, func() error { return s.dispatcher.Send(ctx, s.job, s.queue, accepted) }); err != nil {
		return nil, err
	}
	faults.Point("after-send")
	return rest, nil
}

// accept offers batches. ours are those that are open and still in the outbox: a call whose answer was lost accepted
// them, or a run that was killed before it had handed them on.
func (s *sender) accept(ctx context.Context, offers []offer) (answers []ledger.Answer, ours map[tasks.BatchID]bool, err error) {
	call := make([]ledger.Offer, len(offers))
	for i := range offers {
		call[i] = offers[i].Offer
	}
	err = s.retry(ctx, func() (err error) {
		answers, err = s.ledger.Accept(ctx, s.job, call)
		return err
	})
	var open []string
	for i, a := range answers {
		if a.Open {
			open = append(open, string(call[i].ID))
		}
	}
	if err != nil || len(open) == 0 {
		return answers, nil, err
	}
	var waiting []bool
	err = s.retry(ctx, func() (err error) {
		waiting, err = s.ledger.InOutbox(ctx, s.job, open)
		return err
	})
	ours = map[tasks.BatchID]bool{}
	for i, w := range waiting {
		ours[tasks.BatchID(open[i])] = w
	}
	return answers, ours, err
}

// retry repeats op while Redis cannot be reached, for redisPatience.
func (s *sender) retry(ctx context.Context, op func() error) error {
	began, wait := time.Now(), 100*time.Millisecond
	for {
		err := op()
		if err == nil || ctx.Err() != nil {
			return err
		}
		if time.Since(began) > redisPatience {
			return fmt.Errorf("gave up after %s: %w", redisPatience, err)
		}
		select {
		case <-time.After(wait):
			wait = min(2*wait, 5*time.Second)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// offer is a batch as it is offered to the ledger.
type offer struct {
	ledger.Offer
	batch batch
}

// form writes batches as offers. A batch that is the same as one under way here is a duplicate of it, whatever becomes
// of that.
func (s *sender) form(batches []batch) ([]offer, error) {
	offers := make([]offer, 0, len(batches))
	for _, b := range batches {
		o, err := s.write(b)
		if err != nil {
			s.release(offers)
			return nil, err
		}
		if _, taken := s.underWay.LoadOrStore(o.ID, true); taken {
			s.duplicates.Add(int64(len(b.pending)))
			continue
		}
		offers = append(offers, offer{Offer: o, batch: b})
	}
	return offers, nil
}

func (s *sender) release(offers []offer) {
	for i := range offers {
		s.underWay.Delete(offers[i].ID)
	}
}

func (s *sender) write(b batch) (ledger.Offer, error) {
	t := tasks.Batch{Job: s.job, Host: b.host, Requests: make([]tasks.Request, len(b.pending))}
	hashes := make([]int64, len(b.pending))
	size := 128
	for i := range b.pending {
		p := &b.pending[i]
		if hashes[i] = p.hash; p.request != nil {
			t.Requests[i] = *p.request
		} else {
			t.Requests[i].URL = p.url
		}
		size += p.size()
	}
	payload, err := t.AppendPayload(make([]byte, 0, size))
	if err != nil {
		return ledger.Offer{}, err
	}
	return ledger.Offer{ID: tasks.ListedBatchID(s.job, hashes), Payload: payload, Hashes: hashes}, nil
}

// conditional is how many requests of a batch ask only for what has changed since an earlier job.
func conditional(b batch) (n int64) {
	for i := range b.pending {
		if r := b.pending[i].request; r != nil && r.Since != nil {
			n++
		}
	}
	return n
}

// without returns the batch without the requests at the given indexes.
func without(b batch, taken []int) batch {
	left := batch{host: b.host, pending: make([]pending, 0, len(b.pending)-len(taken))}
	for i, p := range b.pending {
		if len(taken) > 0 && taken[0] == i {
			taken = taken[1:]
			continue
		}
		left.pending = append(left.pending, p)
	}
	return left
}
