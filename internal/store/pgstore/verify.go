package pgstore

import (
	"context"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Verify is to come.
func (s *Store) Verify(ctx context.Context, job string, repair bool, found func(store.Finding)) error {
	return nil
}
