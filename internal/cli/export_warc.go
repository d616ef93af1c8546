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
	o, err := e.options()
	if err != nil {
		return err
	}
	files, err := export.WriteWARC(ctx, e.records(ctx), export.WARCOptions{Options: o, Dir: aside, Name: e.Job, OpenBody: e.openBody})
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

func (e *exporting) openBody(ctx context.Context, r *store.Record) (io.ReadCloser, error) {
	return e.store.OpenBody(ctx, r.BodyOf(), r.Body)
}
