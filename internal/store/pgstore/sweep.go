package pgstore

import (
	"context"
	"fmt"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
)

// Sweep removes the bodies of units that were begun longer than olderThan ago, by the server's clock, and never
// committed, and parts that nobody has touched for as long. It returns how many units and parts they were. A unit that
// is swept while its worker still lives cannot be committed any more, and its worker is told so.
func (s *Store) Sweep(ctx context.Context, job string, olderThan time.Duration) (removed int, err error) {
	if err := store.CheckName("job", job); err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	units, err := s.staleUnits(ctx, job, olderThan)
	if err != nil {
		return 0, fmt.Errorf("sweep job %s: %w", job, err)
	}
	for _, k := range units {
		if s.isLive(k) {
			continue
		}
		if err := s.sweepUnit(ctx, k); err != nil {
			return removed, fmt.Errorf("sweep job %s: %w", job, err)
		}
		removed++
	}
	parts, err := s.sweepParts(ctx, job, olderThan)
	if err != nil {
		return removed + parts, fmt.Errorf("sweep job %s: %w", job, err)
	}
	return removed + parts, nil
}

// staleUnits returns the keys of the units in writing. There are few: one for each worker that died.
func (s *Store) staleUnits(ctx context.Context, job string, olderThan time.Duration) (keys []key, err error) {
	err = s.page(ctx, `SELECT owner FROM writing WHERE job = $1 AND begun_at <= now() - make_interval(secs => $2)`,
		[]any{job, olderThan.Seconds()}, func(rows pgx.Rows) (bool, error) {
			var k key
			err := rows.Scan(&k)
			keys = append(keys, k)
			return true, err
		})
	return keys, err
}
