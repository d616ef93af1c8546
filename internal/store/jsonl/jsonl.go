// Package jsonl writes records to standard output, one JSON object a line, for pipes:
//
//	worker --store file:data --store jsonl:- | jq .url
//
// It promises that lines are whole and never interleave, that those of a unit come together, and that Commit returns
// once they were written. A unit is written at least once: a pipe has no memory, so whatever copies a unit here (a
// redelivery after a crash, another worker that lost the race for it) writes it again, and readers tell records apart by
// id and generation. It keeps neither bodies nor accounts and can be asked for nothing, so it serves only beside another
// store, which decides what is committed; Body in its records is the place in that one.
//
// A slow reader makes commits wait, and the fleet with them. A reader that is gone does not come back: see ErrGone.
package jsonl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Target is the one thing that Open writes to: standard output.
const Target = "-"

// ErrGone says that nobody reads standard output any more. No write will ever succeed again: the process that holds the
// store should end, and can be started again with another reader.
var ErrGone = errors.New("the reader of standard output is gone")

// errClosed is returned by what is called after Close.
var errClosed = errors.New("the store is closed")

// Options are the options of Open. The zero value writes to the process's standard output.
type Options struct {
	// Out is what is written to; nil = os.Stdout. To get an error rather than the end of the process when the reader of
	// os.Stdout goes away, the program must ignore SIGPIPE.
	Out io.Writer
	// Gone is called once, with an error that wraps ErrGone, when the reader is found gone; nil = nobody asks.
	Gone func(error)
}

// Store writes records. It implements store.Store and store.Bodiless.
type Store struct {
	out *lines

	mu      sync.Mutex
	closed  bool
	commits sync.WaitGroup
}

var _ store.Bodiless = (*Store)(nil)

// Check refuses a target that is not Target.
func Check(target string) error {
	if target != Target {
		return fmt.Errorf("open store \"jsonl:%s\": records go to standard output only: write jsonl:- and send that to a file "+
			"(> FILE), or take file:DIR", target)
	}
	return nil
}

// Open opens standard output; target must be Target.
func Open(ctx context.Context, target string, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := Check(target); err != nil {
		return nil, err
	}
	if o.Out == nil {
		o.Out = os.Stdout
	}
	return &Store{out: newLines(o.Out, o.Gone)}, nil
}

// String returns "jsonl:-".
func (s *Store) String() string { return "jsonl:" + Target }

// Bodiless returns true.
func (s *Store) Bodiless() bool { return true }

// Identity returns a constant: there is one standard output. It never decides on a job, because this store never comes
// first.
func (s *Store) Identity(ctx context.Context) (string, error) {
	return "jsonl-standard-output", ctx.Err()
}

// Check reports whether the last write failed, and tries again what it did not get out. An output that has not failed
// passes, because nothing can be written to a pipe and taken back.
func (s *Store) Check(ctx context.Context) error {
	if err := s.out.write(ctx, nil); err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	return nil
}

// Begin starts a unit.
func (s *Store) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkNames(job, name); err != nil {
		return nil, fmt.Errorf("begin unit: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("begin unit %s: %w", name, errClosed)
	}
	return &unit{s: s, job: job, name: name}, nil
}

// Account returns store.ErrNotFound, whatever was written: nobody knows what became of it.
func (s *Store) Account(ctx context.Context, job, unit string) (*store.Account, error) {
	return nil, absent(ctx, job, unit)
}

// Units yields nothing.
func (s *Store) Units(ctx context.Context, job string) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		err := ctx.Err()
		if err == nil {
			err = store.CheckName("job", job)
		}
		if err != nil {
			yield("", fmt.Errorf("list units: %w", err))
		}
	}
}

// Records yields store.ErrNotFound.
func (s *Store) Records(ctx context.Context, job, unit string) iter.Seq2[*store.Record, error] {
	return func(yield func(*store.Record, error) bool) { yield(nil, absent(ctx, job, unit)) }
}

// OpenBody returns store.ErrNotFound.
func (s *Store) OpenBody(ctx context.Context, _, body string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	return nil, fmt.Errorf("open body %q: standard output keeps none: %w", body, store.ErrNotFound)
}

// Sweep finds nothing to remove.
func (s *Store) Sweep(ctx context.Context, _ string, _ time.Duration) (int, error) {
	return 0, ctx.Err()
}

// Close waits for commits under way. It leaves standard output open.
func (s *Store) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.commits.Wait()
	return nil
}

// enter counts a commit that Close must wait for; the caller calls s.commits.Done.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.commits.Add(1)
	return nil
}

func checkNames(job, unit string) error {
	if err := store.CheckName("job", job); err != nil {
		return err
	}
	return store.CheckName("unit", unit)
}

func absent(ctx context.Context, job, unit string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkNames(job, unit); err != nil {
		return err
	}
	return fmt.Errorf("unit %s in standard output: %w", unit, store.ErrNotFound)
}
