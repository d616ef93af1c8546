package lists

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/rows"
)

// OpenTable prepares to read the rows of one table, such as a query's answer, by opts.Rows. name is what messages call
// it. The reader closes the table.
func OpenTable(name string, table rows.Source, opts Options) (*Reader, error) {
	if err := opts.Rows.Check(table.Columns()); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), table.Close())
	}
	r := Open(nil, nil, opts)
	r.table, r.name = table, name
	return r, nil
}

// looksLikeJSON tells JSON Lines from CSV by the beginning of a file.
func looksLikeJSON(b []byte) bool { return bytes.HasPrefix(trim(b), []byte("{")) }

// openCSV makes a table of the source that was just opened, whose first block is in the buffer.
func (r *Reader) openCSV() error {
	name := r.src.name
	table, err := rows.NewCSV(io.MultiReader(bytes.NewReader(r.buf[r.pos:r.end]), &rest{r.src, r.readErr}), rows.CSVOptions{Comma: r.opts.Comma, MaxRow: r.maxLine})
	if err == nil {
		err = r.opts.Rows.Check(table.Columns())
	}
	if errors.Is(err, io.EOF) { // an empty file is an empty table
		return r.closeSource()
	}
	if err != nil {
		_ = r.closeSource() // the first error matters, and nothing was written
		return fmt.Errorf("table %s: %w", title(name), bare(err))
	}
	r.table, r.name = table, name
	return nil
}

// rest is a source behind its first block, which may have ended it.
type rest struct {
	src   *source
	ended error
}

// Read reads on, or returns what ended the source.
func (r *rest) Read(p []byte) (int, error) {
	if r.ended != nil {
		return 0, r.ended
	}
	return r.src.Read(p)
}

// row is the next row's request; io.EOF means that the table has ended and is closed.
func (r *Reader) row() (Line, error) {
	row, err := r.table.Next()
	if err != nil {
		closed := errors.Join(r.closeTable(), r.closeSource())
		if err == io.EOF {
			if closed != nil {
				return Line{}, closed
			}
			return Line{}, io.EOF
		}
		return Line{}, fmt.Errorf("read table %s: %w", title(r.name), bare(err))
	}
	r.ordinal++
	line := Line{Source: r.name, Number: row.Number, Ordinal: r.ordinal, Err: row.Err}
	if line.Err == nil {
		line.Item, line.Err = r.opts.Rows.item(&row, &r.opts)
	}
	return line, nil
}

func (r *Reader) closeTable() error {
	if r.table == nil {
		return nil
	}
	t := r.table
	r.table = nil
	return t.Close()
}
