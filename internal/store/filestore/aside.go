package filestore

import (
	"errors"
	"os"
	"path/filepath"
)

// asideBody is a body that is whole but not yet in place. A small one is preferably a file without a name (O_TMPFILE):
// to link it takes half of what a rename between folders costs, which was a quarter of storing a page, and a crash
// leaves nothing of it. It stays open until it is in place, so where many wait, or cannot be nameless, they are
// files under tmp.
type asideBody struct {
	body string // the Body field of its record
	tmp  string // path; where nameless, the one it would have
	fd   int    // of a nameless file; -1 if it has a name
	size int64
}

// writeBody writes a small body aside.
func (s *Store) writeBody(b *asideBody, folder string, data []byte) error {
	b.fd = -1
	b.size = int64(len(data))
	if s.nameless.Add(1) <= s.maxNameless.Load() {
		err := s.inFolder(folder, func() (err error) {
			b.fd, err = writeNameless(folder, data)
			return err
		})
		if err == nil {
			return nil
		}
		s.nameless.Add(-1)
		if !isNoNameless(err) && !isTooManyFiles(err) {
			return err
		}
		if isNoNameless(err) {
			s.maxNameless.Store(0)
		}
	} else {
		s.nameless.Add(-1)
	}
	err := s.inFolder(folder, func() error { return writeFile(b.tmp, data) })
	if err != nil {
		_ = removeTmp(b.tmp) // what was written before the disk was full
	}
	return err
}

// place puts a body in place and lets go of its file.
func (s *Store) place(b asideBody, to string) error {
	if b.fd < 0 {
		return s.placeNamed(b, to)
	}
	err := s.inFolder(filepath.Dir(to), func() error { return linkNameless(b.fd, to) })
	if errors.Is(err, os.ErrExist) && !hasSize(to, b.size) {
		// Torn when the machine lost its power under Sync "off". Only a rename replaces it.
		if err = linkNameless(b.fd, b.tmp); err == nil || errors.Is(err, os.ErrExist) {
			err = s.placeNamed(b, to)
		}
	}
	if err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	return s.drop(b)
}

// placeNamed renames. A body that is in place already has the same bytes and serves as well, which matters where a
// file that is being read cannot be replaced (Windows).
func (s *Store) placeNamed(b asideBody, to string) error {
	err := s.inFolder(filepath.Dir(to), func() error { return rename(b.tmp, to) })
	if err != nil && hasSize(b.tmp, b.size) && hasSize(to, b.size) {
		return removeTmp(b.tmp)
	}
	return err
}

// drop lets go of what was written aside.
func (s *Store) drop(b asideBody) error {
	if b.fd < 0 {
		return removeTmp(b.tmp)
	}
	s.nameless.Add(-1)
	if err := closeNameless(b.fd); err != nil {
		return trouble("close body", b.tmp, err)
	}
	return nil
}

func hasSize(path string, size int64) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Size() == size
}
