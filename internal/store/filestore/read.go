package filestore

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// Units yields the name of every committed unit of a job, in no order. A job that does not exist has none.
func (s *Store) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		if err := store.CheckName("job", job); err != nil {
			yield("", fmt.Errorf("list units: %w", err))
			return
		}
		for e, err := range disk.Entries(ctx, s.jobPath(job, accountsFolder)) {
			if err != nil {
				yield("", fmt.Errorf("list units of job %s: %w", job, err))
				return
			}
			unit, ok := strings.CutSuffix(e.Name(), ".json")
			if ok && store.CheckName("unit", unit) == nil && !yield(unit, nil) {
				return
			}
		}
	}
}

// Jobs yields the name of every job that has a committed unit or had one begun, in no order.
func (s *Store) Jobs(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for e, err := range disk.Entries(ctx, s.dir) {
			if err != nil {
				yield("", fmt.Errorf("list jobs: %w", err))
				return
			}
			if e.IsDir() && store.CheckName("job", e.Name()) == nil && s.isJob(e.Name()) && !yield(e.Name(), nil) {
				return
			}
		}
	}
}

// isJob tells a job from another folder that someone keeps here.
func (s *Store) isJob(name string) bool {
	for _, folder := range []string{accountsFolder, tmpFolder, partsFolder} {
		if fi, err := os.Stat(s.jobPath(name, folder)); err == nil && fi.IsDir() {
			return true
		}
	}
	return false
}

// Records yields the records of a committed unit in the order in which they were added, or store.ErrNotFound.
func (s *Store) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) {
		r, err := s.openRecords(ctx, job, unit)
		if err != nil {
			yield(nil, fmt.Errorf("read records of unit %s: %w", unit, err))
			return
		}
		if r == nil {
			return
		}
		defer func() { _ = r.Close() }()
		dec := json.NewDecoder(bufio.NewReaderSize(r, bufferSize))
		for {
			rec := new(store.Record)
			err := ctx.Err()
			if err == nil {
				err = dec.Decode(rec)
			}
			if err == io.EOF {
				return
			}
			if err != nil {
				yield(nil, fmt.Errorf("read records of unit %s: %s: %w", unit, r.Name(), err))
				return
			}
			if !yield(rec, nil) {
				return
			}
		}
	}
}

// openRecords opens the records of a committed unit, nil if it has none.
func (s *Store) openRecords(ctx context.Context, job, unit string) (*os.File, error) {
	if err := checkNames(job, unit); err != nil {
		return nil, err
	}
	a, _, err := s.readAccount(ctx, job, unit)
	if err != nil || a.Records == 0 {
		return nil, err
	}
	path, err := s.finishedRecords(job, unit, a)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) { // put in place by another meanwhile
		f, err = os.Open(s.recordsPath(job, unit))
	}
	if err != nil {
		return nil, disk.Trouble("open", path, err)
	}
	return f, nil
}

// OpenBody opens a body by the Body field of its record.
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
	path := s.bodyPath(job, body)
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open body %s: %w", path, store.ErrNotFound)
	}
	if err != nil {
		return nil, disk.Trouble("open body", path, err)
	}
	return f, nil
}
