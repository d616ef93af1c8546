package warcstore

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// loadIndex remembers the payloads of CDXJ files of this store. Files of another store are refused: a record must be able
// to name its body.
func (s *Store) loadIndex(ctx context.Context, path string) error {
	if path == "" {
		return nil
	}
	files, err := cdxjFiles(path)
	if err != nil {
		return fmt.Errorf("dedupe index: %w", err)
	}
	for _, file := range files {
		if err := s.loadCDXJ(ctx, file); err != nil {
			return fmt.Errorf("dedupe index %s: %w", file, err)
		}
	}
	return nil
}

// cdxjFiles lists what is meant by a file or a folder.
func cdxjFiles(path string) ([]string, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, disk.Trouble("open", path, err)
	}
	if !fi.IsDir() {
		return []string{path}, nil
	}
	names, err := readNames(path)
	if err != nil {
		return nil, err
	}
	var files []string
	for _, name := range names {
		if strings.HasSuffix(name, cdxjExt) {
			files = append(files, filepath.Join(path, name))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("%s holds no %s file: name the folder JOB/warc of a job that has ended", path, cdxjExt)
	}
	return files, nil
}

// jobOf returns the job of this store whose index a file is.
func (s *Store) jobOf(path string) (string, error) {
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	job := filepath.Base(filepath.Dir(filepath.Dir(abs)))
	want, err := os.Stat(s.jobPath(job, mergedFolder))
	if err != nil || store.CheckName("job", job) != nil {
		return "", fmt.Errorf("it does not lie in this store, whose records could not name what it indexes")
	}
	if fi, err := os.Stat(filepath.Dir(abs)); err != nil || !os.SameFile(fi, want) {
		return "", fmt.Errorf("it does not lie in this store, whose records could not name what it indexes")
	}
	return job, nil
}

func (s *Store) loadCDXJ(ctx context.Context, path string) error {
	job, err := s.jobOf(path)
	if err != nil {
		return err
	}
	units, err := loadUnits(strings.TrimSuffix(path, cdxjExt) + unitsExt)
	if err != nil {
		return err
	}
	var places []entry // sorted by unit, and so by base
	for e, err := range units.units(ctx) {
		if err != nil {
			return err
		}
		places = append(places, e)
	}
	slices.SortFunc(places, func(a, b entry) int { return int(min(max(a.base-b.base, -1), 1)) })
	f, err := os.Open(path)
	if err != nil {
		return disk.Trouble("open", path, err)
	}
	defer func() { _ = f.Close() }()
	lines := bufio.NewScanner(bufio.NewReaderSize(f, 64<<10))
	lines.Buffer(nil, 4<<20)
	return s.shop.Index(job, func(put func(unit, sha256 string, offset int64)) error {
		for lines.Scan() {
			if err := ctx.Err(); err != nil {
				return err
			}
			if c, _, ok := warc.ParseCDXJ(lines.Bytes()); !ok {
				return errors.New("a line of it is no CDXJ")
			} else if c.MIME != warc.RevisitMIME && c.SHA256 != "" {
				putIndexed(put, places, &c)
			}
		}
		return lines.Err()
	})
}

// putIndexed remembers a capture, whose offset is that in the merged file.
func putIndexed(put func(unit, sha256 string, offset int64), places []entry, c *warc.Capture) {
	i, found := slices.BinarySearchFunc(places, c.Offset, func(e entry, at int64) int { return int(min(max(e.base-at, -1), 1)) })
	if !found {
		i--
	}
	if i >= 0 && c.Offset < places[i].base+places[i].size {
		put(places[i].unit, c.SHA256, c.Offset-places[i].base)
	}
}
