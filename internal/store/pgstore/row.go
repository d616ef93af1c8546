package pgstore

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"io"
	"math"
	"strings"
	"time"
	"unicode/utf8"
)

// The parts of a COPY in binary format (PostgreSQL's documentation of COPY, "Binary Format"): a header, rows, a trailer.
// A row is the number of its fields (16 bits), then each field's length (32 bits, -1 for NULL) and bytes.
var (
	copyHeader  = []byte("PGCOPY\n\xff\r\n\x00" + "\x00\x00\x00\x00" + "\x00\x00\x00\x00")
	copyTrailer = []byte{0xff, 0xff}
)

// pgEpoch is where PostgreSQL's timestamps begin, 2000-01-01, in Unix seconds.
const pgEpoch = 946_684_800

// row appends the fields of one row. Encoding a record at once, instead of collecting values for later, costs a third,
// and what PostgreSQL would refuse is found with the record that has it.
type row struct {
	b       []byte
	inexact bool // a field could not hold what it was given, and holds something like it
}

func newRow(b []byte, fields int) row {
	return row{b: binary.BigEndian.AppendUint16(b, uint16(fields))}
}

func (r *row) null() { r.b = append(r.b, 0xff, 0xff, 0xff, 0xff) }

func (r *row) bytes(v []byte) {
	r.b = binary.BigEndian.AppendUint32(r.b, uint32(len(v)))
	r.b = append(r.b, v...)
}

func (r *row) key(v key) { r.bytes(v[:]) }

// text writes a string. PostgreSQL's text holds no U+0000 and nothing that is not UTF-8; the latter no JSON holds either.
func (r *row) text(s string) {
	s = text(s)
	if strings.IndexByte(s, 0) >= 0 {
		r.inexact = true
		s = strings.ReplaceAll(s, "\x00", "\ufffd")
	}
	r.b = binary.BigEndian.AppendUint32(r.b, uint32(len(s)))
	r.b = append(r.b, s...)
}

// text returns s with each byte that is not UTF-8 replaced by U+FFFD, as encoding/json does it.
func text(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return string([]rune(s))
}

// optText writes NULL for "".
func (r *row) optText(s string) {
	if s == "" {
		r.null()
		return
	}
	r.text(s)
}

func (r *row) int2(v int16) {
	r.b = append(r.b, 0, 0, 0, 2)
	r.b = binary.BigEndian.AppendUint16(r.b, uint16(v))
}

func (r *row) int4(v int) {
	if held := min(max(v, math.MinInt32), math.MaxInt32); held != v {
		r.inexact, v = true, held
	}
	r.b = append(r.b, 0, 0, 0, 4)
	r.b = binary.BigEndian.AppendUint32(r.b, uint32(int32(v)))
}

func (r *row) int8(v int64) {
	r.b = append(r.b, 0, 0, 0, 8)
	r.b = binary.BigEndian.AppendUint64(r.b, uint64(v))
}

func (r *row) float8(v float64) { r.int8(int64(math.Float64bits(v))) }

func (r *row) bool(v bool) {
	r.b = append(r.b, 0, 0, 0, 1, 0)
	if v {
		r.b[len(r.b)-1] = 1
	}
}

// time writes a timestamptz, which counts microseconds, and a smallint with the nanoseconds beyond.
func (r *row) time(t time.Time) {
	ns := t.Nanosecond()
	r.int8((t.Unix()-pgEpoch)*1_000_000 + int64(ns/1000))
	r.int2(int16(ns % 1000))
}

// jsonb writes v. Its JSON is encoding/json's, so it is UTF-8; U+0000 is what jsonb cannot hold.
func (r *row) jsonb(v any) error {
	at := len(r.b)
	out := bytes.NewBuffer(append(r.b, 0, 0, 0, 0, 1)) // the length, then jsonb's version
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return err
	}
	r.b = bytes.TrimSuffix(out.Bytes(), []byte("\n"))
	if nul := []byte(`\u0000`); bytes.Contains(r.b[at+5:], nul) {
		r.inexact = true
		r.b = append(r.b[:at+5], bytes.ReplaceAll(r.b[at+5:], nul, []byte(`\ufffd`))...)
	}
	binary.BigEndian.PutUint32(r.b[at:], uint32(len(r.b)-at-4))
	return nil
}

// maxNesting is how deep JSON may be nested in a json column. The server's parser recurses, and its stack is limited;
// a row that overflowed it would take the whole transaction with it.
const maxNesting = 500

// json writes JSON text that was checked before.
func (r *row) json(v json.RawMessage) {
	if !utf8.Valid(v) || nesting(v) > maxNesting {
		r.inexact = true
		r.null()
		return
	}
	at := len(r.b)
	out := bytes.NewBuffer(append(r.b, 0, 0, 0, 0))
	if json.Compact(out, v) != nil { // it was checked
		r.inexact = true
		r.null()
		return
	}
	r.b = out.Bytes()
	binary.BigEndian.PutUint32(r.b[at:], uint32(len(r.b)-at-4))
}

// nesting returns how deep arrays and objects are nested, or more: brackets within strings count, too.
func nesting(v []byte) (deepest int) {
	if len(v) <= maxNesting {
		return 0 // cannot be deeper than that
	}
	depth := 0
	for _, c := range v {
		switch c {
		case '[', '{':
			depth++
			deepest = max(deepest, depth)
		case ']', '}':
			depth--
		}
	}
	return deepest
}

// chunks reads one byte slice after the other, filling what it is given.
type chunks [][]byte

// Read implements io.Reader.
func (c *chunks) Read(p []byte) (n int, err error) {
	for len(*c) > 0 && n < len(p) {
		moved := copy(p[n:], (*c)[0])
		n += moved
		if (*c)[0] = (*c)[0][moved:]; len((*c)[0]) == 0 {
			*c = (*c)[1:]
		}
	}
	if n == 0 && len(p) > 0 {
		return 0, io.EOF
	}
	return n, nil
}
