// Package several makes one store of many: the first decides what is committed, and the rest get the same.
//
// It promises that a unit whose Commit returned without error is in every store, that a unit which is in the first and
// not in the others, because a worker died or a store failed between, is copied to them by whoever asks for its account
// next (the redelivery of its batch does), and that where a body lies in one store is told in that store's records. An
// error of any store, other than one that belongs to a record, is an error of the whole: nothing is acknowledged that is
// not everywhere.
//
// It does not promise that the stores are equal at every moment, nor that a later store holds every record in full: one
// that it refuses for its own reasons is kept there without what the origin and the list wrote freely, and Options.Note
// is told. Reads are answered by the first alone. What is in a later store and not in the first is nobody's matter.
package several

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Options are the options of New. The zero value tells nobody of what a later store refuses.
type Options struct {
	// Note is told what a later store did not take as it is in the first, while everything goes on. It is called from
	// many goroutines; nil = nobody asks.
	Note func(error)
}

// Store is a store made of several. It implements store.Store, store.Verifier, and Compact.
type Store struct {
	first store.Store
	rest  []*later
	note  func(error)
	step  func(name string) // called between the steps of a commit; set by tests only
}

var _ store.Verifier = (*Store)(nil)

// later is a store that comes after the first.
type later struct {
	store.Store
	bodiless bool
}

func (m *later) wrap(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("copy to %s: %w", m, err)
}

// New makes a store of several, which it closes when it is closed. What it returns is a *Store; where the first is a
// store.Resumer it is one, too, which is why it is returned as an interface.
func New(o Options, first store.Store, rest ...store.Store) store.Store {
	s := &Store{first: first, note: o.Note}
	if s.note == nil {
		s.note = func(error) {}
	}
	for _, r := range rest {
		b, ok := r.(store.Bodiless)
		s.rest = append(s.rest, &later{Store: r, bodiless: ok && b.Bodiless()})
	}
	if parts, ok := first.(store.Resumer); ok {
		return &resumer{Store: s, parts: parts}
	}
	return s
}

// First returns the store that decides and answers: of several the first, of one itself.
func First(s store.Store) store.Store {
	if of, ok := s.(interface{ First() store.Store }); ok {
		return of.First()
	}
	return s
}

// First returns the store that decides and answers.
func (s *Store) First() store.Store { return s.first }

// String returns the name of the first store: it is the one in which a job's results are looked for.
func (s *Store) String() string { return s.first.String() }

// Copies returns the names of the other stores.
func (s *Store) Copies() []string {
	names := make([]string, len(s.rest))
	for i, m := range s.rest {
		names[i] = m.String()
	}
	return names
}

// Identity returns that of the first store.
func (s *Store) Identity(ctx context.Context) (string, error) { return s.first.Identity(ctx) }

// Check reports whether every store could take a unit now.
func (s *Store) Check(ctx context.Context) error {
	err := s.first.Check(ctx)
	for _, m := range s.rest {
		err = errors.Join(err, m.wrap(m.Check(ctx)))
	}
	return err
}

// Units yields those of the first store.
func (s *Store) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	return s.first.Units(ctx, job)
}

// Records yields those of the first store.
func (s *Store) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	return s.first.Records(ctx, job, unit)
}

// OpenBody opens a body by the Body field of the first store's record.
func (s *Store) OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error) {
	return s.first.OpenBody(ctx, job, body)
}

// Sweep sweeps every store.
func (s *Store) Sweep(ctx context.Context, job string, olderThan time.Duration) (removed int, err error) {
	removed, err = s.first.Sweep(ctx, job, olderThan)
	for _, m := range s.rest {
		n, merr := m.Sweep(ctx, job, olderThan)
		removed, err = removed+n, errors.Join(err, m.wrap(merr))
	}
	return removed, err
}

// compactor is a store that packs the units of a job that has ended.
type compactor interface {
	Compact(ctx context.Context, job string) error
}

// Compact packs a job in every store that packs.
func (s *Store) Compact(ctx context.Context, job string) error {
	var err error
	if c, ok := s.first.(compactor); ok {
		err = c.Compact(ctx, job)
	}
	for _, m := range s.rest {
		if c, ok := m.Store.(compactor); ok {
			err = errors.Join(err, m.wrap(c.Compact(ctx, job)))
		}
	}
	return err
}

// Verify verifies every store that can. Where a finding is begins with the name of its store.
func (s *Store) Verify(ctx context.Context, job string, repair bool, found func(store.Finding)) error {
	var err error
	for _, one := range s.all() {
		v, ok := one.(store.Verifier)
		if !ok {
			continue
		}
		named := func(f store.Finding) {
			f.Where = one.String() + " " + f.Where
			found(f)
		}
		if verr := v.Verify(ctx, job, repair, named); verr != nil {
			err = errors.Join(err, fmt.Errorf("store %s: %w", one, verr))
		}
	}
	return err
}

func (s *Store) all() []store.Store {
	all := []store.Store{s.first}
	for _, m := range s.rest {
		all = append(all, m.Store)
	}
	return all
}

// Close closes every store.
func (s *Store) Close() error {
	err := s.first.Close()
	for _, m := range s.rest {
		err = errors.Join(err, m.wrap(m.Close()))
	}
	return err
}

// at marks a step of a commit.
func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}
