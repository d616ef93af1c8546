package s3store

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/minio/minio-go/v7"
)

// Units yields the name of every committed unit of a job, in no order: one call for each thousand. A job that does not
// exist has none.
func (s *Store) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := store.CheckName("job", job); err != nil {
			yield("", fmt.Errorf("list units: %w", err))
			return
		}
		for name, err := range s.names(ctx, s.keys.folder(job, accountsFolder), ".json") {
			if err != nil {
				yield("", fmt.Errorf("list units of job %s: %w", job, err))
				return
			}
			if !yield(name, nil) {
				return
			}
		}
	}
}

// names yields the names of units in a folder of a job.
func (s *base) names(ctx context.Context, folder, ending string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for info, err := range s.c.list(ctx, folder) {
			if err != nil {
				yield("", err)
				return
			}
			name, ok := strings.CutSuffix(strings.TrimPrefix(info.Key, folder), ending)
			if ok && store.CheckName("unit", name) == nil && !yield(name, nil) {
				return
			}
		}
	}
}

// Records yields the records of a committed unit in the order in which they were added, or store.ErrNotFound.
func (s *Store) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		lines, err := s.lines(ctx, job, unit)
		if err != nil {
			yield(nil, fmt.Errorf("read records of unit %s: %w", unit, err))
			return
		}
		decoded(ctx, unit, lines)(yield)
	}
}

var _ store.UnitReader = (*Store)(nil)

// ReadUnit returns the account of a committed unit, or store.ErrNotFound, and its records. They come with the account, so
// it makes one call, and one more only for a unit that was copied from a folder.
func (s *Store) ReadUnit(ctx context.Context, job, unit string) (*store.Account, iter.Seq2[*store.Record, error], error) {
	if err := checkNames(job, unit); err != nil {
		return nil, nil, fmt.Errorf("read unit: %w", err)
	}
	a, err := s.readAccount(ctx, job, unit)
	if err != nil {
		return nil, nil, fmt.Errorf("read unit %s: %w", unit, err)
	}
	return a.Account, func(yield func(*store.Record, error) bool) {
		lines, err := s.linesOf(ctx, job, unit, a)
		if err != nil {
			yield(nil, fmt.Errorf("read records of unit %s: %w", unit, err))
			return
		}
		decoded(ctx, unit, lines)(yield)
	}, nil
}

// decoded yields the records that lines hold.
func decoded(ctx context.Context, unit string, lines []json.RawMessage) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		for _, line := range lines {
			rec := new(store.Record)
			err := ctx.Err()
			if err == nil {
				err = json.Unmarshal(line, rec)
			}
			if err != nil {
				yield(nil, fmt.Errorf("read records of unit %s: %w", unit, err))
				return
			}
			if !yield(rec, nil) {
				return
			}
		}
	}
}

// lines returns the records of a unit as they are stored.
func (s *Store) lines(ctx context.Context, job, unit string) ([]json.RawMessage, error) {
	if err := checkNames(job, unit); err != nil {
		return nil, err
	}
	a, err := s.readAccount(ctx, job, unit)
	if err != nil {
		return nil, err
	}
	return s.linesOf(ctx, job, unit, a)
}

// linesOf returns the records of a unit whose account was read.
func (s *Store) linesOf(ctx context.Context, job, unit string, a *storedAccount) ([]json.RawMessage, error) {
	if a.inside() {
		return a.Lines, nil
	}
	key := s.keys.records(job, unit) // a unit that was copied from a folder
	o, err := s.c.get(ctx, key, maxAccount)
	if err != nil {
		return nil, err
	}
	var lines []json.RawMessage
	for line := range bytes.Lines(o.data) {
		lines = append(lines, bytes.TrimSuffix(line, []byte("\n")))
	}
	if len(lines) != a.Records {
		return nil, fmt.Errorf("%s %w: it has %d records, its account counts %d", key, errDamaged, len(lines), a.Records)
	}
	return lines, nil
}

// OpenBody opens a body by the Body field of its record. A transfer that is cut goes on by itself from where it was.
func (s *Store) OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	err := store.CheckName("job", job)
	if err == nil {
		err = checkBody(body)
	}
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	r, err := s.c.open(ctx, s.keys.body(job, body))
	if isMissing(err) {
		return nil, fmt.Errorf("open body %s of job %s: %w", body, job, store.ErrNotFound)
	}
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	return r, nil
}

// reader reads an object, and asks again for the rest when the connection is cut.
type reader struct {
	ctx  context.Context // of the open call: an io.Reader has none
	c    *client
	key  string
	etag string
	body io.ReadCloser
	at   int64
	size int64
	err  error // the first one that lasted; every later call returns it
}

func (c *client) open(ctx context.Context, key string) (*reader, error) {
	r := &reader{ctx: ctx, c: c, key: key}
	err := c.do(ctx, "read", key, r.connect)
	if err != nil {
		return nil, err
	}
	return r, nil
}

// connect asks for the object from where the reader is.
func (r *reader) connect() error {
	var o minio.GetObjectOptions
	if r.at > 0 {
		if err := o.SetRange(r.at, 0); err != nil {
			return err
		}
		if err := o.SetMatchETag(r.etag); err != nil {
			return err
		}
	}
	body, info, _, err := r.c.quick.GetObject(r.ctx, r.c.o.Bucket, r.key, o)
	if err != nil {
		return err
	}
	if r.at == 0 {
		r.etag, r.size = info.ETag, info.Size
	}
	if info.Size != r.size-r.at { // of what is sent now
		_ = body.Close()
		return fmt.Errorf("asked for the %d bytes from %d on and was offered %d: %w", r.size-r.at, r.at, info.Size, errDamaged)
	}
	r.body = body
	return nil
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (n int, err error) {
	if r.err != nil {
		return 0, r.err
	}
	err = r.c.do(r.ctx, "read", r.key, func() error {
		if r.body == nil {
			if err := r.connect(); err != nil {
				return err
			}
		}
		n, err = r.body.Read(p)
		r.at += int64(n)
		switch {
		case n > 0 || err == nil:
			return nil
		case err == io.EOF && r.at == r.size:
			return nil
		case err == io.EOF:
			err = io.ErrUnexpectedEOF
		}
		_ = r.body.Close()
		r.body = nil
		return err
	})
	if err == nil && n == 0 && r.at == r.size {
		err = io.EOF
	}
	r.err = err
	return n, err
}

// Close implements io.Closer.
func (r *reader) Close() error {
	if r.body == nil {
		return nil
	}
	body := r.body
	r.body = nil
	if r.err == nil {
		r.err = errReaderClosed
	}
	return body.Close()
}

var errReaderClosed = fmt.Errorf("read body: %w", io.ErrClosedPipe)
