package warcstore

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"iter"
	"os"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// opened is a unit open for reading.
type opened struct {
	warcunit.Opened
	file   *os.File
	merged bool
}

func openedIn(f *os.File, kind warc.Compression, base, size int64, merged bool) *opened {
	return &opened{Opened: warcunit.Opened{File: f, Kind: kind, Base: base, Size: size}, file: f, merged: merged}
}

func (s *Store) open(ctx context.Context, job, unit string, _ int64) (*warcunit.Opened, error) {
	o, err := s.openUnit(ctx, job, unit)
	if err != nil {
		return nil, err
	}
	return &o.Opened, nil
}

// openUnit opens a committed unit, or answers store.ErrNotFound. A merged one is preferred. One that is in neither place
// was merged between the two looks, or is not there.
func (s *Store) openUnit(ctx context.Context, job, unit string) (*opened, error) {
	kind, err := s.kind(ctx)
	if err != nil {
		return nil, err
	}
	for range 2 {
		if o, err := s.openMerged(ctx, job, unit, kind); o != nil || err != nil {
			return o, err
		}
		path := s.unitPath(job, unit, kind)
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, disk.Trouble("open", path, err)
		}
		fi, err := f.Stat()
		if err != nil {
			_ = f.Close()
			return nil, disk.Trouble("stat", path, err)
		}
		return openedIn(f, kind, 0, fi.Size(), false), nil
	}
	return nil, store.ErrNotFound
}

func (s *Store) openMerged(ctx context.Context, job, unit string, kind warc.Compression) (*opened, error) {
	p, err := s.findMerged(ctx, job, unit)
	if err != nil || p == nil {
		return nil, err
	}
	f, err := os.Open(p.file)
	if err != nil {
		return nil, disk.Trouble("open", p.file, err)
	}
	return openedIn(f, kind, p.base, p.size, true), nil
}

// readFile reads the account of a unit that has a file of its own.
func (s *Store) readFile(ctx context.Context, path string, kind warc.Compression) (*warcunit.Stored, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, err
	}
	a, _, err := warcunit.ReadStored(f, kind, fi.Size())
	return a, err
}

// Account returns the account of a committed unit, or store.ErrNotFound. When it returns one, the unit is durable as far
// as the store was configured for.
func (s *Store) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	if err := warcunit.CheckNames(job, unit); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	a, err := s.findAccount(ctx, job, unit)
	if err != nil {
		return nil, fmt.Errorf("read account of unit %s: %w", unit, err)
	}
	return a.Account, nil
}

// findAccount reads the account of a unit and makes sure that it lasts.
func (s *Store) findAccount(ctx context.Context, job, unit string) (*warcunit.Stored, error) {
	a, err := s.settledAccount(ctx, job, unit)
	if errors.Is(err, disk.ErrLost) {
		err = s.renew(ctx, job, unit)
	}
	if err != nil {
		return nil, err
	}
	return a, nil
}

// renew writes the file of a committed unit once more: it may be gone with a flush that failed. If the unit was merged
// meanwhile the file is removed as a late unit's is, see Commit.
func (s *Store) renew(ctx context.Context, job, unit string) error {
	kind, err := s.kind(ctx)
	if err != nil {
		return err
	}
	stem, err := s.begin()
	if err != nil {
		return err
	}
	defer s.ended(stem)
	path := s.unitPath(job, unit, kind)
	tmp := func(int) string { return s.tmpPath(job, stem+"~again"+tmpUnit) }
	if err := s.folder.Renew(ctx, s.sync, tmp, []string{path}); err != nil {
		return err
	}
	if p, err := s.findMerged(ctx, job, unit); err != nil || p == nil {
		return err
	}
	return disk.RemoveTmp(path)
}

func (s *Store) settledAccount(ctx context.Context, job, unit string) (*warcunit.Stored, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	o, err := s.openUnit(ctx, job, unit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	a, _, err := o.Stored()
	if err != nil {
		return nil, err
	}
	if o.merged {
		return a, nil
	}
	fi, err := o.file.Stat()
	if err == nil {
		err = s.sync.Settle(ctx, fi, o.Name(), s.jobPath(job, unitsFolder))
	}
	if err != nil {
		return a, disk.Trouble("flush to disk", s.dir, err)
	}
	return a, nil
}

// Records yields the records of a committed unit in the order in which they were added, or store.ErrNotFound.
func (s *Store) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		err := warcunit.CheckNames(job, unit)
		if err == nil {
			err = ctx.Err()
		}
		if err == nil {
			err = s.eachRecord(ctx, job, unit, func(r *store.Record) bool { return yield(r, nil) })
		}
		if err != nil {
			yield(nil, fmt.Errorf("read records of unit %s: %w", unit, err))
		}
	}
}

func (s *Store) eachRecord(ctx context.Context, job, unit string, do func(*store.Record) bool) error {
	o, err := s.openUnit(ctx, job, unit)
	if err != nil {
		return err
	}
	defer func() { _ = o.Close() }()
	return o.EachRecord(ctx, do)
}

// Units yields the name of every committed unit of a job once, in no order. A job that does not exist has none.
func (s *Store) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := store.CheckName("job", job)
		if err == nil {
			err = s.eachUnit(ctx, job, func(unit string) bool { return yield(unit, nil) })
		}
		if err != nil {
			yield("", fmt.Errorf("list units of job %s: %w", job, err))
		}
	}
}

// eachUnit looks at the units with a file of their own first, because that is the way units move: none is missed that is
// merged meanwhile. Those seen are remembered by a digest of 64 bits, so that none of them is told twice.
func (s *Store) eachUnit(ctx context.Context, job string, do func(string) bool) error {
	seen, seed := make(map[uint64]bool), maphash.MakeSeed()
	for unit, err := range s.looseUnits(ctx, job) {
		if err != nil {
			return err
		}
		seen[maphash.String(seed, unit)] = true
		if !do(unit) {
			return nil
		}
	}
	files, err := s.mergedFiles(job)
	if err != nil {
		return err
	}
	for _, f := range files {
		for e, err := range f.units(ctx) {
			if err != nil {
				return err
			}
			if !seen[maphash.String(seed, e.unit)] && !do(e.unit) {
				return nil
			}
		}
	}
	return nil
}

// looseUnits yields the names of units that have a file of their own.
func (s *Store) looseUnits(ctx context.Context, job string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		kind, err := s.kind(ctx)
		if err != nil {
			yield("", err)
			return
		}
		for e, err := range disk.Entries(ctx, s.jobPath(job, unitsFolder)) {
			if err != nil {
				yield("", err)
				return
			}
			unit, ok := strings.CutSuffix(e.Name(), kind.Ext())
			if ok && store.CheckName("unit", unit) == nil && !yield(unit, nil) {
				return
			}
		}
	}
}

// Jobs yields the name of every job that has a unit or had one begun, in no order.
func (s *Store) Jobs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range disk.Entries(ctx, s.dir) {
			if err != nil {
				yield("", fmt.Errorf("list jobs: %w", err))
				return
			}
			if e.IsDir() && store.CheckName("job", e.Name()) == nil && s.isJob(e.Name()) && !yield(e.Name(), nil) {
				return
			}
		}
	}
}

// isJob tells a job from another folder that someone keeps here.
func (s *Store) isJob(name string) bool {
	for _, folder := range []string{unitsFolder, mergedFolder, partsFolder, tmpFolder} {
		if fi, err := os.Stat(s.jobPath(name, folder)); err == nil && fi.IsDir() {
			return true
		}
	}
	return false
}
