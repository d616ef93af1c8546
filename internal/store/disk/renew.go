package disk

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
)

// Renew writes files of which Settle says ErrLost once more and puts them under the names they have, durably: after that they
// may be trusted. tmp returns the path of temporary file number n. What is gone is passed over. The files must be such as
// never change, so that nobody sees a difference.
func (f *Folder) Renew(ctx context.Context, s *Syncer, tmp func(n int) string, paths []string) error {
	since := s.Mark()
	written := make(map[string]string, len(paths)) // by temporary path
	defer func() {
		for from := range written {
			_ = RemoveTmp(from)
		}
	}()
	var flush []string
	for n, to := range paths {
		in, err := os.Open(to)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		from := tmp(n)
		written[from] = to
		if err == nil {
			err = errors.Join(f.copy(ctx, in, from), in.Close())
		}
		if err != nil {
			return Trouble("write again", to, err)
		}
		flush = append(flush, from)
	}
	err := s.Barrier(ctx, since, flush)
	if err != nil {
		return Trouble("flush to disk", f.path, err)
	}
	flush = flush[:0]
	for from, to := range written {
		if err := Rename(from, to); err != nil {
			return Trouble("put in place again", to, err)
		}
		flush = append(flush, filepath.Dir(to))
	}
	if err := s.Barrier(ctx, since, flush); err != nil {
		return Trouble("flush to disk", f.path, err)
	}
	return nil
}

// copy copies a file to a new one.
func (f *Folder) copy(ctx context.Context, in io.Reader, to string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	var out *os.File
	err := f.In(filepath.Dir(to), func() (err error) {
		out, err = os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		return err
	})
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
