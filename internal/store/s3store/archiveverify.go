package s3store

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// Verify reads every unit of a job whole: that each record is, has the digests that it names, and lies where the account
// says. It also reports objects that are no units, bodies whose transfer was cut, which stay, and uploads that were not
// completed; those it aborts with repair, which is for a job at which nobody works.
func (s *Archive) Verify(ctx context.Context, job string, repair bool, found func(store.Finding)) error {
	err := store.CheckName("job", job)
	if err == nil {
		v := &verifier{job: job, repair: repair, found: found}
		if err = s.verifyUnits(ctx, v); err == nil {
			err = v.cutTransfers(ctx, &s.base)
		}
		if err == nil {
			err = v.strayUploads(ctx, &s.base)
		}
	}
	if err != nil {
		return fmt.Errorf("verify job %s: %w", job, err)
	}
	return nil
}

// verifyUnits looks at every object of a job.
func (s *Archive) verifyUnits(ctx context.Context, v *verifier) error {
	kind, err := s.kind(ctx)
	if err != nil {
		return err
	}
	folder := s.keys.folder(v.job, warcunit.UnitsFolder)
	for o, err := range s.c.list(ctx, s.keys.body(v.job, "")) {
		if err != nil {
			return err
		}
		if strings.HasPrefix(o.Key, s.keys.folder(v.job, partsFolder)) {
			continue // cutTransfers reports them
		}
		unit, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, folder), kind.Ext())
		if !ok || store.CheckName("unit", unit) != nil {
			v.found(store.Finding{Kind: "orphan", Where: o.Key, What: "it is no unit of this store, and nothing reads it",
				Note: !strings.HasSuffix(o.Key, kind.Ext())})
			continue
		}
		if err := s.verifyUnit(ctx, v, unit, o.Key); err != nil {
			return err
		}
	}
	return nil
}

func (s *Archive) verifyUnit(ctx context.Context, v *verifier, unit, key string) error {
	f, err := s.readWhole(ctx, v.job, unit, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil // removed by hand meanwhile
	case err != nil:
		f, err = warcunit.Damaged(key, err)
	}
	if f != nil {
		v.found(*f)
	}
	return err
}

func (s *Archive) readWhole(ctx context.Context, job, unit, key string) (*store.Finding, error) {
	o, err := s.openTail(ctx, job, unit)
	if err != nil {
		return nil, err
	}
	defer func() { _ = o.Close() }()
	return o.Verify(key, job, unit)
}
