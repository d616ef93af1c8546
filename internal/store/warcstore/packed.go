package warcstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Packed lists the merged files of a job, by name, each followed by its sorted CDXJ index. They are never changed. Units
// that were committed after the last Compact are in none of them.
func (s *Store) Packed(ctx context.Context, job string) (paths []string, err error) {
	if err := errors.Join(store.CheckName("job", job), ctx.Err()); err != nil {
		return nil, fmt.Errorf("list packed files: %w", err)
	}
	files, err := s.mergedFiles(job)
	if err != nil {
		return nil, fmt.Errorf("list packed files of job %s: %w", job, err)
	}
	for _, m := range files {
		index := stemPath(m.file) + cdxjExt
		if _, err := os.Stat(index); err != nil {
			return nil, fmt.Errorf("list packed files of job %s: the index of %s is missing, fleet verify --repair makes it anew: %w",
				job, filepath.Base(m.file), err)
		}
		paths = append(paths, m.file, index)
	}
	return paths, nil
}
