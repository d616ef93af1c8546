package warcstore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// Sweep removes what dead workers left under a job's tmp, as far as it was last changed longer than olderThan ago and
// belongs to no live unit of this Store. Parts that old go, too, unless somebody holds them. It returns how many files it
// removed, a part counted once. olderThan should exceed the longest life of
// a unit: one that is swept while its worker still lives cannot be committed any more, though never wrongly. Small units
// leave nothing.
func (s *Store) Sweep(ctx context.Context, job string, olderThan time.Duration) (removed int, err error) {
	if err := store.CheckName("job", job); err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	before := time.Now().Add(-olderThan)
	for _, folder := range []string{s.jobPath(job, tmpFolder), s.dir} {
		for e, err := range disk.Entries(ctx, folder) {
			if err != nil {
				return removed, fmt.Errorf("sweep job %s: %w", job, err)
			}
			if !s.isStale(folder, e, before) {
				continue
			}
			if err := disk.RemoveTmp(filepath.Join(folder, e.Name())); err != nil {
				return removed, fmt.Errorf("sweep job %s: %w", job, err)
			}
			removed++
		}
	}
	n, err := s.parts(job).Sweep(ctx, before)
	removed += n
	if err != nil {
		return removed, fmt.Errorf("sweep job %s: %w", job, err)
	}
	return removed, nil
}

// isStale reports whether a file is temporary, old enough and of nobody alive here.
func (s *Store) isStale(folder string, e os.DirEntry, before time.Time) bool {
	if folder == s.dir && !strings.HasPrefix(e.Name(), disk.ProbePrefix) || e.IsDir() {
		return false
	}
	fi, err := e.Info()
	if err != nil || fi.ModTime().After(before) {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.live[stemOf(e.Name())]
}

// stemOf returns WORKER~RUN~N of a temporary name.
func stemOf(name string) string {
	parts := strings.SplitN(name, "~", 4)
	if len(parts) < 3 {
		return name
	}
	n, _, _ := strings.Cut(parts[2], ".")
	return parts[0] + "~" + parts[1] + "~" + n
}
