package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// Sweep removes what dead workers left under a job's tmp, as far as it was last changed longer than olderThan ago and
// belongs to no live unit of this Store; records of a unit that was committed are put in place instead. Parts that old
// go, too, unless somebody holds them. It returns how many files it removed, a part counted once. olderThan should exceed the longest life of a unit: one that is swept while its worker still
// lives cannot be committed any more, though never wrongly.
//
// That holds because of an order: a worker writes its account aside before its records, and Sweep removes the account
// before it looks whether the unit was committed and only then the records. So when records go, either they were put
// in place, or the link that would have made them needed can no longer be made.
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
			if err := s.sweepFile(ctx, job, folder, e.Name()); err != nil {
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

// isStale reports whether a file is temporary, old enough and of no live unit.
func (s *Store) isStale(folder string, e os.DirEntry, before time.Time) bool {
	if folder == s.dir && !strings.HasPrefix(e.Name(), disk.ProbePrefix) || e.IsDir() {
		return false
	}
	fi, err := e.Info()
	if err != nil || fi.ModTime().After(before) {
		return false
	}
	return !s.isLive(stemOf(e.Name()))
}

// isLive reports whether a stem is of a unit of this Store that has not ended.
func (s *Store) isLive(stem string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[stem]
}

// stemOf returns WORKER~RUN~N of a temporary name.
func stemOf(name string) string {
	end := 0
	for range 3 {
		i := strings.IndexAny(name[end:], "~")
		if i < 0 {
			return strings.TrimSuffix(name, tmpSpill)
		}
		end += i + 1
	}
	return name[:end-1]
}

func (s *Store) sweepFile(ctx context.Context, job, folder, name string) error {
	path := filepath.Join(folder, name)
	base, ok := strings.CutSuffix(name, tmpRecords)
	if !ok || folder == s.dir {
		return disk.RemoveTmp(path)
	}
	if err := disk.RemoveTmp(filepath.Join(folder, base+tmpAccount)); err != nil {
		return err
	}
	unit := base[strings.LastIndexByte(base, '~')+1:]
	if _, err := s.findAccount(ctx, job, unit); err != nil && !errors.Is(err, store.ErrNotFound) {
		return err
	}
	return disk.RemoveTmp(path) // not there any more if it was put in place
}
