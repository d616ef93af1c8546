package s3store

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// kind returns how the store is compressed. A store without layout has no units.
func (s *Archive) kind(ctx context.Context) (warc.Compression, error) {
	l, err := s.readLayout(ctx)
	if isMissing(err) {
		return warc.Gzip, nil
	}
	if err != nil {
		return "", err
	}
	return l.Compress, nil
}

// openAt opens a unit to be read from a byte on.
func (s *Archive) openAt(ctx context.Context, job, unit string, offset int64) (*warcunit.Opened, error) {
	return s.openUnit(ctx, job, unit, func(key string) (*remote, error) { return s.c.openAt(ctx, key, offset) })
}

// openTail opens a unit to be read at its end.
func (s *Archive) openTail(ctx context.Context, job, unit string) (*warcunit.Opened, error) {
	return s.openUnit(ctx, job, unit, func(key string) (*remote, error) { return s.c.openTail(ctx, key) })
}

func (s *Archive) openUnit(ctx context.Context, job, unit string, open func(key string) (*remote, error)) (*warcunit.Opened, error) {
	kind, err := s.kind(ctx)
	if err != nil {
		return nil, err
	}
	r, err := open(s.keys.unit(job, unit, kind))
	if isMissing(err) {
		return nil, store.ErrNotFound
	}
	if err != nil {
		return nil, err
	}
	return &warcunit.Opened{File: r, Kind: kind, Size: r.size}, nil
}

// Account returns the account of a committed unit, or store.ErrNotFound. When it returns one, the unit is whole. It makes
// one call, unless the account is large.
func (s *Archive) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	if err := checkNames(job, unit); err != nil {
		return nil, fmt.Errorf("read account: %w", err)
	}
	a, err := s.readStored(ctx, job, unit)
	if err != nil {
		return nil, fmt.Errorf("read account of unit %s: %w", unit, err)
	}
	return a.Account, nil
}

func (s *Archive) readStored(ctx context.Context, job, unit string) (*warcunit.Stored, error) {
	o, err := s.openTail(ctx, job, unit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	a, _, err := o.Stored()
	return a, err
}

// Records yields the records of a committed unit in the order in which they were added, or store.ErrNotFound.
func (s *Archive) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		err := errors.Join(checkNames(job, unit), ctx.Err())
		if err == nil {
			err = s.eachRecord(ctx, job, unit, func(r *store.Record) bool { return yield(r, nil) })
		}
		if err != nil {
			yield(nil, fmt.Errorf("read records of unit %s: %w", unit, err))
		}
	}
}

func (s *Archive) eachRecord(ctx context.Context, job, unit string, do func(*store.Record) bool) error {
	o, err := s.openTail(ctx, job, unit)
	if err != nil {
		return err
	}
	defer func() { _ = o.Close() }()
	return o.EachRecord(ctx, do)
}

// Units yields the name of every committed unit of a job, in no order: one call for each thousand. A job that does not
// exist has none.
func (s *Archive) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := store.CheckName("job", job); err != nil {
			yield("", fmt.Errorf("list units: %w", err))
			return
		}
		kind, err := s.kind(ctx)
		if err != nil {
			yield("", fmt.Errorf("list units of job %s: %w", job, err))
			return
		}
		for name, err := range s.names(ctx, s.keys.folder(job, warcunit.UnitsFolder), kind.Ext()) {
			if err != nil {
				err = fmt.Errorf("list units of job %s: %w", job, err)
			}
			if !yield(name, err) || err != nil {
				return
			}
		}
	}
}
