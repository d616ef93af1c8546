package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/fetchfleet/fetchfleet/internal/export"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

func (c *exportCommand) isWARC() bool { return export.Format(c.Format) == export.WARC }

// folder is where WARC files go: one that is there or can be made, without an export of the same job.
func (c *exportCommand) folder(IO) (string, error) {
	there, err := os.Stat(c.Out)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		parent := filepath.Dir(c.Out)
		if above, err := os.Stat(parent); err != nil || !above.IsDir() {
			return "", usage("--out %s: there is no folder %s: make it first", c.Out, parent)
		}
		return c.Out, nil
	case err != nil:
		return "", fmt.Errorf("--out: %w", err)
	case !there.IsDir():
		return "", usage("--out %s is no folder: --format warc writes several files", c.Out)
	}
	for _, name := range []string{c.Job + "-00000.warc.gz", c.Job + ".cdxj"} {
		if _, err := os.Lstat(filepath.Join(c.Out, name)); err == nil {
			return "", usage("--out %s has %s already: name another folder, or remove %s-*.warc.gz and %s.cdxj there", c.Out, name, c.Job, c.Job)
		}
	}
	return c.Out, nil
}

// archive writes WARC files aside, in a folder within the one they go to, and puts them there when all are whole, the
// index last.
func (e *exporting) archive(ctx context.Context, dir string) (err error) {
	if err := os.Mkdir(dir, 0o755); err == nil {
		defer func() { _ = os.Remove(dir) }() // which fails unless it is empty
	} else if !errors.Is(err, fs.ErrExist) {
		return err
	}
	aside, err := os.MkdirTemp(dir, ".export-*")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(aside)) }()
	files, err := e.archiveInto(ctx, aside)
	if err != nil {
		return err
	}
	for _, name := range files {
		if err := os.Rename(filepath.Join(aside, name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// archiveInto writes the files, or takes those that the store has, and returns their names, the index last.
func (e *exporting) archiveInto(ctx context.Context, dir string) (files []string, err error) {
	if s, ok := e.store.(packed); ok && len(e.Where) == 0 && e.Limit == 0 {
		return e.takePacked(ctx, s, dir)
	}
	o, err := e.options()
	if err != nil {
		return nil, err
	}
	return export.WriteWARC(ctx, e.records(ctx), export.WARCOptions{Options: o, Dir: dir, Name: e.Job, OpenBody: e.openBody})
}

func (e *exporting) openBody(ctx context.Context, r *store.Record) (io.ReadCloser, error) {
	return e.store.OpenBody(ctx, r.BodyOf(), r.Body)
}

// packed is a store that keeps WARC files itself, with what went over the wire.
type packed interface {
	store.Compactor
	// Packed lists the files into which a job was packed: WARC files, and for each its sorted CDXJ index, whose name ends
	// in ".cdxj". They are never changed.
	Packed(ctx context.Context, job string) ([]string, error)
}

// takePacked packs the job and takes the files as they are, with one index for all.
func (e *exporting) takePacked(ctx context.Context, s packed, dir string) (files []string, err error) {
	if err := s.Compact(ctx, e.Job); err != nil {
		return nil, err
	}
	paths, err := s.Packed(ctx, e.Job)
	if err != nil {
		return nil, err
	}
	var indexes []string
	for _, path := range paths {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if filepath.Ext(path) == ".cdxj" {
			indexes = append(indexes, path)
			continue
		}
		name := filepath.Base(path)
		if err := linkOrCopy(ctx, path, filepath.Join(dir, name)); err != nil {
			return nil, err
		}
		files = append(files, name)
	}
	e.taken = len(files)
	index := e.Job + ".cdxj"
	return append(files, index), mergeFiles(filepath.Join(dir, index), indexes)
}

// linkOrCopy gives a file that is never changed a second name, or a copy on another file system.
func linkOrCopy(ctx context.Context, from, to string) error {
	if os.Link(from, to) == nil {
		return nil
	}
	f, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return writeAtomically(to, func(w io.Writer) error {
		for {
			if err := ctx.Err(); err != nil {
				return err
			}
			if _, err := io.CopyN(w, f, 16<<20); err != nil {
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			}
		}
	})
}

// mergeFiles merges sorted files into one.
func mergeFiles(to string, from []string) error {
	return writeAtomically(to, func(w io.Writer) error {
		var readers []io.Reader
		for _, path := range from {
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer func() { _ = f.Close() }()
			readers = append(readers, f)
		}
		return export.MergeLines(w, readers...)
	})
}
