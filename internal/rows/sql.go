package rows

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
)

// Query is the answer to a query: a table whose rows come as they are asked for.
type Query struct {
	database *database
	cancel   context.CancelFunc // ends the query where it stands
	db       *sql.DB
	tx       *sql.Tx // nil where the connection itself cannot write
	rows     *sql.Rows
	names    []string
	types    []string
	cells    []any
	into     []any
	number   int64
}

// Name is a database without its password and parameters, for messages. It is "" where the DSN cannot be read.
func Name(dsn string) string {
	d, err := parseDSN(dsn, os.Getenv)
	if err != nil {
		return ""
	}
	return d.name
}

// CheckDSN reports what is wrong with a DSN as it is written, references included, without connecting.
func CheckDSN(dsn string) error {
	_, err := parseDSN(dsn, os.Getenv)
	return err
}

// Open runs a query, which can only read, in the database at dsn: postgres://USER@HOST/DATABASE, mysql://… or sqlite:FILE.
// ${env:NAME} and ${file:PATH} in it stand for secrets. When ctx is done the query is cancelled and Next returns an error.
func Open(ctx context.Context, dsn, query string) (*Query, error) {
	d, err := parseDSN(dsn, os.Getenv)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	q := &Query{database: d, cancel: cancel}
	if err := q.start(ctx, query); err != nil {
		_ = q.Close() // the first error is the one that matters
		return nil, fmt.Errorf("query %s: %w", d.name, d.shown(err))
	}
	return q, nil
}

func (q *Query) start(ctx context.Context, query string) (err error) {
	if q.db, err = q.database.open(); err != nil {
		return err
	}
	q.db.SetMaxOpenConns(1)
	var by interface {
		QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	} = q.db
	if q.database.readOnly {
		if q.tx, err = q.db.BeginTx(ctx, &sql.TxOptions{ReadOnly: true}); err != nil {
			return err
		}
		by = q.tx
	}
	if q.rows, err = by.QueryContext(ctx, query); err != nil {
		return err
	}
	return q.describe()
}

// describe reads the columns' names and types.
func (q *Query) describe() error {
	types, err := q.rows.ColumnTypes()
	if err != nil {
		return err
	}
	if len(types) == 0 {
		if q.rows.Next(); q.rows.Err() != nil {
			return q.rows.Err()
		}
		return errors.New("the statement has no columns: write a SELECT")
	}
	for _, t := range types {
		q.names = append(q.names, t.Name())
		q.types = append(q.types, t.DatabaseTypeName())
	}
	q.cells, q.into = make([]any, len(types)), make([]any, len(types))
	for i := range q.cells {
		q.into[i] = &q.cells[i]
	}
	return checkNames(q.names)
}

// Columns are the names that the query gives its columns.
func (q *Query) Columns() []string { return q.names }

// Next returns the next row.
func (q *Query) Next() (Row, error) {
	if !q.rows.Next() {
		if err := q.rows.Err(); err != nil {
			return Row{}, fmt.Errorf("after row %d: %w", q.number, q.database.shown(err))
		}
		return Row{}, io.EOF
	}
	q.number++
	if err := q.rows.Scan(q.into...); err != nil {
		return Row{Number: q.number, Err: q.database.shown(err)}, nil
	}
	row := Row{Number: q.number, Names: q.names, Values: make([]Value, len(q.cells))}
	for i, cell := range q.cells {
		v, err := valueOf(cell, q.columnType(i, cell))
		if err != nil {
			return Row{Number: q.number, Err: fmt.Errorf("column %.60q: %w", q.names[i], err)}, nil
		}
		row.Values[i] = v
	}
	return row, nil
}

// columnType is what a cell is to the database. SQLite gives each cell its own type: bytes are a BLOB there, and text
// that its column calls numeric is not a number.
func (q *Query) columnType(i int, cell any) string {
	if q.database.readOnly {
		return q.types[i]
	}
	switch cell.(type) {
	case []byte:
		return "BLOB"
	case string:
		return "TEXT"
	}
	return q.types[i]
}

// Close ends the query, which may not have come to its end, and the connection. It has only read, so nothing is lost by
// what may go wrong.
func (q *Query) Close() error {
	q.cancel() // or the driver would read the rest of the answer
	if q.rows != nil {
		_ = q.rows.Close()
	}
	if q.tx != nil {
		_ = q.tx.Rollback()
	}
	if q.db != nil {
		_ = q.db.Close()
	}
	return nil
}
