package several

import (
	"context"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// resumer is a Store whose first store keeps the beginnings of large bodies.
type resumer struct {
	*Store
	parts store.Resumer
}

var _ store.Resumer = (*resumer)(nil)

// Part takes the part that the first store has. The others get the body when it is whole.
func (s *resumer) Part(ctx context.Context, job, request string) (store.Part, error) {
	p, err := s.parts.Part(ctx, job, request)
	if err != nil {
		return nil, err
	}
	return part{p}, nil
}

// HasPart reports whether the first store has a part.
func (s *resumer) HasPart(ctx context.Context, job, request string) (bool, error) {
	return s.parts.HasPart(ctx, job, request)
}

// part is a part in the first store.
type part struct{ store.Part }

// Adopt makes the part a body of the unit in the first store. The others get it from there when the unit is committed,
// as they get every body that was not written through the unit.
func (p part) Adopt(ctx context.Context, u store.Unit, meta store.BodyMeta) (store.BodyRef, error) {
	if ours, ok := u.(*unit); ok {
		u = ours.first
	}
	return p.Part.Adopt(ctx, u, meta)
}
