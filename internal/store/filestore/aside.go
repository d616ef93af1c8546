package filestore

import (
	"errors"
	"os"

	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// putBody writes a small body and puts it in place. It does so while the page is at hand and not in the commit: a body
// is named by its digest, so it is right wherever it lies, and until the commit no record refers to it. To wait would
// mean as many open files as bodies, or one more rename between folders for each.
//
// Where it can, the file has no name before it is whole (O_TMPFILE): no other way is cheaper and a crash leaves
// nothing of it. Otherwise it is written to tmp and renamed.
func (u *unit) putBody(name string, n int, data []byte) error {
	s, to := u.s, u.s.bodyPath(u.job, name)
	if !s.named.Load() {
		err := s.folder.In(folderOf(to), func() error { return disk.PutNameless(to, data) })
		switch {
		case err == nil:
			return nil
		case disk.IsNoNameless(err):
			s.named.Store(true)
		case !errors.Is(err, os.ErrExist):
			return bodyTrouble("write body", to, err)
		case s.serves(to, int64(len(data))):
			return nil
		}
		// What is there was torn when the machine lost its power, or is older than a flush that failed. Only a rename
		// replaces it.
	}
	tmp := u.bodyTmp(n)
	err := s.folder.In(u.jobTmp(), func() error { return disk.WriteFile(tmp, data) })
	if err != nil {
		_ = disk.RemoveTmp(tmp) // what was written before the disk was full
		return bodyTrouble("write body", tmp, err)
	}
	if err := s.place(asideBody{tmp: tmp, size: int64(len(data))}, to); err != nil {
		return bodyTrouble("put body in place", to, err)
	}
	return nil
}

// asideBody is a large body that is whole but not yet in place.
type asideBody struct {
	body string // the Body field of its record
	tmp  string // path
	size int64
}

func (b asideBody) link(to string) error   { return os.Link(b.tmp, to) }
func (b asideBody) rename(to string) error { return disk.Rename(b.tmp, to) }

// place renames. A body that is in place already has the same bytes and serves as well, which matters where a file that
// is being read cannot be replaced (Windows).
func (s *Store) place(b asideBody, to string) error {
	err := s.folder.In(folderOf(to), func() error { return disk.Rename(b.tmp, to) })
	if err != nil && hasSize(b.tmp, b.size) && s.serves(to, b.size) {
		return disk.RemoveTmp(b.tmp)
	}
	return err
}

// serves reports whether a body that is in place already is as good as one written now.
func (s *Store) serves(path string, size int64) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Size() == size && s.sync.Trusts(fi)
}

func hasSize(path string, size int64) bool {
	fi, err := os.Stat(path)
	return err == nil && fi.Size() == size
}
