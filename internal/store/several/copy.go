package several

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Account returns the first store's account of a unit. Before it does it copies the unit to those that lack it, so that
// whoever goes on from the account leaves nothing behind. A unit that is not there costs what it costs in the first.
func (s *Store) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	a, err := s.first.Account(ctx, job, unit)
	if err != nil {
		return nil, err
	}
	if err := s.copyMissing(ctx, job, unit, a); err != nil {
		return nil, copyTrouble(fmt.Errorf("copy unit %s from %s: %w", unit, s.first, err))
	}
	return a, nil
}

// copyTrouble is the error of a copy. Whatever was not found on the way, the unit was: who is told otherwise fetches it
// again, for ever.
func copyTrouble(err error) error {
	if errors.Is(err, store.ErrNotFound) || errors.Is(err, store.ErrRecord) {
		return errors.New(err.Error())
	}
	return err
}

// CopyMissing copies every unit of a job to the stores that lack it. A job needs it where nothing will be redelivered,
// because its queue is gone.
func (s *Store) CopyMissing(ctx context.Context, job string) error {
	for unit, err := range s.first.Units(ctx, job) {
		if err != nil {
			return err
		}
		if _, err := s.Account(ctx, job, unit); err != nil {
			return err
		}
	}
	return nil
}

// copyMissing copies a unit, committed in the first store with this account, to those that lack it.
func (s *Store) copyMissing(ctx context.Context, job, unit string, a *store.Account) error {
	for _, m := range s.rest {
		theirs, err := m.Account(ctx, job, unit)
		switch {
		case err == nil:
			s.compare(m, a, theirs)
			continue
		case errors.Is(err, store.ErrNotFound):
			err = s.copyUnit(ctx, m, job, a, false)
		}
		if err != nil {
			return m.wrap(err)
		}
	}
	return nil
}

// compare notes a unit that came into a later store in another way. Both are whole, and neither is changed.
func (s *Store) compare(m *later, ours, theirs *store.Account) {
	if theirs.Delivery != ours.Delivery {
		s.note(m.wrap(fmt.Errorf("unit %s is there already, as delivery %s left it and not as in %s: it stays as it is",
			ours.Unit(), theirs.Delivery, s.first)))
	}
}

// copyUnit copies a unit from the first store. bare leaves out of every record what a store might refuse.
func (s *Store) copyUnit(ctx context.Context, m *later, job string, a *store.Account, bare bool) error {
	u, err := m.Begin(ctx, job, a.Unit())
	if err != nil {
		return err
	}
	defer func() { _ = u.Discard() }() // does nothing after Commit
	for r, err := range s.first.Records(ctx, job, a.Unit()) {
		if err != nil {
			return err
		}
		if err := s.copyRecord(ctx, m, u, r, bare); err != nil {
			return err
		}
	}
	_, _, err = u.Commit(ctx, a)
	if !errors.Is(err, store.ErrRecord) {
		return err
	}
	s.note(m.wrap(err))
	if bare {
		return nil // it goes without this unit, and has been heard twice
	}
	return s.copyUnit(ctx, m, job, a, true)
}

// copyRecord adds a record of the first store to a unit of another, with its body.
func (s *Store) copyRecord(ctx context.Context, m *later, u store.Unit, r *store.Record, bare bool) error {
	its := *r
	if r.Body != "" && !m.bodiless {
		body, err := s.copyBody(ctx, m, u, r)
		if err != nil {
			return err
		}
		its.Body, its.BodyJob = body, ""
	}
	if bare {
		its = *s.bare(&its)
	}
	return s.addTo(m, u, &its)
}

// copyBody copies a record's body from the first store and returns where it is now. It is "" where the first has it no
// more, and where the other refuses it.
func (s *Store) copyBody(ctx context.Context, m *later, u store.Unit, r *store.Record) (string, error) {
	ref, err := s.stream(ctx, u, r)
	switch {
	case errors.Is(err, store.ErrNotFound), errors.Is(err, store.ErrRecord):
		s.note(m.wrap(fmt.Errorf("record %s goes without its body: %w", r.ID, err)))
		return "", nil
	case err != nil:
		return "", err
	case ref.SHA256 != r.SHA256:
		s.note(m.wrap(fmt.Errorf("record %s goes without its body: in %s it has digest %s, not the record's",
			r.ID, s.first, ref.SHA256)))
		return "", nil
	}
	return ref.Body, nil
}

func (s *Store) stream(ctx context.Context, u store.Unit, r *store.Record) (store.BodyRef, error) {
	from, err := s.first.OpenBody(ctx, r.BodyOf(), r.Body)
	if err != nil {
		return store.BodyRef{}, err
	}
	defer func() { _ = from.Close() }()
	meta := store.BodyMeta{URL: r.FinalURL, ContentType: r.ContentType}
	if meta.URL == "" {
		meta.URL = r.URL
	}
	to, err := u.Body(ctx, meta)
	if err != nil {
		return store.BodyRef{}, err
	}
	defer to.Abort() // does nothing after Finish
	if _, err := io.Copy(to, from); err != nil {
		return store.BodyRef{}, err
	}
	return to.Finish()
}

// addTo adds a record to a unit of a later store. One that is refused is added without what might be the reason, and if
// that is refused as well it is left out: a later store must not stop the fleet for a record that it cannot hold.
func (s *Store) addTo(m *later, u store.Unit, r *store.Record) error {
	err := u.Add(r)
	if errors.Is(err, store.ErrRecord) {
		s.note(m.wrap(err))
		err = u.Add(s.bare(r))
	}
	if errors.Is(err, store.ErrRecord) {
		s.note(m.wrap(fmt.Errorf("record %.80q is left out: %w", r.ID, err)))
		return nil
	}
	return err
}

// bare is a record without what the origin and the list wrote freely.
func (s *Store) bare(r *store.Record) *store.Record {
	b := &store.Record{
		ID: r.ID, Job: r.Job, Batch: r.Batch, Generation: r.Generation, URL: r.URL, Method: r.Method,
		Outcome: r.Outcome, Status: r.Status, Attempts: r.Attempts, Charset: r.Charset, Bytes: r.Bytes, SHA256: r.SHA256, Body: r.Body,
		Unchanged: r.Unchanged, BodyJob: r.BodyJob, FetchedAt: r.FetchedAt, ElapsedMS: r.ElapsedMS, Timings: r.Timings,
		Worker: r.Worker,
	}
	if r.Error != nil {
		b.Error = &store.RecordError{Class: r.Error.Class, Message: "as told in " + s.first.String()}
	}
	return b
}
