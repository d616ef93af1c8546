package filestore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// pathOf returns the name that a body should have by its URL, "" where bodies are named by their digest.
func (s *Store) pathOf(meta store.BodyMeta) string {
	if !s.byName {
		return ""
	}
	return pathName(meta)
}

// placePath gives a body the name that its URL suggests, or one near it where that holds other bytes or cannot be: link
// makes a name for the body's file and fails where there is one. What lies there is never replaced by other bytes, and is the
// body itself if it has the same; where it is older than a flush that failed, again renames the body's file over it. It
// returns "" where no such name can be had, and the digest is left.
//
// A body is in place before its unit is committed, as a small one is under its digest: see putBody.
func (u *unit) placePath(name, sha string, size int64, link, again func(to string) error) (string, error) {
	for _, candidate := range []string{
		name, variant(name, "~"+sha[:8]), flat(name, "~"+sha[:8]), variant(name, "~"+sha[:32]), flat(name, "~"+sha[:32]),
	} {
		to := u.s.bodyPath(u.job, candidate)
		err := u.s.folder.In(folderOf(to), func() error { return link(to) })
		switch {
		case err == nil:
			return candidate, u.put(candidate)
		case errors.Is(err, os.ErrExist):
			same, err := holds(to, sha, size)
			if err != nil {
				return "", disk.Trouble("read body", to, err)
			}
			if same && !u.s.serves(to, size) {
				if err := again(to); err != nil {
					return "", bodyTrouble("put body in place", to, err)
				}
			}
			if same {
				return candidate, u.put(candidate)
			}
		case disk.IsBadName(err):
			return "", nil // a file system that takes less than others
		case !u.s.fileInTheWay(to):
			return "", bodyTrouble("put body in place", to, err)
		}
	}
	return "", nil
}

// holds reports whether a file has these bytes.
func holds(path, sha string, size int64) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) { // gone meanwhile; another name will do
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil || !fi.Mode().IsRegular() || fi.Size() != size {
		return false, err
	}
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return false, err
	}
	return hex.EncodeToString(h.Sum(nil)) == sha, nil
}

// fileInTheWay reports whether a folder that a path needs is a file.
func (s *Store) fileInTheWay(path string) bool {
	for folder := filepath.Dir(path); len(folder) > len(s.dir); folder = filepath.Dir(folder) {
		if fi, err := os.Lstat(folder); err == nil {
			return !fi.IsDir()
		}
	}
	return false
}

// putSmall puts a small body in place by its URL. See placePath and putBody.
func (u *unit) putSmall(name, sha string, n int, data []byte) (string, error) {
	tmp := "" // where it was written, if it needs a name
	defer func() {
		if tmp != "" {
			_ = disk.RemoveTmp(tmp)
		}
	}()
	write := func() error {
		if tmp != "" {
			return nil
		}
		tmp = u.bodyTmp(n)
		if err := u.s.folder.In(u.jobTmp(), func() error { return disk.WriteFile(tmp, data) }); err != nil {
			return disk.Trouble("write body", tmp, err)
		}
		return nil
	}
	link := func(to string) error {
		if !u.s.named.Load() {
			err := disk.PutNameless(to, data)
			if !disk.IsNoNameless(err) {
				return err
			}
			u.s.named.Store(true)
		}
		if err := write(); err != nil {
			return err
		}
		return os.Link(tmp, to)
	}
	return u.placePath(name, sha, int64(len(data)), link, func(to string) error {
		if err := write(); err != nil {
			return err
		}
		return disk.Rename(tmp, to)
	})
}

// putLarge puts a body that was written aside in place by its URL. The file aside is left where no name can be had; else
// it is gone.
func (u *unit) putLarge(name, sha string, aside asideBody) (string, error) {
	name, err := u.placePath(name, sha, aside.size, aside.link, aside.rename)
	if name == "" && err == nil {
		return "", nil
	}
	if derr := disk.RemoveTmp(aside.tmp); err == nil {
		err = derr
	}
	return name, err
}
