// Package parts keeps the beginnings of large bodies in a folder, for the stores that live in one:
//
//	REQUEST.part   the bytes as they were sent
//	REQUEST.json   what they are of, how many surely lie there, and the state of their SHA-256
//	REQUEST.tmp    the next REQUEST.json while it is written
//
// Whoever has a part holds a lock on its file (flock, LockFileEx), which the system takes from a process that dies: a
// part is in the hands of one living holder or of nobody, also among machines that share the folder, if its file system
// passes such locks on (NFS does).
//
// It promises that what a part is said to hold is what was written, whatever died when, and that its digest is that of
// the whole without reading it again. After a crash a part goes back to its last checkpoint; see Options.Sync.
package parts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// The endings of the files of a part.
const (
	bytesEnding = ".part"
	noteEnding  = ".json"
	asideEnding = ".tmp"
)

// defaultEvery bounds what a crash costs: a second's transfer over a fast line, and one flush for it.
const defaultEvery = 64 << 20

// Options are how a folder's parts are kept. The zero value flushes nothing and cannot Adopt.
type Options struct {
	// Sync makes checkpoints durable, and only they are trusted after a crash. Without it a part goes on from all
	// that its file holds, which is right after a crash of the program and may be wrong after one of the machine.
	Sync bool
	// Every is how many bytes there are between two checkpoints; 0 = 64 MiB.
	Every int64
	// Adopt makes a whole part a body of a unit. It either has the part's file moved away (Whole.Give) or copies what
	// it needs; the part is then removed. nil = Adopt fails.
	Adopt func(ctx context.Context, u store.Unit, meta store.BodyMeta, w *Whole) (store.BodyRef, error)
	// MakeFolder makes the folder when it is missing; nil = os.MkdirAll.
	MakeFolder func(path string) error
	// Explain wraps an error of the file system; nil = operation, path, cause.
	Explain func(op, path string, err error) error
}

// Folder is the parts of one job. The value may be made anew at any time: all state lies in the files.
type Folder struct {
	path string
	o    Options
}

// In returns the parts in a folder, which is made when the first part is taken.
func In(path string, o Options) *Folder {
	if o.Every <= 0 {
		o.Every = defaultEvery
	}
	if o.MakeFolder == nil {
		o.MakeFolder = func(path string) error { return os.MkdirAll(path, 0o755) }
	}
	if o.Explain == nil {
		o.Explain = func(op, path string, err error) error { return fmt.Errorf("%s %s: %w", op, path, err) }
	}
	return &Folder{path: path, o: o}
}

func (f *Folder) file(request, ending string) string { return filepath.Join(f.path, request+ending) }

// Take takes the part of a request into the caller's hands, an empty one where there is nothing, or returns an error
// that wraps store.ErrBusy.
func (f *Folder) Take(ctx context.Context, request string) (*Part, error) {
	if err := errors.Join(store.CheckName("request", request), ctx.Err()); err != nil {
		return nil, fmt.Errorf("take part: %w", err)
	}
	file, err := f.hold(ctx, request)
	if err != nil {
		return nil, fmt.Errorf("take part of request %s: %w", request, err)
	}
	p := &Part{folder: f, request: request, file: file}
	if err := p.load(); err != nil {
		_ = file.Close()
		return nil, fmt.Errorf("take part of request %s: %w", request, err)
	}
	return p, nil
}

// hold opens and locks the file of a part, which is made if there is none.
func (f *Folder) hold(ctx context.Context, request string) (*os.File, error) {
	path := f.file(request, bytesEnding)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		file, err := f.open(path)
		if err != nil {
			return nil, f.o.Explain("open", path, err)
		}
		if err = lock(file); err == nil {
			// It may have been adopted or dropped between the two calls. The lock is then on a file without this name.
			var there bool
			if there, err = isAt(file, path); err == nil && there {
				return file, nil
			}
		}
		_ = file.Close()
		if errors.Is(err, store.ErrBusy) {
			return nil, err
		}
		if err != nil {
			return nil, f.o.Explain("lock", path, err)
		}
	}
}

func (f *Folder) open(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
	if !errors.Is(err, os.ErrNotExist) {
		return file, err
	}
	if err := f.o.MakeFolder(f.path); err != nil {
		return nil, err
	}
	return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o644)
}

// isAt reports whether path is the name of an open file.
func isAt(file *os.File, path string) (bool, error) {
	opened, err := file.Stat()
	if err != nil {
		return false, err
	}
	named, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	return err == nil && os.SameFile(opened, named), err
}

// Has reports whether bytes are kept of a request, in whosever hands.
func (f *Folder) Has(ctx context.Context, request string) (bool, error) {
	if err := errors.Join(store.CheckName("request", request), ctx.Err()); err != nil {
		return false, fmt.Errorf("look for part: %w", err)
	}
	n, err := f.readNote(request)
	if err != nil || n == nil {
		return false, err
	}
	fi, err := os.Stat(f.file(request, bytesEnding))
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, f.o.Explain("look for part", f.file(request, bytesEnding), err)
	}
	return fi.Size() > 0 && fi.Size() >= n.Size, nil
}

// Sweep removes the parts that nobody holds and that were last changed before a time. It returns how many.
func (f *Folder) Sweep(ctx context.Context, before time.Time) (removed int, err error) {
	list, err := os.ReadDir(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, f.o.Explain("open", f.path, err)
	}
	for _, e := range list { // sorted: a note comes before its part, and is left to it
		if err := ctx.Err(); err != nil {
			return removed, err
		}
		gone, err := f.sweep(e, before)
		if err != nil {
			return removed, err
		}
		if gone {
			removed++
		}
	}
	return removed, nil
}

func (f *Folder) sweep(e os.DirEntry, before time.Time) (gone bool, err error) {
	fi, err := e.Info()
	switch {
	case errors.Is(err, os.ErrNotExist):
		return false, nil
	case err != nil:
		return false, f.o.Explain("open", filepath.Join(f.path, e.Name()), err)
	case e.IsDir() || fi.ModTime().After(before):
		return false, nil
	}
	request, ending, ok := cutEnding(e.Name())
	switch {
	case !ok:
		return false, nil
	case ending != bytesEnding:
		_, err := os.Stat(f.file(request, bytesEnding))
		if !errors.Is(err, os.ErrNotExist) {
			return false, nil // goes with its part
		}
	}
	file, err := f.hold(context.Background(), request)
	if errors.Is(err, store.ErrBusy) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, (&Part{folder: f, request: request, file: file}).Drop()
}

// cutEnding parts the name of a file into request and ending.
func cutEnding(name string) (request, ending string, ok bool) {
	for _, ending := range []string{bytesEnding, noteEnding, asideEnding} {
		if request, ok := strings.CutSuffix(name, ending); ok && store.CheckName("request", request) == nil {
			return request, ending, true
		}
	}
	return "", "", false
}

// Count adds up what is kept.
func (f *Folder) Count(ctx context.Context) (parts int, size int64, err error) {
	list, err := os.ReadDir(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return 0, 0, nil
	}
	if err != nil {
		return 0, 0, f.o.Explain("open", f.path, err)
	}
	for _, e := range list {
		if fi, err := e.Info(); err == nil && strings.HasSuffix(e.Name(), bytesEnding) {
			parts++
			size += fi.Size()
		}
	}
	return parts, size, ctx.Err()
}
