// Package rows reads tables: CSV files, JSON Lines and the answers of SQL databases, one row at a time.
//
// It promises that memory does not grow with the table, that a bad row never stops one whose next row can be found, and
// that databases are only read. It does not know what rows are for.
package rows

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"
)

// Kind is what a value is in JSON.
type Kind uint8

// The kinds of value.
const (
	Null   Kind = iota // undefined
	String             // text
	Number             // text that is a JSON number
	Bool               // "true" or "false"
)

// Value is one cell. The zero value is Null.
type Value struct {
	Kind Kind
	Text string // empty for Null
}

// AppendJSON appends the value as JSON.
func (v Value) AppendJSON(b []byte) []byte {
	switch v.Kind {
	case Null:
		return append(b, "null"...)
	case String:
		return AppendString(b, v.Text)
	}
	return append(b, v.Text...)
}

// AppendString appends s as a JSON string, with neither HTML nor text beyond ASCII escaped. What is not UTF-8 becomes U+FFFD.
func AppendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < 0x20 || c >= utf8.RuneSelf || c == '"' || c == '\\' {
			return appendSlow(b, s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

func appendSlow(b []byte, s string) []byte {
	var text strings.Builder
	e := json.NewEncoder(&text)
	e.SetEscapeHTML(false)
	_ = e.Encode(s) // a string, into memory
	return append(b, strings.TrimSuffix(text.String(), "\n")...)
}

// Row is one row, or what kept one from being read.
type Row struct {
	// Number says where it stands: the line in a file on which it begins, the number of the row in a query's answer, from 1.
	Number int64
	// Names and Values are the columns, in order. They are shared between rows as far as they are the same: read only.
	Names  []string
	Values []Value
	// Err says what is wrong with this row; the table goes on after it.
	Err error
}

// Get returns a column's value; ok is false where the row has no such column or nothing in it.
func (r *Row) Get(name string) (v Value, ok bool) {
	for i, n := range r.Names {
		if n == name {
			return r.Values[i], r.Values[i].Kind != Null
		}
	}
	return Value{}, false
}

// AppendJSON appends the row as a JSON object, in the order of its columns.
func (r *Row) AppendJSON(b []byte) []byte {
	b = append(b, '{')
	for i, name := range r.Names {
		if i > 0 {
			b = append(b, ',')
		}
		b = AppendString(b, name)
		b = append(b, ':')
		b = r.Values[i].AppendJSON(b)
	}
	return append(b, '}')
}

// Source is a table. Next returns io.EOF after the last row; any other error ends the table. Close may be called twice.
type Source interface {
	Next() (Row, error)
	// Columns are the names that every row has; nil where each row brings its own.
	Columns() []string
	Close() error
}

// valueOf makes a value of what a database driver gives. column is the database's name of the type, in upper case.
func valueOf(v any, column string) (Value, error) {
	switch v := v.(type) {
	case nil:
		return Value{}, nil
	case bool:
		return Value{Bool, strconv.FormatBool(v)}, nil
	case int64:
		if column == "BOOLEAN" && (v == 0 || v == 1) { // SQLite has none of its own
			return Value{Bool, strconv.FormatBool(v == 1)}, nil
		}
		return Value{Number, strconv.FormatInt(v, 10)}, nil
	case uint64:
		return Value{Number, strconv.FormatUint(v, 10)}, nil
	case float32:
		return number(strconv.FormatFloat(float64(v), 'g', -1, 32))
	case float64:
		return number(strconv.FormatFloat(v, 'g', -1, 64))
	case time.Time:
		if column == "DATE" {
			return Value{String, v.Format(time.DateOnly)}, nil
		}
		return Value{String, v.Format(time.RFC3339Nano)}, nil
	case []byte:
		if holdsBytes(column) {
			return Value{String, base64.StdEncoding.EncodeToString(v)}, nil
		}
		return text(string(v), column)
	case string:
		return text(v, column)
	}
	return Value{}, fmt.Errorf("a value of type %s cannot be used: cast it to text in the query", strings.ToLower(column))
}

// holdsBytes reports whether a column holds bytes rather than text; SQLite's []byte is a BLOB whatever the column says.
func holdsBytes(column string) bool {
	switch column {
	case "BYTEA", "BINARY", "VARBINARY", "BIT", "GEOMETRY", "TINYBLOB", "MEDIUMBLOB", "LONGBLOB", "BLOB":
		return true
	}
	return false
}

func text(s, column string) (Value, error) {
	switch column {
	case "NUMERIC", "DECIMAL", "UNSIGNED BIGINT":
		if isNumber(s) {
			return Value{Number, s}, nil
		}
	}
	if !utf8.ValidString(s) {
		return Value{}, errors.New("the text is not UTF-8: convert it in the query, or cast it to bytes")
	}
	return Value{String, s}, nil
}

// number is a Number unless it is an infinity or none, which JSON does not have.
func number(s string) (Value, error) {
	if !isNumber(s) {
		return Value{String, s}, nil
	}
	return Value{Number, s}, nil
}

// isNumber reports whether s is a number as JSON writes it.
func isNumber(s string) bool {
	return s != "" && (s[0] == '-' || '0' <= s[0] && s[0] <= '9') && json.Valid([]byte(s))
}

// Scalar reports whether text is a JSON number, true, false or null, and returns it as a value.
func Scalar(text string) (Value, bool) {
	switch text {
	case "null":
		return Value{}, true
	case "true", "false":
		return Value{Bool, text}, true
	}
	return Value{Number, text}, isNumber(text)
}
