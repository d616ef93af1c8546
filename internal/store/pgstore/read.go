package pgstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
)

// What is read at once. A connection is held for one page, not for as long as its reader takes: a reader that opens
// bodies while it goes through records would otherwise need two, and several such readers would wait for each other.
const (
	pageUnits   = 1000
	pageRecords = 64
	pageBytes   = 1 << 20 // of records; a page ends after the one that goes beyond
)

// Account returns the account of a committed unit, or store.ErrNotFound.
func (s *Store) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	a, err := s.account(ctx, job, unit)
	if err != nil {
		return nil, fmt.Errorf("read account of unit %.130s: %w", unit, err)
	}
	return a, nil
}

func (s *Store) account(ctx context.Context, job, unit string) (*store.Account, error) {
	if err := checkNames(job, unit); err != nil {
		return nil, err
	}
	var text []byte
	err := s.queryRow(ctx, `SELECT account FROM units WHERE job = $1 AND unit = $2`, []any{job, unit}, &text)
	if err != nil {
		return nil, err
	}
	return decodeAccount(text)
}

// queryRow reads one row, or store.ErrNotFound.
func (s *Store) queryRow(ctx context.Context, sql string, args []any, into ...any) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	err := s.pool.QueryRow(ctx, sql, args...).Scan(into...)
	if errors.Is(err, pgx.ErrNoRows) {
		return store.ErrNotFound
	}
	return trouble("query", err)
}

// page reads the rows of one query, as long as each wants more. The error of each ends it.
func (s *Store) page(ctx context.Context, sql string, args []any, each func(pgx.Rows) (more bool, err error)) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	rows, err := s.pool.Query(ctx, sql, args...)
	if err != nil {
		return trouble("query", err)
	}
	defer rows.Close()
	for rows.Next() {
		if more, err := each(rows); err != nil || !more {
			return err
		}
	}
	return trouble("query", rows.Err())
}

// Units yields the name of every committed unit of a job, in the order of their names. A job that does not exist has
// none.
func (s *Store) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := store.CheckName("job", job); err != nil {
			yield("", fmt.Errorf("list units: %w", err))
			return
		}
		s.names(ctx, `SELECT unit FROM units WHERE job = $3 AND unit > $1 ORDER BY unit LIMIT $2`, []any{job}, yield)
	}
}

// Jobs yields the name of every job that has had a committed unit, in the order of their names.
func (s *Store) Jobs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		s.names(ctx, `SELECT job FROM jobs WHERE job > $1 ORDER BY job LIMIT $2`, nil, yield)
	}
}

// names yields what a query with the last name and a limit as first arguments finds, page by page.
func (s *Store) names(ctx context.Context, sql string, args []any, yield func(string, error) bool) {
	last := ""
	for {
		list := make([]string, 0, 64)
		err := s.page(ctx, sql, append([]any{last, pageUnits}, args...), func(rows pgx.Rows) (bool, error) {
			err := rows.Scan(&last)
			list = append(list, last)
			return true, err
		})
		if err != nil {
			yield("", fmt.Errorf("list: %w", err))
			return
		}
		for _, name := range list {
			if !yield(name, nil) {
				return
			}
		}
		if len(list) < pageUnits {
			return
		}
	}
}

// Records yields the records of a committed unit in the order in which they were added, or store.ErrNotFound.
func (s *Store) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		k, count, err := s.findUnit(ctx, job, unit)
		for next := 0; err == nil && next < count; {
			var list []*store.Record
			if list, err = s.pageOfRecords(ctx, k, next); err != nil {
				break
			}
			next += len(list)
			for _, r := range list {
				if !yield(r, nil) {
					return
				}
			}
		}
		if err != nil {
			yield(nil, fmt.Errorf("read records of unit %.130s: %w", unit, err))
		}
	}
}

func (s *Store) findUnit(ctx context.Context, job, unit string) (k key, records int, err error) {
	if err := checkNames(job, unit); err != nil {
		return k, 0, err
	}
	err = s.queryRow(ctx, `SELECT key, records FROM units WHERE job = $1 AND unit = $2`, []any{job, unit}, &k, &records)
	return k, records, err
}

// pageOfRecords reads at least one record, from number next on.
func (s *Store) pageOfRecords(ctx context.Context, k key, next int) ([]*store.Record, error) {
	var list []*store.Record
	size := 0
	err := s.page(ctx, selectRecords, []any{k, next, pageRecords}, func(rows pgx.Rows) (bool, error) {
		n, r, bytes, err := scanRecord(rows)
		if err != nil {
			return false, err
		}
		if n != next+len(list) {
			return false, fmt.Errorf("record %d is missing", next+len(list))
		}
		list = append(list, r)
		size += bytes
		return size < pageBytes, nil
	})
	if err == nil && len(list) == 0 {
		err = fmt.Errorf("record %d is missing", next)
	}
	return list, err
}

const (
	isUnit    = ` AND EXISTS (SELECT FROM units WHERE key = $1 AND job = $4)`
	selectRow = `SELECT data, EXISTS (SELECT FROM bodies WHERE owner = $1 AND body = $2 AND n = $3 + 1)
		FROM bodies WHERE owner = $1 AND body = $2 AND n = $3`
)

// OpenBody opens a body by the Body field of its record. It is read row by row.
func (s *Store) OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error) {
	if err := store.CheckName("job", job); err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	k, n, ok := parseBody(body)
	if !ok {
		return nil, fmt.Errorf("open body %.80q, which is none of this kind of store: %w", body, store.ErrNotFound)
	}
	r, err := s.openRows(func(row int, buf []byte) ([]byte, bool, error) {
		return s.readRow(ctx, selectRow+isUnit, []any{k, n, row, job}, buf)
	})
	if err != nil {
		return nil, fmt.Errorf("open body %s: %w", body, err)
	}
	return r, nil
}

// readRow reads one row of a body into buf, and whether another follows.
func (s *Store) readRow(ctx context.Context, sql string, args []any, buf []byte) (data []byte, more bool, err error) {
	found := false
	err = s.page(ctx, sql, args, func(rows pgx.Rows) (bool, error) {
		found = true
		data = append(buf[:0], rows.RawValues()[0]...)
		return true, rows.Scan(nil, &more)
	})
	if err == nil && !found {
		err = store.ErrNotFound
	}
	return data, more, err
}

// bodyReader reads rows one after the other.
type bodyReader struct {
	read func(row int, buf []byte) (data []byte, more bool, err error)
	row  int // of data
	data []byte
	left []byte // of data, not yet given out
	more bool
	err  error // the first one
}

// openRows reads the first row.
func (s *Store) openRows(read func(int, []byte) ([]byte, bool, error)) (*bodyReader, error) {
	r := &bodyReader{read: read}
	var err error
	r.data, r.more, err = read(0, nil)
	r.left = r.data
	return r, err
}

// Read is io.Reader's.
func (r *bodyReader) Read(p []byte) (int, error) {
	for len(r.left) == 0 && r.err == nil {
		if !r.more {
			r.err = io.EOF
			break
		}
		r.row++
		if r.data, r.more, r.err = r.read(r.row, r.data); r.err != nil {
			r.err = fmt.Errorf("read row %d of body: %w", r.row, r.err)
			break
		}
		r.left = r.data
	}
	if len(r.left) == 0 {
		return 0, r.err
	}
	n := copy(p, r.left)
	r.left = r.left[n:]
	return n, nil
}

// Close forgets what was read.
func (r *bodyReader) Close() error {
	r.left, r.data, r.err = nil, nil, errBodyClosed
	return nil
}

var errBodyClosed = errors.New("the body is closed")
