package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/parts"
)

var _ store.Resumer = (*Store)(nil)

// parts are the beginnings of a job's bodies. They are made durable as units are.
func (s *Store) parts(job string) *parts.Folder {
	return parts.In(s.jobPath(job, partsFolder), parts.Options{
		Sync: s.sync != nil, MakeFolder: s.folder.Make, Explain: disk.Trouble,
		Adopt: func(_ context.Context, u store.Unit, meta store.BodyMeta, w *parts.Whole) (store.BodyRef, error) {
			return s.adopt(job, u, meta, w)
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

// adopt renames a part into the place of a body, which makes no copy, and books it in its unit. A unit that is never
// committed leaves it there, whole and with no record that refers to it.
func (s *Store) adopt(job string, to store.Unit, meta store.BodyMeta, w *parts.Whole) (store.BodyRef, error) {
	u, ok := to.(*unit)
	if !ok || u.s.dir != s.dir || u.job != job {
		return store.BodyRef{}, errors.New("the unit is not one of this job and store")
	}
	ref := store.BodyRef{Bytes: w.Size, SHA256: w.SHA256}
	if w.Size == 0 {
		return ref, nil
	}
	ref.Body = bodyName(w.SHA256, extension(meta))
	if name := s.pathOf(meta); name != "" {
		return u.adoptPath(name, ref, w)
	}
	if u.has(ref.Body) {
		return ref, nil
	}
	path := s.bodyPath(job, ref.Body)
	err := w.Give(func(part string) error {
		if err := s.place(asideBody{tmp: part, size: w.Size}, path); err != nil {
			return bodyTrouble("put body in place", path, err)
		}
		return nil
	})
	if err != nil {
		return store.BodyRef{}, err
	}
	return ref, u.put(ref.Body)
}

// adoptPath makes a part a large body of the unit's own, which then gets the name that its URL suggests, or else that of
// ref. It is not linked from where it is: as long as it has its old name, it could be written to.
func (u *unit) adoptPath(name string, ref store.BodyRef, w *parts.Whole) (store.BodyRef, error) {
	aside := asideBody{body: ref.Body, tmp: u.nextTmp(), size: w.Size}
	err := w.Give(func(part string) (err error) {
		if err := u.s.folder.In(u.jobTmp(), func() error { return disk.Rename(part, aside.tmp) }); err != nil {
			return disk.Trouble("take part", part, err)
		}
		name, err = u.placePath(name, w.SHA256, w.Size, aside.link, aside.rename)
		if err != nil { // back, unless another attempt has begun one of its own
			return errors.Join(err, os.Link(aside.tmp, part), disk.RemoveTmp(aside.tmp))
		}
		return nil
	})
	if err != nil {
		return store.BodyRef{}, err
	}
	if name == "" {
		return ref, u.keep(aside)
	}
	ref.Body = name
	return ref, disk.RemoveTmp(aside.tmp)
}
