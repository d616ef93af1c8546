package filestore

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// Commit makes the unit visible. The recipe:
//
//  1. Write aside, under tmp: the large bodies (done by now), then the account, then the records. The account must be
//     there before the records are: see Sweep. Small bodies are in place by now: see putBody.
//  2. Make all of it durable, together with whoever commits at the same time.
//  3. Rename the large bodies into place. They are named by their digest: one that is there already has the same bytes.
//  4. link(2) the account to accounts/UNIT.json. It fails if the name is taken, so the first one wins, and it is the
//     one step before which the unit does not exist and after which it does: THE commit point.
//  5. Rename the records to records/UNIT.jsonl. The account names the file that holds them, so if this process dies
//     before that, whoever reads the account next does it (rollForward).
//  6. Make the names durable. Only then is the commit acknowledged.
//
// A crash before 4 leaves temporary files, and perhaps whole bodies that no record refers to; after 4 it leaves a
// unit that is whole or will be made so by its first reader.
//
// When Commit fails nothing is lost, and it may be called again, unless a flush failed: see disk.Syncer. What the unit wrote
// before that is not trusted, so that Commit fails from then on and the batch has to be fetched by another unit. An error from
// step 6 leaves the unit visible though perhaps not durable; whoever finds it there writes it again, or flushes it.
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
	winner, won, err := u.commit(ctx, a)
	if err != nil {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, err)
	}
	_ = u.drop() // what it fails to remove, Sweep will
	return winner, won, nil
}

func (u *unit) commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	// A worker that slept finds its unit taken here, before it writes anything.
	if winner, won, err := u.yieldTo(ctx); !errors.Is(err, store.ErrNotFound) {
		return winner, won, err
	}
	u.commits++
	stored := &storedAccount{Account: a, Attempt: u.stem + "~" + strconv.Itoa(u.commits), Records: u.count}
	defer func() { _ = disk.RemoveTmp(u.s.tmpPath(u.job, stored.accountTmp())) }()
	u.s.at("begin")
	if err := u.writeAside(stored); err != nil {
		return nil, false, err
	}
	u.s.at("written")
	if err := u.s.sync.Barrier(ctx, u.since, u.writtenPaths(stored)); err != nil {
		u.takeBack(stored)
		return nil, false, u.flushTrouble(ctx, err)
	}
	u.s.at("durable")
	if err := u.placeBodies(); err != nil {
		u.takeBack(stored)
		return nil, false, err
	}
	u.s.at("placed")
	won, err := u.s.linkAccount(u.job, u.name, stored)
	if err != nil {
		u.takeBack(stored)
		return nil, false, err
	}
	if !won {
		u.takeBack(stored)
		return u.yieldTo(ctx)
	}
	u.s.at("linked")
	u.spill = "" // it is the account's now, and must outlive a Discard
	// From here on the unit exists: neither an error nor the end of ctx can undo it, only leave it for a reader to finish.
	if err := u.s.rollForward(u.job, u.name, stored); err != nil {
		return nil, false, err
	}
	u.s.at("renamed")
	if err := u.s.sync.Barrier(context.WithoutCancel(ctx), u.since, u.placedPaths()); err != nil {
		return nil, false, u.flushTrouble(ctx, err)
	}
	u.s.at("acknowledged")
	return a, true, nil
}

// writeAside is step 1. The bodies were written when they were finished.
func (u *unit) writeAside(stored *storedAccount) error {
	data, err := stored.encode()
	if err != nil {
		return fmt.Errorf("encode account: %w", err)
	}
	path := u.s.tmpPath(u.job, stored.accountTmp())
	if err := u.s.folder.In(u.jobTmp(), func() error { return disk.WriteFile(path, data) }); err != nil {
		return disk.Trouble("write account", path, err)
	}
	if stored.Records == 0 {
		return nil
	}
	path = u.s.tmpPath(u.job, stored.recordsTmp(u.name))
	if u.spill != "" {
		return u.renameSpill(path)
	}
	if err := disk.WriteFile(path, u.records); err != nil {
		_ = disk.RemoveTmp(path)
		return disk.Trouble("write records", path, err)
	}
	return nil
}

// renameSpill gives spilled records, completed by those in memory, the name that the account refers to.
func (u *unit) renameSpill(path string) error {
	if len(u.records) > 0 {
		if err := u.spillRecords(); err != nil {
			return err
		}
	}
	if err := disk.Rename(u.spill, path); err != nil {
		return disk.Trouble("rename records", u.spill, err)
	}
	u.spill = path
	return nil
}

// takeBack undoes writeAside after a failure before the commit point. Spilled records keep the name they have.
func (u *unit) takeBack(stored *storedAccount) {
	_ = disk.RemoveTmp(u.s.tmpPath(u.job, stored.accountTmp()))
	if u.spill == "" {
		_ = disk.RemoveTmp(u.s.tmpPath(u.job, stored.recordsTmp(u.name)))
	}
}

// placeBodies is step 3. Those that were placed are forgotten, so that it can be repeated.
func (u *unit) placeBodies() error {
	for len(u.aside) > 0 {
		b := u.aside[0]
		to := u.s.bodyPath(u.job, b.body)
		if err := u.s.place(b, to); err != nil {
			return bodyTrouble("put body in place", to, err)
		}
		u.aside = u.aside[1:]
	}
	return nil
}

// yieldTo answers with the account of the unit that is there already, once that one is whole and durable, or with
// store.ErrNotFound. It may be this very unit, from an earlier Commit that failed after step 4.
func (u *unit) yieldTo(ctx context.Context) (*store.Account, bool, error) {
	winner, err := u.s.findAccount(ctx, u.job, u.name)
	if err != nil {
		return nil, false, err
	}
	return winner.Account, winner.isOf(u.stem), nil
}

func (u *unit) flushTrouble(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	return disk.Trouble("flush to disk", u.s.dir, err)
}

// writtenPaths lists what step 2 must flush where that is done by path.
func (u *unit) writtenPaths(stored *storedAccount) []string {
	if !disk.ByPath || u.s.sync == nil {
		return nil
	}
	paths := []string{u.s.tmpPath(u.job, stored.accountTmp()), u.jobTmp()}
	if stored.Records > 0 {
		paths = append(paths, u.s.tmpPath(u.job, stored.recordsTmp(u.name)))
	}
	for _, b := range u.aside {
		paths = append(paths, b.tmp)
	}
	for body := range u.have { // those that are still aside are not found there, and passed over
		paths = append(paths, u.s.bodyPath(u.job, body))
	}
	return paths
}

// placedPaths lists the folders that step 6 must flush where that is done by path.
func (u *unit) placedPaths() []string {
	if !disk.ByPath || u.s.sync == nil {
		return nil
	}
	paths := []string{u.s.dir, filepath.Join(u.s.dir, u.job)}
	for _, f := range []string{accountsFolder, recordsFolder, bodiesFolder} {
		paths = append(paths, u.s.jobPath(u.job, f))
	}
	for body := range u.have {
		paths = append(paths, filepath.Dir(u.s.bodyPath(u.job, body)))
	}
	return paths
}
