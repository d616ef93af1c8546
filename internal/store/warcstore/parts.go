package warcstore

import (
	"context"
	"errors"
	"fmt"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/parts"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

var _ store.Resumer = (*Store)(nil)

// parts are the beginnings of a job's bodies. They are made durable as units are.
func (s *Store) parts(job string) *parts.Folder {
	return parts.In(s.jobPath(job, partsFolder), parts.Options{
		Sync: s.sync != nil, MakeFolder: s.folder.Make, Explain: disk.Trouble,
		Adopt: func(ctx context.Context, u store.Unit, meta store.BodyMeta, w *parts.Whole) (store.BodyRef, error) {
			return s.adopt(ctx, job, u, meta, w)
		},
	})
}

// Part takes what is kept of a large body into the caller's hands. A holder that was killed loses at most the last 64
// MiB, with SyncOff nothing.
func (s *Store) Part(ctx context.Context, job, request string) (store.Part, error) {
	if err := store.CheckName("job", job); err != nil {
		return nil, fmt.Errorf("take part: %w", err)
	}
	p, err := s.parts(job).Take(ctx, request)
	if err != nil {
		return nil, err // not the nil *Part, which would make a non-nil interface
	}
	return p, nil
}

// HasPart reports whether something is kept of a request's body. It costs one failing open(2) where there is nothing.
func (s *Store) HasPart(ctx context.Context, job, request string) (bool, error) {
	if err := store.CheckName("job", job); err != nil {
		return false, fmt.Errorf("look for part: %w", err)
	}
	return s.parts(job).Has(ctx, request)
}

// adopt copies a part into a unit. The part is removed then: a unit that is never committed takes the body with it.
func (s *Store) adopt(ctx context.Context, job string, to store.Unit, meta store.BodyMeta, w *parts.Whole) (store.BodyRef, error) {
	u, ok := to.(*unit)
	if !ok || u.s.dir != s.dir || u.job != job {
		return store.BodyRef{}, errors.New("the unit is not one of this job and store")
	}
	return u.Adopt(ctx, meta, warcunit.Whole{Path: w.Path, Size: w.Size, SHA256: w.SHA256, Stretches: w.Note.Stretches})
}
