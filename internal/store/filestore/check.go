package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// probePrefix begins the temporary names in the store's own folder. Sweep knows it.
const probePrefix = ".fetchfleet-tmp~"

// probeSize is about what a small unit needs: a nearly full disk should fail here.
const probeSize = 64 << 10

// Check writes, flushes, links and removes a small file, and says what is wrong if it cannot: the folder is missing,
// full, read-only, without hard links, or not the one that was there when Identity was first asked for.
func (s *Store) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := s.checkFolder(); err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	if err := s.probe(); err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	return nil
}

// checkFolder reports a folder that is missing or another one, as when its file system is not mounted.
func (s *Store) checkFolder() error {
	fi, err := os.Stat(s.dir)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("folder %s is missing: mount it or make it again: %w", s.dir, err)
	}
	if err != nil {
		return trouble("open", s.dir, err)
	}
	opened, err := s.handle.Stat()
	if err != nil {
		return fmt.Errorf("%s: %w", s.dir, errors.Join(errClosed, err))
	}
	if !os.SameFile(fi, opened) {
		return fmt.Errorf("%s is another folder than the one that was opened, which was moved, removed or unmounted: "+
			"put it back or start the worker again", s.dir)
	}
	return nil
}

func (s *Store) probe() error {
	path := filepath.Join(s.dir, probePrefix+s.run+"~"+randomHex(4))
	linked := path + "~2"
	err := writeFile(path, make([]byte, probeSize))
	if err == nil {
		defer func() { _ = removeTmp(path) }()
		err = syncFile(path)
	} else {
		_ = removeTmp(path) // what was written before the disk was full
	}
	if err != nil {
		return trouble("write", s.dir, err)
	}
	if err := os.Link(path, linked); err != nil {
		if isNoLinks(err) {
			return noLinks(s.dir, err)
		}
		return trouble("link", s.dir, err)
	}
	return removeTmp(linked)
}
