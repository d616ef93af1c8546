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
	offersPerCall = 16 // batches accepted by one script call: round trips and script starts become noise
	senders       = 4  // calls under way at once
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

	accepted, duplicates, batches atomic.Int64
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
		s.offers <- s.next
		s.next = nil
	}
}

func (s *sender) failed() bool { return s.broken.Load() }

// wait sends what is left and returns the first error.
func (s *sender) wait() error {
	if len(s.next) > 0 {
		s.offers <- s.next
		s.next = nil
	}
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
		offers := make([]ledger.Offer, len(batches))
		for i, b := range batches {
			var err error
			if offers[i], err = s.form(b); err != nil {
				return err
			}
		}
		faults.Point("before-accept")
		answers, retried, err := s.accept(ctx, offers)
		if err != nil {
			return err
		}
		faults.Point("after-accept")
		var accepted []ledger.Envelope
		var rest []batch
		for i, a := range answers {
			n := len(batches[i].pending)
			switch {
			case a.Accepted(), a.Open && retried:
				s.accepted.Add(int64(n))
				s.batches.Add(1)
				accepted = append(accepted, ledger.Envelope{Batch: offers[i].ID, Payload: offers[i].Payload})
			case a.Open:
				s.duplicates.Add(int64(n))
			default:
				s.duplicates.Add(int64(len(a.Taken)))
				if left := without(batches[i], a.Taken); len(left.pending) > 0 {
					rest = append(rest, left)
				}
			}
		}
		if err := s.retry(ctx, func() error { return s.dispatcher.Send(ctx, s.job, s.queue, accepted) }); err != nil {
			return err
		}
		faults.Point("after-send")
		batches = rest
	}
	return nil
}

// accept offers batches. Retried says that an earlier try failed, so what is found open may be its work.
func (s *sender) accept(ctx context.Context, offers []ledger.Offer) (answers []ledger.Answer, retried bool, err error) {
	tries := 0
	err = s.retry(ctx, func() (err error) {
		tries++
		answers, err = s.ledger.Accept(ctx, s.job, offers)
		return err
	})
	return answers, tries > 1, err
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

// form writes a batch as an offer.
func (s *sender) form(b batch) (ledger.Offer, error) {
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
