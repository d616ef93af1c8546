package store

import (
	"context"
	"iter"
)

// UnitReader is a Store that reads the account and the records of a unit at once for less than one after the other.
type UnitReader interface {
	Store
	// ReadUnit returns the account of a committed unit, or ErrNotFound, and its records as Records yields them.
	ReadUnit(ctx context.Context, job, unit string) (*Account, iter.Seq2[*Record, error], error)
}

// ReadUnit reads the account and the records of a unit of any store.
func ReadUnit(ctx context.Context, s Store, job, unit string) (*Account, iter.Seq2[*Record, error], error) {
	if r, ok := s.(UnitReader); ok {
		return r.ReadUnit(ctx, job, unit)
	}
	a, err := s.Account(ctx, job, unit)
	if err != nil {
		return nil, nil, err
	}
	return a, s.Records(ctx, job, unit), nil
}
