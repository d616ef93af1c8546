package jsonl

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// errEnded is returned by a unit that was committed or discarded, and by a body that was finished or aborted.
var errEnded = errors.New("it has ended")

// unit is the lines of one batch. A Commit that failed may be tried again.
type unit struct {
	s         *Store
	job, name string

	mu    sync.Mutex
	ended bool
	lines []byte
}

// Body starts a body, which is counted and digested and not kept.
func (u *unit) Body(ctx context.Context, _ store.BodyMeta) (store.BodyWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, fmt.Errorf("start body in unit %s: %w", u.name, errEnded)
	}
	return &body{hash: sha256.New()}, nil
}

// Add takes a record. A record that no line of JSON can hold is refused with store.ErrRecord.
func (u *unit) Add(r *store.Record) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return fmt.Errorf("add record to unit %s: %w", u.name, errEnded)
	}
	with, err := store.AppendRecord(u.lines, r)
	if err != nil {
		return fmt.Errorf("add record %.80q: %w (%w)", r.ID, store.ErrRecord, err)
	}
	u.lines = append(with, '\n')
	return nil
}

// Commit writes the unit's lines. It always wins.
func (u *unit) Commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, errEnded)
	}
	if a.Job != u.job || a.Unit() != u.name {
		return nil, false, fmt.Errorf("commit unit %s of job %s: the account is of unit %s of job %s",
			u.name, u.job, a.Unit(), a.Job)
	}
	if err := u.s.enter(); err != nil {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, err)
	}
	defer u.s.commits.Done()
	if err := u.s.out.write(ctx, u.lines); err != nil {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, err)
	}
	u.ended, u.lines = true, nil
	return a, true, nil
}

// Discard drops the unit.
func (u *unit) Discard() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended, u.lines = true, nil
	return nil
}

// body counts and digests. It is used by one goroutine.
type body struct {
	hash hash.Hash // nil once it has ended
	size int64
}

// Write takes bytes.
func (b *body) Write(p []byte) (int, error) {
	if b.hash == nil {
		return 0, errEnded
	}
	b.size += int64(len(p))
	return b.hash.Write(p)
}

// Finish says what the body was. It is nowhere.
func (b *body) Finish() (store.BodyRef, error) {
	if b.hash == nil {
		return store.BodyRef{}, errEnded
	}
	ref := store.BodyRef{Bytes: b.size, SHA256: hex.EncodeToString(b.hash.Sum(nil))}
	b.hash = nil
	return ref, nil
}

// Abort drops the body.
func (b *body) Abort() { b.hash = nil }
