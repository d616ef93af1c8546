package jsonl

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"
)

// lines is an output that many share, a unit's lines at a time.
type lines struct {
	out  io.Writer
	tell func(error) // see Options.Gone

	turn chan struct{} // holds one token: whoever has it may write, and has what is below
	torn []byte        // the line at which a write failed, as far as it is not out; it goes before all else
	gone error         // wraps ErrGone, once that is known
	once sync.Once
}

func newLines(out io.Writer, tell func(error)) *lines {
	l := &lines{out: out, tell: tell, turn: make(chan struct{}, 1)}
	l.turn <- struct{}{}
	return l
}

// write writes whole lines with one call of the writer. If ctx ends before the reader has taken them it returns, and
// they may come out yet: a full pipe must not keep a worker from stopping. data belongs to lines from then on.
func (l *lines) write(ctx context.Context, data []byte) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-l.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	written := make(chan error, 1)
	go func() { // ends when the reader takes the bytes or goes away
		defer func() { l.turn <- struct{}{} }()
		written <- l.put(data)
	}()
	select {
	case err := <-written:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// put writes what an earlier failure left of a line, and then data. The caller has the turn.
func (l *lines) put(data []byte) error {
	if l.gone != nil {
		return l.gone
	}
	if len(l.torn) > 0 {
		n, err := l.out.Write(l.torn)
		l.torn = l.torn[n:]
		if err != nil {
			return l.trouble(err)
		}
	}
	if len(data) == 0 {
		return nil
	}
	n, err := l.out.Write(data)
	if err != nil {
		// The unit comes whole once more, so what matters is that the line broken here is ended. Where none was broken
		// this is the next one, so that Check has something to try.
		rest := data[n:]
		l.torn = bytes.Clone(rest[:bytes.IndexByte(rest, '\n')+1])
		return l.trouble(err)
	}
	return nil
}

func (l *lines) trouble(err error) error {
	if !isGone(err) {
		return fmt.Errorf("write to standard output: %w", err)
	}
	l.gone = fmt.Errorf("%w: start again with another (%w)", ErrGone, err)
	if l.tell != nil {
		l.once.Do(func() { l.tell(l.gone) })
	}
	return l.gone
}
