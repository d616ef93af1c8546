package pgstore

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
)

// errEnded is returned by a unit that was committed or discarded.
var errEnded = errors.New("the unit has ended")

// errSwept is returned for a unit whose bodies were taken for a dead worker's.
var errSwept = errors.New("its bodies were swept away meanwhile, as those of a worker that is gone")

// unit is a unit being written. Its records wait in memory for the commit (32 of them are about 32 KiB), and so do its
// small bodies up to heldBodies; larger ones are written to the server as they come. A Commit that failed may be tried
// again.
type unit struct {
	s         *Store
	job, name string
	key       key

	mu      sync.Mutex
	ended   bool
	records []byte            // rows of copyRecords
	line    []byte            // the last record as JSON, for its capacity
	count   int               // of records
	bodies  []byte            // rows of copyBodies
	begun   int               // bodies so far
	have    map[string]string // bodies by digest

	register   sync.Mutex // held while the row in writing is made
	tried      bool       // there may be a row in writing; guarded by mu
	registered bool       // there is one, unless it was swept; guarded by mu
}

// maxName is how long a record's id and job may be together, in bytes: an index has to hold them, of which a third of a
// page, 2704 bytes, is the limit.
const maxName = 2048

// Add takes a record. One that no line of JSON can hold, or an index, is refused with store.ErrRecord.
func (u *unit) Add(r *store.Record) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return fmt.Errorf("add record to unit %s: %w", u.name, errEnded)
	}
	if n := len(r.ID) + len(r.Job); n > maxName {
		return fmt.Errorf("add record %.80q: %w: its id and job have %d bytes, more than %d", r.ID, store.ErrRecord, n, maxName)
	}
	line, err := store.AppendRecord(u.line[:0], r)
	if err != nil {
		return fmt.Errorf("add record %.80q: %w (%w)", r.ID, store.ErrRecord, err)
	}
	u.line = line
	rows, err := appendRecord(u.records, u.key, u.count, r, line)
	if err != nil {
		return fmt.Errorf("add record %.80q: %w (%w)", r.ID, store.ErrRecord, err)
	}
	u.records = rows
	u.count++
	return nil
}

// Discard drops the unit and what it wrote.
func (u *unit) Discard() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil
	}
	return u.drop(true)
}

// drop ends the unit and, unless it won, removes what it wrote. The caller holds u.mu.
func (u *unit) drop(remove bool) error {
	u.ended = true
	u.records, u.line, u.bodies, u.have = nil, nil, nil, nil
	var err error
	if remove && u.tried {
		err = u.s.sweepUnit(context.Background(), u.key)
	}
	u.s.ended(u.key)
	return err
}

// enlist makes the row in writing that lets the unit have bodies before it is committed.
func (u *unit) enlist(ctx context.Context) error {
	u.register.Lock()
	defer u.register.Unlock()
	u.mu.Lock()
	done, ended := u.registered, u.ended
	u.tried = u.tried || !ended
	u.mu.Unlock()
	if ended {
		return errEnded
	}
	if done {
		return nil
	}
	_, err := u.s.pool.Exec(ctx, `INSERT INTO writing (owner, job, worker) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING`,
		u.key, u.job, u.s.worker)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.registered = true
	return nil
}

// sweepUnit removes the bodies of a unit that was not committed. The row in writing goes first: with it whoever still
// writes bodies, or commits, loses the right to, and only then is it certain which rows there are. A unit that was
// committed all the same had its row made by a call whose answer was lost, and wrote its bodies as it was committed.
func (s *Store) sweepUnit(ctx context.Context, k key) error {
	err := s.remove(ctx, func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `DELETE FROM writing WHERE owner = $1`, k)
		if err != nil || tag.RowsAffected() == 0 {
			return err
		}
		_, err = tx.Exec(ctx, `DELETE FROM bodies WHERE owner = $1 AND NOT EXISTS (SELECT FROM units WHERE key = $1)`, k)
		return err
	})
	return trouble("remove the bodies of a unit that was not committed", err)
}

// remove runs a transaction that may have many rows of bodies to go through.
func (s *Store) remove(ctx context.Context, do func(context.Context, pgx.Tx) error) error {
	ctx, cancel := context.WithTimeout(ctx, removeLimit)
	defer cancel()
	return pgx.BeginFunc(ctx, s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = '5min'`); err != nil {
			return err
		}
		return do(ctx, tx)
	})
}
