package warcstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// unit is a unit being written.
type unit struct {
	*warcunit.Unit
	s         *Store
	job, name string
	stem      string // begins each of its temporary names: WORKER~RUN~N
	since     disk.Mark
	kind      warc.Compression
}

// Commit makes the unit visible. The recipe:
//
//  1. Write the file whole: the members of answers, those of records, the account. A small unit is one write to a file
//     without a name; a large one is in its temporary file already, and gets the rest.
//  2. Make it durable, together with whoever commits at the same time.
//  3. link(2) it to units/UNIT.warc.gz. It fails if the name is taken, so the first one wins: THE commit point.
//  4. Look into the indexes of merged files. Whoever was merged there came first and left the name free: then this unit
//     has lost, and its name is removed. Readers prefer merged units, so nobody takes this one for the winner meanwhile.
//  5. Make the name durable. Only then is the commit acknowledged.
//
// When Commit fails nothing is lost, and it may be called again, unless a flush failed: see disk.Syncer. A small unit is then
// written anew. Of a large one not all bytes are there to be written again: its Commit fails from then on, and the batch has
// to be fetched by another unit. An error from step 5 leaves the unit visible though perhaps not durable; whoever finds it
// there writes it again, or flushes it.
func (u *unit) Commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	winner, won, err := u.End(a, func() (*store.Account, bool, error) {
		if err := u.s.enter(); err != nil {
			return nil, false, err
		}
		defer u.s.commits.Done()
		return u.commit(ctx, a)
	})
	if err != nil {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, err)
	}
	return winner, won, nil
}

func (u *unit) commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	// A worker that slept finds its unit taken here, before it writes anything.
	if winner, won, err := u.yieldTo(ctx); !errors.Is(err, store.ErrNotFound) {
		return winner, won, err
	}
	u.s.at("begin")
	whole, err := u.Finish(a)
	if err != nil {
		return nil, false, err
	}
	since := u.since
	if whole.File == nil { // nothing of it was written yet
		since = u.s.sync.Mark()
	}
	f, err := u.writeFile(whole)
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = f.close() }()
	u.s.at("written")
	if err := u.s.sync.Barrier(ctx, since, f.paths()); err != nil {
		return nil, false, u.flushTrouble(ctx, err)
	}
	u.s.at("durable")
	won, err := u.link(ctx, f, whole.Attempt)
	if err != nil {
		return nil, false, err
	}
	if !won {
		return u.yieldTo(ctx)
	}
	u.s.at("linked")
	// From here on the unit exists, or has lost: the end of ctx changes nothing.
	ctx = context.WithoutCancel(ctx)
	if lost, err := u.mergedBefore(ctx); err != nil {
		return nil, false, err
	} else if lost {
		return u.yieldTo(ctx)
	}
	u.s.at("looked")
	if err := u.s.sync.Barrier(ctx, since, u.placedPaths()); err != nil {
		return nil, false, u.flushTrouble(ctx, err)
	}
	u.s.at("acknowledged")
	return a, true, nil
}

// finished is a unit's file, whole and not yet in place.
type finished struct {
	nameless *disk.Nameless
	path     string // where it has a name; of the unit's spool, or to be removed
	remove   bool
}

func (f *finished) link(to string) error {
	if f.nameless != nil {
		return f.nameless.Link(to)
	}
	return os.Link(f.path, to)
}

func (f *finished) close() error {
	if f.nameless != nil {
		return f.nameless.Close()
	}
	if f.remove {
		return disk.RemoveTmp(f.path)
	}
	return nil
}

// paths lists what must be flushed before the link, where that is done by path.
func (f *finished) paths() []string {
	if !disk.ByPath || f.path == "" {
		return nil
	}
	return []string{f.path}
}

// writeFile is step 1.
func (u *unit) writeFile(whole *warcunit.Finished) (*finished, error) {
	if whole.File != nil {
		return &finished{path: whole.Path}, nil
	}
	return u.newFile(whole)
}

// newFile writes a small unit, to a file without a name where there are such.
func (u *unit) newFile(whole *warcunit.Finished) (*finished, error) {
	s := u.s
	if !s.named.Load() {
		folder := s.jobPath(u.job, unitsFolder)
		var f disk.Nameless
		err := s.folder.In(folder, func() (err error) { f, err = disk.OpenNameless(folder); return err })
		if err == nil {
			if _, err = f.Write(whole.Data); err == nil {
				return &finished{nameless: &f}, nil
			}
			_ = f.Close()
		}
		if !disk.IsNoNameless(err) {
			return nil, disk.Trouble("write unit", folder, err)
		}
		s.named.Store(true)
	}
	path := u.s.tmpPath(u.job, whole.Attempt+tmpUnit)
	err := s.folder.In(filepath.Dir(path), func() error { return disk.WriteFile(path, whole.Data) })
	if err != nil {
		_ = disk.RemoveTmp(path)
		return nil, disk.Trouble("write unit", path, err)
	}
	return &finished{path: path, remove: true}, nil
}

// link is the commit point. It says whether this unit is the one now visible.
func (u *unit) link(ctx context.Context, f *finished, attempt string) (won bool, err error) {
	to := u.s.unitPath(u.job, u.name, u.kind)
	err = u.s.folder.In(filepath.Dir(to), func() error { return f.link(to) })
	if err == nil {
		return true, nil
	}
	// An error is not yet a no: over NFS an answer can be lost, and the kernel repeats the call and finds its own work.
	if there, rerr := u.s.readFile(context.WithoutCancel(ctx), to, u.kind); rerr == nil {
		return there.Attempt == attempt, nil
	}
	switch {
	case errors.Is(err, os.ErrExist): // merged and removed between the two calls
		return false, nil
	case disk.IsNoLinks(err):
		return false, disk.NoLinks(u.s.dir, err)
	}
	return false, disk.Trouble("link unit", to, err)
}

// mergedBefore is step 4.
func (u *unit) mergedBefore(ctx context.Context) (bool, error) {
	p, err := u.s.findMerged(ctx, u.job, u.name)
	if err != nil || p == nil {
		return false, err
	}
	path := u.s.unitPath(u.job, u.name, u.kind)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return false, disk.Trouble("remove the unit that came too late", path, err)
	}
	return true, nil
}

// yieldTo answers with the account of the unit that is there already, once that one is durable, or with
// store.ErrNotFound. It may be this very unit, from an earlier Commit that failed after step 3.
func (u *unit) yieldTo(ctx context.Context) (*store.Account, bool, error) {
	winner, err := u.s.findAccount(ctx, u.job, u.name)
	if err != nil {
		return nil, false, err
	}
	return winner.Account, winner.IsOf(u.stem), nil
}

func (u *unit) flushTrouble(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return err
	}
	return disk.Trouble("flush to disk", u.s.dir, err)
}

// placedPaths lists what step 5 must flush where that is done by path.
func (u *unit) placedPaths() []string {
	if !disk.ByPath {
		return nil
	}
	return []string{u.s.dir, filepath.Join(u.s.dir, u.job), u.s.jobPath(u.job, unitsFolder)}
}
