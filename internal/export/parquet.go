package export

import (
	"cmp"
	"io"
	"strings"
	"time"

	"github.com/parquet-go/parquet-go"
	"github.com/parquet-go/parquet-go/compress/zstd"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// row is a record as Parquet has it: the schema, a public contract. Names and order are those of Columns (a test holds
// it to that). What may be missing is optional, and null where it is. (parquet-go v0.32.0 panics over "optional,json" on a
// string; a pointer is optional by itself.)
type row struct {
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
	Headers        *string   `parquet:"headers,json"`
	ContentType    string    `parquet:"content_type,optional,dict"`
	Bytes          int64     `parquet:"bytes"`
	SHA256         string    `parquet:"sha256,optional"`
	Body           string    `parquet:"body,optional"`
	Unchanged      bool      `parquet:"unchanged"`
	BodyJob        string    `parquet:"body_job,optional,dict"`
	FetchedAt      time.Time `parquet:"fetched_at,timestamp(microsecond:utc)"`
	ElapsedMS      float64   `parquet:"elapsed_ms"`
	TimingsDNS     *float64  `parquet:"timings_dns"`
	TimingsConnect *float64  `parquet:"timings_connect"`
	TimingsTLS     *float64  `parquet:"timings_tls"`
	TimingsTTFB    *float64  `parquet:"timings_ttfb"`
	TimingsTotal   *float64  `parquet:"timings_total"`
	Protocol       string    `parquet:"protocol,optional,dict"`
	RemoteAddr     string    `parquet:"remote_addr,optional,dict"`
	Redirects      *string   `parquet:"redirects,json"`
	Worker         string    `parquet:"worker,dict"`
	Meta           *string   `parquet:"meta,json"`
}

// A row group is what a reader reads at once and what the writer keeps in memory, compressed.
const (
	rowsPerGroup  = 64 << 10
	bytesPerGroup = 32 << 20 // of values before compression, for rows that are long
	rowsAtOnce    = 64       // handed to the columns together
)

// parquetEncoder writes Apache Parquet, zstd inside.
type parquetEncoder struct {
	w     *parquet.GenericWriter[row]
	rows  [rowsAtOnce]row
	n     int // of rows that are not handed over yet
	group int // rows of the row group
	bytes int // and of their values
}

func newParquet(w io.Writer, o Options) *parquetEncoder {
	return &parquetEncoder{w: parquet.NewGenericWriter[row](w, &parquet.WriterConfig{
		CreatedBy:        cmp.Or(o.CreatedBy, "fetchfleet"),
		Compression:      &zstd.Codec{Level: zstd.SpeedFastest},
		KeyValueMetadata: map[string]string{"fetchfleet.records": "1"}, // version of the schema
		// A column of few values has a dictionary; one that turns out to have many goes on without.
		DictionaryMaxBytes: 256 << 10,
		PageBufferSize:     128 << 10,
	})}
}

func (e *parquetEncoder) encode(r *store.Record) error {
	row := &e.rows[e.n]
	*row = rowOf(r)
	e.n++
	e.group++
	e.bytes += row.size()
	if e.group == rowsPerGroup || e.bytes >= bytesPerGroup {
		return e.endGroup()
	}
	if e.n == rowsAtOnce {
		return e.handOver()
	}
	return nil
}

func (e *parquetEncoder) handOver() error {
	_, err := e.w.Write(e.rows[:e.n])
	clear(e.rows[:e.n]) // whose texts are no longer needed
	e.n = 0
	return err
}

func (e *parquetEncoder) endGroup() error {
	if err := e.handOver(); err != nil {
		return err
	}
	e.group, e.bytes = 0, 0
	return e.w.Flush()
}

func (e *parquetEncoder) close() error {
	if err := e.handOver(); err != nil {
		return err
	}
	return e.w.Close()
}

func rowOf(r *store.Record) row {
	w := row{
		ID: utf8(r.ID), Job: utf8(r.Job), Batch: utf8(r.Batch), Generation: int32(r.Generation), URL: utf8(r.URL), FinalURL: utf8(r.FinalURL),
		Method: utf8(r.Method), Outcome: utf8(string(r.Outcome)), Status: int32(r.Status), Attempts: int32(r.Attempts),
		Headers: nullable(headersOf(r)), ContentType: utf8(r.ContentType), Bytes: r.Bytes, SHA256: utf8(r.SHA256), Body: utf8(r.Body),
		Unchanged: r.Unchanged, BodyJob: utf8(r.BodyJob), FetchedAt: r.FetchedAt.UTC(), ElapsedMS: r.ElapsedMS,
		Protocol: utf8(r.Protocol), RemoteAddr: utf8(r.RemoteAddr), Redirects: nullable(redirectsOf(r)), Worker: utf8(r.Worker),
		Meta: nullable(documentValue(compact(r.Meta))),
	}
	if r.Error != nil {
		w.ErrorClass, w.ErrorMessage = utf8(r.Error.Class), utf8(r.Error.Message)
	}
	if t := r.Timings; t != nil {
		w.TimingsDNS, w.TimingsConnect, w.TimingsTLS = &t.DNS, &t.Connect, &t.TLS
		w.TimingsTTFB, w.TimingsTotal = &t.TTFB, &t.Total
	}
	return w
}

// utf8 is text as the format wants it: readers refuse a whole file for one value that is not UTF-8.
func utf8(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// nullable is a document, or null.
func nullable(v value) *string {
	if v.kind == none {
		return nil
	}
	s := utf8(v.text)
	return &s
}

// size is about how many bytes the values of a row have: those that may be long, and the rest as a constant.
func (w *row) size() int {
	n := 256 + len(w.URL) + len(w.FinalURL) + len(w.ErrorMessage) + len(w.ContentType) + len(w.Body)
	for _, document := range []*string{w.Headers, w.Redirects, w.Meta} {
		if document != nil {
			n += len(*document)
		}
	}
	return n
}
