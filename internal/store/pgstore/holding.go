package pgstore

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A part is held by a lease, judged by the server's clock: a connection for each, as a lock would need, is too much
// for a download of hours.
const (
	leaseTime  = 20 * time.Second
	renewEvery = 5 * time.Second
)

var errPartEnded = errors.New("the part was released")

// holdings renews the leases of all parts in this Store's hands, in one goroutine that runs while there are any.
type holdings struct {
	s       *Store
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	held   map[key]bool
	stop   context.CancelFunc // of the goroutine, nil while there is none
}

func (h *holdings) add(holder key) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return errClosed
	}
	if h.held == nil {
		h.held = make(map[key]bool)
	}
	h.held[holder] = true
	if h.stop == nil {
		ctx, stop := context.WithCancel(context.Background())
		h.stop = stop
		h.running.Go(func() { h.renew(ctx) })
	}
	return nil
}

func (h *holdings) remove(holder key) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.held, holder)
	if len(h.held) == 0 && h.stop != nil {
		h.stop()
		h.stop = nil
	}
}

// renew fails silently: whoever lost a part learns it with the next bytes.
func (h *holdings) renew(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		h.mu.Lock()
		holders := slices.Collect(maps.Keys(h.held))
		h.mu.Unlock()
		call, cancel := context.WithTimeout(ctx, callLimit)
		_, _ = h.s.pool.Exec(call, `UPDATE parts SET held_until = now() + make_interval(secs => $2) WHERE holder = ANY ($1::uuid[])`,
			holders, leaseTime.Seconds())
		cancel()
	}
}

// close stops renewing: what is still held can be taken by others when its lease is over.
func (h *holdings) close() {
	h.mu.Lock()
	h.closed = true
	if h.stop != nil {
		h.stop()
	}
	h.stop = nil
	h.mu.Unlock()
	h.running.Wait()
}

// Release ends the holding and keeps the part. What cannot be written any more is lost.
func (p *part) Release() error {
	if p.ended {
		return nil
	}
	var err error
	if p.err == nil && p.Size() > 0 {
		err = p.flush()
	}
	p.end()
	return errors.Join(err, p.letGo(context.Background()))
}

// letGo ends the lease. Of a part without bytes nothing stays; whether it has any the server knows better, since the
// answer to the first append may have been lost.
func (p *part) letGo(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if p.size == 0 {
		gone, err := p.s.async(ctx, `DELETE FROM parts WHERE key = $1 AND holder = $2 AND size = 0`, p.key, p.holder)
		if err != nil || gone > 0 {
			return trouble("release part", err)
		}
	}
	_, err := p.s.async(ctx, `UPDATE parts SET holder = NULL, held_until = '-infinity' WHERE key = $1 AND holder = $2`, p.key, p.holder)
	return trouble("release part", err)
}

// Drop removes the part and ends the holding.
func (p *part) Drop() error {
	if p.ended {
		return nil
	}
	if err := p.remove(); err != nil {
		return fmt.Errorf("drop part %s: %w", p.request, err)
	}
	p.end()
	return nil
}

func (p *part) remove() error {
	return p.change(func(ctx context.Context, tx pgx.Tx) error {
		err := oneRow(tx.Exec(ctx, `DELETE FROM parts WHERE key = $1 AND holder = $2`, p.key, p.holder))
		if err == nil { // also where no rows are known: the answer to the first append may have been lost
			_, err = tx.Exec(ctx, `DELETE FROM bodies WHERE owner = $1`, p.key)
		}
		return err
	})
}

// end gives up what is in memory, and the renewal.
func (p *part) end() {
	p.ended = true
	if p.buf != nil {
		putBuffer(p.buf)
		p.buf = nil
	}
	p.s.holdings.remove(p.holder)
}

// change runs a transaction that has a limit in time. An error of our own comes back as it is.
func (p *part) change(do func(context.Context, pgx.Tx) error) error {
	return trouble("change part", p.s.remove(context.Background(), do))
}

// oneRow demands that a statement found the part in the holder's hands.
func oneRow(tag pgconn.CommandTag, err error) error {
	if err == nil && tag.RowsAffected() != 1 {
		return errLost
	}
	return err
}

// sweepParts removes parts that nobody holds and nobody has touched for that long.
func (s *Store) sweepParts(ctx context.Context, job string, olderThan time.Duration) (removed int, err error) {
	var keys []key
	err = s.page(ctx, `SELECT key FROM parts WHERE job = $1 AND held_until < now() AND touched_at <= now() - make_interval(secs => $2)`,
		[]any{job, olderThan.Seconds()}, func(rows pgx.Rows) (bool, error) {
			var k key
			err := rows.Scan(&k)
			keys = append(keys, k)
			return true, err
		})
	for _, k := range keys {
		if err != nil {
			break
		}
		err = s.sweepPart(ctx, k)
		removed++
	}
	return removed, err
}

func (s *Store) sweepPart(ctx context.Context, k key) error {
	err := s.remove(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM parts WHERE key = $1 AND held_until < now()`, k)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM bodies WHERE owner = $1`, k)
		return err
	})
	return trouble("remove a part that nobody came for", err)
}
