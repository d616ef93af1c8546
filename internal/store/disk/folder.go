package disk

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
)

// Folder is the folder of a store, held open so that it can be told from another that takes its place.
type Folder struct {
	path   string
	handle *os.File
}

// OpenFolder makes a folder if need be and opens it.
func OpenFolder(dir string) (*Folder, error) {
	fi, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(dir, 0o755); err == nil {
			fi, err = os.Stat(dir)
		}
	}
	if err != nil {
		return nil, Trouble("open store", dir, err)
	}
	if !fi.IsDir() {
		return nil, fmt.Errorf("open store %s: it is a file, give the name of a folder", dir)
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, Trouble("open store", dir, err)
	}
	return &Folder{path: dir, handle: f}, nil
}

// Syncer returns a syncer of the file system on which the folder is.
func (f *Folder) Syncer() *Syncer { return NewSyncer(flusher(f.handle)) }

// Close closes the folder.
func (f *Folder) Close() error { return f.handle.Close() }

// In calls do, which makes a name in path, a folder below this one. Folders are made only when do has found them
// missing: the common case costs no call, and a folder that someone removed meanwhile comes back. The store's own
// folder is never made again, since its absence means that a file system is not mounted.
func (f *Folder) In(path string, do func() error) error {
	err := do()
	if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err := f.Make(path); err != nil {
		return err
	}
	return do()
}

// Make makes path and what is missing between it and the store's folder.
func (f *Folder) Make(path string) error {
	err := os.Mkdir(path, 0o755)
	switch parent := filepath.Dir(path); {
	case err == nil || errors.Is(err, os.ErrExist):
		return nil
	case !errors.Is(err, os.ErrNotExist):
		return err
	case parent == f.path || len(parent) <= len(f.path):
		return fmt.Errorf("the store's folder %s is missing, mount it or make it again: %w", f.path, err)
	default:
		if err := f.Make(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(path, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return nil
}

// RunName makes the beginning of one store value's temporary names: the worker, made safe for a file name, and eight
// random bytes, because a restarted worker may have the same name. "" means "worker".
func RunName(worker string) string {
	if worker == "" {
		worker = "worker"
	}
	safe := strings.Map(func(r rune) rune {
		if r < 0x80 && (r == '.' || r == '-' || r == '_' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z') {
			return r
		}
		return '_'
	}, worker)
	if safe = safe[:min(len(safe), 40)]; safe[0] == '.' {
		safe = "_" + safe[1:]
	}
	return safe + "~" + RandomHex(8)
}

// RandomHex returns n random bytes in hexadecimal digits.
func RandomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// RemoveTmp removes a temporary file that may be gone.
func RemoveTmp(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return Trouble("remove temporary file", path, err)
	}
	return nil
}

// Entries yields what is in a folder without reading it whole. A folder that is missing is empty.
func Entries(ctx context.Context, path string) iter.Seq2[os.DirEntry, error] {
	return func(yield func(os.DirEntry, error) bool) {
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			return
		}
		if err != nil {
			yield(nil, Trouble("open", path, err))
			return
		}
		defer func() { _ = f.Close() }()
		for {
			if err := ctx.Err(); err != nil {
				yield(nil, err)
				return
			}
			list, err := f.ReadDir(1024)
			for _, e := range list {
				if !yield(e, nil) {
					return
				}
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, Trouble("read", path, err))
				return
			}
		}
	}
}
