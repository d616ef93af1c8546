package export

import (
	"bytes"
	"context"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// lineEncoder writes one line for each record.
type lineEncoder struct {
	w    io.Writer
	line func([]byte, *store.Record) ([]byte, error)
	buf  []byte // of the last line, to be used again
}

func (e *lineEncoder) encode(_ context.Context, r *store.Record) (err error) {
	if e.buf, err = e.line(e.buf[:0], r); err != nil {
		return err
	}
	e.buf = append(e.buf, '\n')
	_, err = e.w.Write(e.buf)
	return err
}

func (e *lineEncoder) close() error { return nil }

// appendURL appends the URL as enqueued, which a canonical URL being one has no line break in.
func appendURL(b []byte, r *store.Record) ([]byte, error) { return append(b, r.URL...), nil }

// csvEncoder writes RFC 4180: a header line, CRLF, quotes where they are needed. encoding/csv would turn the line breaks
// inside values into CRLF as well.
type csvEncoder struct {
	w       io.Writer
	columns []field
	buf     []byte // of the last line, to be used again
	value   []byte // of the last value
}

func newCSV(w io.Writer, names []string) (*csvEncoder, error) {
	if len(names) == 0 {
		names = Columns()
	}
	if err := CheckFields(names); err != nil {
		return nil, err
	}
	e := &csvEncoder{w: w}
	for i, name := range names {
		f, err := fieldNamed(name)
		if err != nil {
			return nil, err
		}
		e.columns = append(e.columns, f)
		e.buf = appendCell(e.buf, i, []byte(f.name))
	}
	_, err := w.Write(append(e.buf, "\r\n"...))
	return e, err
}

func (e *csvEncoder) encode(_ context.Context, r *store.Record) error {
	e.buf = e.buf[:0]
	for i := range e.columns {
		e.value = e.columns[i].of(r).append(e.value[:0])
		e.buf = appendCell(e.buf, i, e.value)
	}
	if len(e.buf) == 0 { // one column, empty: a blank line is what some readers skip
		e.buf = append(e.buf, `""`...)
	}
	e.buf = append(e.buf, "\r\n"...)
	_, err := e.w.Write(e.buf)
	return err
}

func (e *csvEncoder) close() error { return nil }

// appendCell appends the i-th value of a line (RFC 4180, section 2).
func appendCell(b []byte, i int, v []byte) []byte {
	if i > 0 {
		b = append(b, ',')
	}
	if !bytes.ContainsAny(v, ",\"\r\n") {
		return append(b, v...)
	}
	b = append(b, '"')
	for _, c := range v {
		if c == '"' {
			b = append(b, '"')
		}
		b = append(b, c)
	}
	return append(b, '"')
}
