package export

import (
	"bytes"
	"cmp"
	"context"
	"io"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"
	"github.com/parquet-go/parquet-go/encoding"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// schemaOfRecords is what Parquet calls a record: a public contract, with the names and the order of Columns (a test
// holds it to that). What may be missing is optional, and null where it is. No value of this type is ever made: written
// through reflection, parquet-go v0.32.0 panics over optional JSON and puts it into quotes once more.
type schemaOfRecords struct {
	ID             string    `parquet:"id"`
	Job            string    `parquet:"job,dict"`
	Batch          string    `parquet:"batch,dict"`
	Generation     int32     `parquet:"generation"`
	URL            string    `parquet:"url"`
	FinalURL       string    `parquet:"final_url,optional"`
	Method         string    `parquet:"method,dict"`
	Outcome        string    `parquet:"outcome,dict"`
	Status         int32     `parquet:"status,optional"`
	ErrorClass     string    `parquet:"error_class,optional,dict"`
	ErrorMessage   string    `parquet:"error_message,optional"`
	Attempts       int32     `parquet:"attempts"`
	Headers        string    `parquet:"headers,optional,json"`
	ContentType    string    `parquet:"content_type,optional,dict"`
	Bytes          int64     `parquet:"bytes"`
	SHA256         string    `parquet:"sha256,optional"`
	Body           string    `parquet:"body,optional"`
	Unchanged      bool      `parquet:"unchanged"`
	BodyJob        string    `parquet:"body_job,optional,dict"`
	Resumed        int32     `parquet:"resumed"`
	FetchedAt      time.Time `parquet:"fetched_at,timestamp(microsecond:utc)"`
	ElapsedMS      float64   `parquet:"elapsed_ms"`
	TimingsDNS     float64   `parquet:"timings_dns,optional"`
	TimingsConnect float64   `parquet:"timings_connect,optional"`
	TimingsTLS     float64   `parquet:"timings_tls,optional"`
	TimingsTTFB    float64   `parquet:"timings_ttfb,optional"`
	TimingsTotal   float64   `parquet:"timings_total,optional"`
	Protocol       string    `parquet:"protocol,optional,dict"`
	RemoteAddr     string    `parquet:"remote_addr,optional,dict"`
	Redirects      string    `parquet:"redirects,optional,json"`
	Worker         string    `parquet:"worker,dict"`
	Meta           string    `parquet:"meta,optional,json"`
	Insecure       bool      `parquet:"insecure"`
	Charset        string    `parquet:"charset,optional,dict"`
}

// parquetSchema is the schema as the format has it.
func parquetSchema() *parquet.Schema {
	return parquet.NewSchema("record", parquet.SchemaOf(schemaOfRecords{}))
}

// A row group is what a reader reads at once and what the writer keeps in memory, compressed.
const (
	rowsPerGroup  = 64 << 10
	bytesPerGroup = 64 << 20 // of values before compression, for rows that are long
	rowsAtOnce    = 64       // handed to the columns together
	bytesAtOnce   = 1 << 20  // or fewer rows, where they are long
)

// parquetEncoder writes Apache Parquet with encodings that every reader has, zstd inside.
type parquetEncoder struct {
	w       *parquet.GenericWriter[any]
	columns []column
	rows    []parquet.Row // that are not handed over yet; their values are used again
	n       int
	text    []byte // of those rows
	group   int    // rows of the row group
	bytes   int    // and of their values
	limit   int    // of those bytes
}

// column is a field as Parquet has it.
type column struct {
	field
	kind     parquet.Kind
	optional bool
}

func newParquet(w io.Writer, o Options) *parquetEncoder {
	schema := parquetSchema()
	e := &parquetEncoder{rows: make([]parquet.Row, rowsAtOnce), limit: bytesPerGroup, w: parquet.NewGenericWriter[any](w, schema, &parquet.WriterConfig{
		CreatedBy:   cmp.Or(o.CreatedBy, "fetchfleet"),
		Compression: &zstd.Codec{Level: zstd.SpeedFastest},
		Encodings:   map[parquet.Kind]encoding.Encoding{parquet.ByteArray: &parquet.Plain},
		// A column of few values has a dictionary; one that turns out to have many goes on without.
		DictionaryMaxBytes: 256 << 10,
		PageBufferSize:     128 << 10,
		KeyValueMetadata:   map[string]string{"fetchfleet.records": "1"}, // version of the schema
	})}
	for _, f := range fields {
		if leaf, ok := schema.Lookup(f.name); ok {
			e.columns = append(e.columns, column{field: f, kind: leaf.Node.Type().Kind(), optional: leaf.Node.Optional()})
		}
	}
	return e
}

func (e *parquetEncoder) encode(_ context.Context, r *store.Record) error {
	row, before := e.rows[e.n][:0], len(e.text)
	for i := range e.columns {
		row = append(row, e.value(i, r))
	}
	e.rows[e.n] = row
	e.n++
	e.group++
	e.bytes += len(e.text) - before + 8*len(row)
	if e.group == rowsPerGroup || e.bytes >= e.limit {
		return e.endGroup()
	}
	if e.n == rowsAtOnce || len(e.text) >= bytesAtOnce {
		return e.handOver()
	}
	return nil
}

// value is what a record has in the i-th column, with its definition level: 0 is null where that is possible.
func (e *parquetEncoder) value(i int, r *store.Record) parquet.Value {
	c := &e.columns[i]
	v := c.of(r)
	if v.kind == none && c.optional {
		return parquet.NullValue().Level(0, 0, i)
	}
	level := 0
	if c.optional {
		level = 1
	}
	return e.plain(c.kind, v).Level(0, level, i)
}

func (e *parquetEncoder) plain(kind parquet.Kind, v value) parquet.Value {
	switch kind {
	case parquet.Boolean:
		return parquet.BooleanValue(v.yes)
	case parquet.Int32:
		return parquet.Int32Value(int32(v.number))
	case parquet.Double:
		return parquet.DoubleValue(v.number)
	case parquet.Int64:
		if v.kind == instant {
			return parquet.Int64Value(v.at.UnixMicro())
		}
		return parquet.Int64Value(int64(v.number))
	}
	begin := len(e.text)
	e.text = appendUTF8(e.text, v.text)
	return parquet.ByteArrayValue(e.text[begin:])
}

// appendUTF8 appends text as the format wants it: readers refuse a whole file for one value that is not UTF-8.
func appendUTF8(b []byte, s string) []byte { return append(b, strings.ToValidUTF8(s, "\uFFFD")...) }

func (e *parquetEncoder) handOver() error {
	_, err := e.w.WriteRows(e.rows[:e.n])
	e.n, e.text = 0, e.text[:0]
	if cap(e.text) > 4*bytesAtOnce { // one row was very long
		e.text = nil
	}
	return err
}

func (e *parquetEncoder) endGroup() error {
	if err := e.handOver(); err != nil {
		return err
	}
	e.group, e.bytes = 0, 0
	if err := e.w.Flush(); err != nil {
		return err
	}
	e.forget()
	return nil
}

// forget lets go of what the writer would keep until the end of the file: its index has the first bytes of the least and
// the greatest value of each page, as parts of whole values. (Leaving these bounds out is no way: the index then says that
// a page holds nothing but "", and readers pass over it.)
func (e *parquetEncoder) forget() {
	for _, index := range e.w.File().ColumnIndexes() {
		for _, values := range [][][]byte{index.MinValues, index.MaxValues} {
			for i := range values {
				values[i] = bytes.Clone(values[i])
			}
		}
	}
}

func (e *parquetEncoder) close() error {
	if err := e.handOver(); err != nil {
		return err
	}
	return e.w.Close()
}
