package rows

import (
	"bufio"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"
)

// Limits of a table.
const (
	// MaxColumns is how many columns a table may have.
	MaxColumns = 4096
	// DefaultMaxRow is the longest row of a file, in bytes: 1 MiB.
	DefaultMaxRow = 1 << 20
)

// CSVOptions say how a file is written. The zero value is RFC 4180.
type CSVOptions struct {
	Comma  rune // 0 = ','
	MaxRow int  // the longest row, in bytes; 0 = DefaultMaxRow
}

// CSV is a table in a file (RFC 4180): the first line names the columns; every cell is text.
type CSV struct {
	reader *csv.Reader
	bound  *bound
	names  []string
	max    int
	last   int // line of the row before
}

const byteOrderMark = "\xef\xbb\xbf"

// NewCSV reads the first line of a table, which names its columns: each once, none empty. A file without any line is
// io.EOF.
func NewCSV(r io.Reader, o CSVOptions) (*CSV, error) {
	if o.MaxRow <= 0 {
		o.MaxRow = DefaultMaxRow
	}
	start := bufio.NewReaderSize(r, 16)
	if mark, _ := start.Peek(len(byteOrderMark)); string(mark) == byteOrderMark {
		_, _ = start.Discard(len(byteOrderMark))
	}
	c := &CSV{bound: &bound{reader: start}, max: o.MaxRow}
	c.reader = csv.NewReader(c.bound)
	c.reader.ReuseRecord = true
	if o.Comma != 0 {
		c.reader.Comma = o.Comma
	}
	c.bound.left = c.max + readAhead
	names, err := c.reader.Read()
	if errors.Is(err, io.EOF) {
		return nil, io.EOF
	}
	if err != nil {
		return nil, fmt.Errorf("read the names of the columns: %w", c.worded(err))
	}
	c.names = slices.Clone(names)
	return c, checkNames(c.names)
}

func checkNames(names []string) error {
	if len(names) > MaxColumns {
		return fmt.Errorf("the first line names %d columns: at most %d", len(names), MaxColumns)
	}
	seen := make(map[string]bool, len(names))
	for i, name := range names {
		name = strings.TrimSpace(name)
		switch {
		case name == "":
			return fmt.Errorf("column %d has no name: the first line must name them all", i+1)
		case !utf8.ValidString(name):
			return fmt.Errorf("the name of column %d is not UTF-8", i+1)
		case seen[name]:
			return fmt.Errorf("two columns are named %.60q", name)
		}
		seen[name] = true
		names[i] = name
	}
	return nil
}

// Columns are the names in the first line.
func (c *CSV) Columns() []string { return c.names }

// Next returns the next row. Blank lines are none.
func (c *CSV) Next() (Row, error) {
	c.bound.left = c.max + readAhead
	record, err := c.reader.Read()
	var bad *csv.ParseError
	switch {
	case errors.Is(err, io.EOF):
		return Row{}, io.EOF
	case errors.As(err, &bad) && !errors.Is(err, errLongRow):
		return Row{Number: int64(bad.StartLine), Err: c.worded(err)}, nil
	case err != nil:
		return Row{}, c.worded(err)
	}
	c.last, _ = c.reader.FieldPos(0)
	row := Row{Number: int64(c.last), Names: c.names, Values: make([]Value, len(record))}
	for i, cell := range record {
		if !utf8.ValidString(cell) {
			return Row{Number: row.Number, Err: fmt.Errorf("column %.60q is not UTF-8", c.names[i])}, nil
		}
		row.Values[i] = Value{String, cell}
	}
	return row, nil
}

// Close does nothing: the file is the caller's.
func (c *CSV) Close() error { return nil }

// worded says what is wrong in words that do not repeat the line, which is said by the caller.
func (c *CSV) worded(err error) error {
	var bad *csv.ParseError
	switch {
	case errors.Is(err, csv.ErrFieldCount):
		return fmt.Errorf("the row has not as many columns as the first line, which names %d", len(c.names))
	case errors.Is(err, errLongRow):
		return fmt.Errorf("after line %d: %w", c.last, errLongRow)
	case errors.Is(err, csv.ErrQuote), errors.Is(err, csv.ErrBareQuote):
		return errors.New(`a stray " (in RFC 4180 a cell with one is quoted, and the quote doubled)`)
	case errors.As(err, &bad):
		return bad.Err
	}
	return err
}

// readAhead is more than a csv.Reader reads beyond the row that it is at, in bytes.
const readAhead = 16 << 10

var errLongRow = errors.New("a row is longer than allowed: look for a quote that is never closed")

// bound is a reader that gives so many bytes and no more: a quote that is never closed would make a row of the whole file.
type bound struct {
	reader io.Reader
	left   int
}

// Read reads as much as is left.
func (b *bound) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errLongRow
	}
	n, err := b.reader.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err
}
