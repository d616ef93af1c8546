package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
)

// ProbePrefix begins the temporary names in a store's own folder, so that a sweep knows them.
const ProbePrefix = ".fetchfleet-tmp~"

// probeSize is about what a small unit needs: a nearly full disk should fail here.
const probeSize = 64 << 10

// ErrClosed is returned by what is called after Close.
var ErrClosed = errors.New("the store is closed")

// Check writes, flushes, links and removes a small file, and says what is wrong if it cannot: the folder is missing,
// full, read-only, without hard links, or not the one that was opened. run is of RunName.
func (f *Folder) Check(ctx context.Context, run string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	err := f.isThere()
	if err == nil {
		err = f.probe(run)
	}
	if err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	return nil
}

// isThere reports a folder that is missing or another one, as when its file system is not mounted.
func (f *Folder) isThere() error {
	fi, err := os.Stat(f.path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("folder %s is missing: mount it or make it again: %w", f.path, err)
	}
	if err != nil {
		return Trouble("open", f.path, err)
	}
	opened, err := f.handle.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", f.path, errors.Join(ErrClosed, err))
	}
	if !os.SameFile(fi, opened) {
		return fmt.Errorf("%s is another folder than the one that was opened, which was moved, removed or unmounted: "+
			"put it back or start the worker again", f.path)
	}
	return nil
}

func (f *Folder) probe(run string) error {
	path := filepath.Join(f.path, ProbePrefix+run+"~"+RandomHex(4))
	linked := path + "~2"
	err := WriteFile(path, make([]byte, probeSize))
	if err == nil {
		defer func() { _ = RemoveTmp(path) }()
		err = SyncFile(path)
	} else {
		_ = RemoveTmp(path) // what was written before the disk was full
	}
	if err != nil {
		return Trouble("write", f.path, err)
	}
	if err := os.Link(path, linked); err != nil {
		if IsNoLinks(err) {
			return NoLinks(f.path, err)
		}
		return Trouble("link", f.path, err)
	}
	return RemoveTmp(linked)
}

// Agree returns the first valid content among the files name, name.1, … of the folder, and links what mine returns to
// the first free name. Files are linked whole, so whoever comes second reads what the first one wrote. A torn file,
// which only a failing disk or a hand can leave, is never repaired in place, where two might repair it differently: it
// stays torn for everyone, and the next name decides. An error of valid is final.
func (f *Folder) Agree(ctx context.Context, run, name string, valid func([]byte) (bool, error), mine func() []byte) ([]byte, error) {
	for n := 0; n < 100; {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		path := filepath.Join(f.path, name)
		if n > 0 {
			path += "." + strconv.Itoa(n)
		}
		data, err := os.ReadFile(path)
		switch {
		case err == nil:
			ok, err := valid(data)
			if ok || err != nil {
				return data, err
			}
			n++ // torn
		case !errors.Is(err, os.ErrNotExist):
			return nil, Trouble("read", path, err)
		case mine == nil:
			return nil, os.ErrNotExist
		default:
			if err := f.propose(run, path, mine()); err != nil {
				return nil, err
			}
		}
	}
	return nil, fmt.Errorf("all of %s and its successors are damaged", filepath.Join(f.path, name))
}

// propose links data to path, durably, unless another is there.
func (f *Folder) propose(run, path string, data []byte) error {
	tmp := filepath.Join(f.path, ProbePrefix+run+"~"+RandomHex(4))
	defer func() { _ = RemoveTmp(tmp) }()
	if err := WriteFile(tmp, data); err != nil {
		return Trouble("write", tmp, err)
	}
	if err := SyncFile(tmp); err != nil {
		return Trouble("flush", tmp, err)
	}
	err := os.Link(tmp, path)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil && IsNoLinks(err):
		return NoLinks(f.path, err)
	case err != nil:
		return Trouble("link", path, err)
	}
	if err := SyncFile(f.path); err != nil {
		return Trouble("flush", f.path, err)
	}
	return nil
}
