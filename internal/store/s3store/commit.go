package s3store

import (
	"context"
	"errors"
	"fmt"
	"strconv"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"golang.org/x/sync/errgroup"
)

// Commit makes the unit visible. The recipe:
//
//  1. Small bodies are in place by now. Put the large ones in place: those in spools by a PUT, those uploaded in pieces
//     by a copy on the server. They are named by their digest: one that is there already has the same bytes.
//  2. PUT the account, with the records in it, to accounts/UNIT.json on condition that there is none (If-None-Match: *,
//     RFC 9110, section 13.1.2). The first one wins, and it is the one step before which the unit does not exist and
//     after which it does, whole: THE commit point.
//  3. PUT the records to records/UNIT.jsonl, for those who read a copy of the store. Nothing of ours depends on it, so
//     what fails here is left to Sweep and Verify, which make it up from the account.
//
// When the answer to step 2 is lost the call is repeated, and finds the name taken, perhaps by itself: the attempt in
// the account tells. S3 acknowledges what is durable, so nothing remains to be flushed.
//
// When Commit fails nothing is lost: it may be called again, or the unit be discarded. A failed Commit may yet have made
// the unit visible, when the server did what it was asked and could not say so; the next one finds it there.
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
	defer u.s.work.Done()
	winner, won, err := u.commit(ctx, a)
	if err != nil {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, err)
	}
	_ = u.drop() // what it fails to remove, Sweep will
	return winner, won, nil
}

func (u *unit) commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	if len(u.aside) > 0 {
		// A worker that slept finds its unit taken here, before it sends what is large.
		if winner, won, err := u.yieldTo(ctx); !errors.Is(err, store.ErrNotFound) {
			return winner, won, err
		}
	}
	u.commits++
	stored := &storedAccount{Account: a, Attempt: u.stem + "~" + strconv.Itoa(u.commits), Records: u.count}
	data, err := stored.encode(u.records)
	if err != nil {
		return nil, false, fmt.Errorf("encode account: %w", err)
	}
	u.s.at("begin")
	if err := u.placeBodies(ctx); err != nil {
		return nil, false, err
	}
	u.s.at("placed")
	_, err = u.s.c.put(ctx, u.s.keys.account(u.job, u.name), inMemory(data), "application/json", condition{absent: true})
	if errors.Is(err, errTaken) {
		return u.yieldTo(ctx)
	}
	if err != nil {
		return nil, false, err
	}
	u.s.at("visible")
	if u.count > 0 {
		_ = u.s.putRecords(context.WithoutCancel(ctx), u.job, u.name, u.records)
	}
	u.s.at("acknowledged")
	return a, true, nil
}

// putRecords is step 3, done by the unit's writer or by whoever finds that it was not done. All write the same bytes.
func (s *Store) putRecords(ctx context.Context, job, unit string, lines []byte) error {
	_, err := s.c.put(ctx, s.keys.records(job, unit), inMemory(lines), "application/x-ndjson", condition{})
	return err
}

// placeBodies is step 1. Those that were placed are forgotten, so that it can be repeated.
func (u *unit) placeBodies(ctx context.Context) error {
	group, within := errgroup.WithContext(ctx)
	placed := make([]bool, len(u.aside))
	for i, b := range u.aside {
		group.Go(func() error {
			err := u.s.place(within, u, b)
			placed[i] = err == nil
			return err
		})
	}
	err := group.Wait()
	left := u.aside[:0]
	for i, b := range u.aside {
		if !placed[i] {
			left = append(left, b)
		}
	}
	u.aside = left
	return err
}

// yieldTo answers with the account of the unit that is there already, or with store.ErrNotFound. It may be this very
// unit, from an attempt whose answer was lost.
func (u *unit) yieldTo(ctx context.Context) (*store.Account, bool, error) {
	winner, err := u.s.readAccount(ctx, u.job, u.name)
	if err != nil {
		return nil, false, err
	}
	mine := winner.isOf(u.stem)
	if mine && winner.inside() && winner.Records > 0 {
		_ = u.s.putRecords(context.WithoutCancel(ctx), u.job, u.name, winner.recordsFile())
	}
	return winner.Account, mine, nil
}
