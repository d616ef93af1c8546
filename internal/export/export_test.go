package export

import (
	"bytes"
	"context"
	"encoding/csv"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/parquet-go/parquet-go"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// everything is a record with every field set, and with what formats stumble over.
func everything() *store.Record {
	return &store.Record{
		ID: "id-1", Job: "spring", Batch: "b1", Generation: 2, URL: "https://example.test/a,b?q=\"x\"", FinalURL: "https://example.test/ä",
		Method: "POST", Outcome: store.HTTPError, Status: 503,
		Error:    &store.RecordError{Class: "http_503", Message: "two\nlines, a \"quote\"\r\nand ünïcode"},
		Attempts: 3, Headers: map[string][]string{"Set-Cookie": {"a=1", "b=<2>"}, "Content-Length": {"12"}, "Etag": {`"x"`}},
		ContentType: "text/html; charset=utf-8", Bytes: 12, SHA256: "ab", Body: "bodies/ab/ab.html", Unchanged: true, BodyJob: "winter", Resumed: 3,
		FetchedAt: time.Date(2026, 2, 3, 4, 5, 6, 789_000, time.UTC), ElapsedMS: 1234.5678,
		Timings:  &store.Timings{Connect: 1.5, TLS: 1e-7, TTFB: 20, Total: 30},
		Protocol: "HTTP/2.0", RemoteAddr: "[2001:db8::1]:443",
		Redirects: []store.Redirect{{URL: "https://example.test/1?a&b", Status: 301}},
		Worker:    "w1", Meta: json.RawMessage(`{"tag": "one, two", "n": 7, "deep": {"er": true}, "a.b": null}`),
	}
}

// bare is a record with nothing that may be missing.
func bare() *store.Record {
	return &store.Record{ID: "id-2", Job: "spring", Batch: "b2", URL: "http://example.test:8080/", Method: "GET", Outcome: store.Failed,
		Attempts: 1, FetchedAt: time.Date(2026, 2, 4, 0, 0, 0, 0, time.UTC), Worker: "w2"}
}

func source(records ...*store.Record) Source {
	return func(yield func(*store.Record, error) bool) {
		for _, r := range records {
			if !yield(r, nil) {
				return
			}
		}
	}
}

func export(t *testing.T, f Format, o Options, records ...*store.Record) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(t.Context(), &out, f, source(records...), o); err != nil {
		t.Fatalf("Write %s: %v", f, err)
	}
	return out.Bytes()
}

func TestTextFormatsAreThoseOfTheGoldenFiles(t *testing.T) {
	tests := map[string]struct {
		format Format
		fields []string
	}{
		"records.jsonl": {format: JSONL},
		"records.csv":   {format: CSV},
		"chosen.csv":    {format: CSV, fields: []string{"host", "status", "error.class", "meta.tag", "meta.deep.er", "header.set-cookie", "url"}},
		"records.urls":  {format: URLs},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got := export(t, tt.format, Options{Fields: tt.fields}, everything(), bare())
			path := filepath.Join("testdata", name)
			if *update {
				if err := os.WriteFile(path, got, 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), string(got)); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		})
	}
}

func TestCSVIsReadByAnotherReader(t *testing.T) {
	records, err := csv.NewReader(bytes.NewReader(export(t, CSV, Options{}, everything(), bare()))).ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Columns(), records[0]); diff != "" || len(records) != 3 {
		t.Fatalf("%d lines, header (-want +got):\n%s", len(records), diff)
	}
	for i, name := range records[0] {
		f, err := fieldNamed(name)
		if err != nil {
			t.Fatal(err)
		}
		for n, r := range []*store.Record{everything(), bare()} {
			want := strings.ReplaceAll(string(f.of(r).append(nil)), "\r\n", "\n") // which that reader does
			if got := records[n+1][i]; got != want {
				t.Errorf("record %d, %s: %q, want %q", n, name, got, want)
			}
		}
	}
}

func TestALineOfOneEmptyColumnIsNotBlank(t *testing.T) {
	if got, want := string(export(t, CSV, Options{Fields: []string{"status"}}, bare())), "status\r\n\"\"\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParquetHasTheColumnsOfCSV(t *testing.T) {
	var names []string
	for i := range reflect.TypeFor[schemaOfRecords]().NumField() {
		name, _, _ := strings.Cut(reflect.TypeFor[schemaOfRecords]().Field(i).Tag.Get("parquet"), ",")
		names = append(names, name)
	}
	if diff := cmp.Diff(Columns(), names); diff != "" {
		t.Errorf("columns (-csv +parquet):\n%s", diff)
	}
}

// The schema as the format's own text has it: whoever reads such files relies on it.
func TestTheSchemaOfParquetIsThatOfTheGoldenFile(t *testing.T) {
	path, got := "testdata/schema.txt", parquetSchema().String()+"\n"
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("schema (-want +got):\n%s", diff)
	}
}

func TestParquetComesBackAsItWent(t *testing.T) {
	data := export(t, Parquet, Options{}, everything(), bare())
	f, err := parquet.OpenFile(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	rows := f.RowGroups()[0].Rows()
	defer rows.Close()
	got := make([]parquet.Row, 3)
	if n, err := rows.ReadRows(got); n != 2 || err != nil && err != io.EOF {
		t.Fatalf("%d rows, %v", n, err)
	}
	for n, r := range []*store.Record{everything(), bare()} {
		for i, name := range Columns() {
			f, err := fieldNamed(name)
			if err != nil {
				t.Fatal(err)
			}
			want := string(f.of(r).append(nil))
			if f.kind == instant {
				want = fmt.Sprint(r.FetchedAt.UnixMicro())
			}
			if v := got[n][i]; v.Column() != i || v.IsNull() != (want == "") || !v.IsNull() && sameNumber(v.String()) != sameNumber(want) {
				t.Errorf("row %d, %s: %q (null: %t), want %q", n, name, v, v.IsNull(), want)
			}
		}
	}
}

// sameNumber spells numbers alike.
func sameNumber(s string) string {
	if n, err := strconv.ParseFloat(s, 64); err == nil {
		return fmt.Sprint(n)
	}
	return s
}

// endless yields n records, each made anew as a store's are.
func endless(n int, each func(i int) *store.Record) Source {
	return func(yield func(*store.Record, error) bool) {
		for i := range n {
			if !yield(each(i), nil) {
				return
			}
		}
	}
}

func TestRowGroupsAreBoundedByRowsAndByBytes(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	tests := map[string]struct {
		n     int
		each  func(i int) *store.Record
		group []int64
	}{
		"short rows": {rowsPerGroup + 100, func(int) *store.Record { return bare() }, []int64{rowsPerGroup, 100}},
		"long rows":  {80, func(int) *store.Record { r := bare(); r.Error = &store.RecordError{Message: long}; return r }, []int64{64, 16}},
		"none":       {0, nil, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			if err := Write(t.Context(), &out, Parquet, endless(tt.n, tt.each), Options{}); err != nil {
				t.Fatal(err)
			}
			f, err := parquet.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
			if err != nil {
				t.Fatal(err)
			}
			var got []int64
			for _, g := range f.RowGroups() {
				got = append(got, g.NumRows())
			}
			if diff := cmp.Diff(tt.group, got); diff != "" {
				t.Errorf("rows of the groups (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParquetKeepsNothingOfThePagesItWrote(t *testing.T) {
	e := newParquet(io.Discard, Options{})
	e.limit = 8 << 20
	heap := func(rows int) int64 {
		for i := range rows {
			r := typical(i)
			r.Meta = fmt.Appendf(nil, "%q", strings.Repeat(fmt.Sprintf("%08d", i), 5000))
			if err := e.encode(t.Context(), r); err != nil {
				t.Fatal(err)
			}
		}
		if err := e.endGroup(); err != nil {
			t.Fatal(err)
		}
		runtime.GC()
		runtime.GC() // pools are emptied by the second
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	before := heap(300)
	if grown := heap(1500) - before; grown > 4<<20 {
		t.Errorf("after 60 MB more the writer keeps %d bytes more", grown)
	}
	if err := e.close(); err != nil {
		t.Fatal(err)
	}
}

// A reader passes over pages by the bounds in the file's index: they must hold what is in the page.
func TestTheIndexOfParquetHoldsTheValuesOfEachPage(t *testing.T) {
	const n = 20_000
	var out bytes.Buffer
	if err := Write(t.Context(), &out, Parquet, endless(n, typical), Options{}); err != nil {
		t.Fatal(err)
	}
	f, err := parquet.OpenFile(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"url", "headers", "sha256"} {
		column, _ := f.Schema().Lookup(name)
		index, err := f.RowGroups()[0].ColumnChunks()[column.ColumnIndex].ColumnIndex()
		if err != nil || index.NumPages() < 2 {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range n {
			field, _ := fieldNamed(name)
			v := parquet.ByteArrayValue([]byte(field.of(typical(i)).text))
			within := false
			for p := range index.NumPages() {
				within = within || bytes.Compare(index.MinValue(p).ByteArray(), v.ByteArray()) <= 0 && bytes.Compare(index.MaxValue(p).ByteArray(), v.ByteArray()) >= 0
			}
			if !within {
				t.Fatalf("%s: no page would be read for %q", name, v)
			}
		}
	}
}

func TestTextThatIsNotUTF8DoesNotSpoilTheFile(t *testing.T) {
	r := bare()
	r.ContentType = "text/\xff"
	data := export(t, Parquet, Options{}, r)
	type row struct {
		ContentType string `parquet:"content_type,optional"`
	}
	rows, err := parquet.Read[row](bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := rows[0].ContentType, "text/\uFFFD"; got != want {
		t.Errorf("content type %q, want %q", got, want)
	}
}

func TestLimitAndFilterAreCounted(t *testing.T) {
	f, err := ParseFilter("outcome=failed")
	if err != nil {
		t.Fatal(err)
	}
	var counts Counts
	records := []*store.Record{everything(), bare(), everything(), bare(), bare()}
	got := string(export(t, URLs, Options{Filter: f, Limit: 2, Counts: &counts}, records...))
	if want := bare().URL + "\n" + bare().URL + "\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if counts.Read.Load() != 4 || counts.Written.Load() != 2 {
		t.Errorf("read %d, written %d, want 4 and 2", counts.Read.Load(), counts.Written.Load())
	}
}

func TestErrorsComeBack(t *testing.T) {
	broken := errors.New("broken")
	fails := func(yield func(*store.Record, error) bool) { _ = yield(bare(), nil) && yield(nil, broken) }
	canceled, cancel := context.WithCancel(t.Context())
	cancel()
	tests := map[string]struct {
		ctx  context.Context
		w    io.Writer
		from Source
		o    Options
		want error
	}{
		"of the source":  {t.Context(), io.Discard, fails, Options{}, broken},
		"of the writer":  {t.Context(), refusing{broken}, source(bare()), Options{}, broken},
		"of the context": {canceled, io.Discard, source(bare()), Options{}, context.Canceled},
	}
	for _, format := range []Format{JSONL, CSV, Parquet, URLs} {
		for name, tt := range tests {
			t.Run(fmt.Sprint(format, " ", name), func(t *testing.T) {
				if err := Write(tt.ctx, tt.w, format, tt.from, tt.o); !errors.Is(err, tt.want) {
					t.Errorf("Write says %v, want %v", err, tt.want)
				}
			})
		}
	}
}

type refusing struct{ err error }

func (r refusing) Write([]byte) (int, error) { return 0, r.err }

func TestFieldsAreForCSVAndMustBeThere(t *testing.T) {
	tests := map[string]struct {
		format Format
		fields []string
		says   string
	}{
		"another format": {JSONL, []string{"url"}, "fields are chosen for csv alone, not for jsonl"},
		"no such field":  {CSV, []string{"url", "colour"}, `there is no field "colour"; there are attempts, batch, body`},
		"twice":          {CSV, []string{"class", "error.class"}, `"error.class" stands there twice`},
		"no format":      {"xml", nil, `no format "xml"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			err := Write(t.Context(), io.Discard, tt.format, source(), Options{Fields: tt.fields})
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("Write says %v, want it to say %q", err, tt.says)
			}
		})
	}
}

func BenchmarkWrite(b *testing.B) {
	const n = 100_000
	for _, format := range []Format{JSONL, CSV, Parquet, URLs} {
		b.Run(string(format), func(b *testing.B) {
			var size int64
			for b.Loop() {
				out := &counting{}
				if err := Write(b.Context(), out, format, endless(n, typical), Options{}); err != nil {
					b.Fatal(err)
				}
				size = out.n
			}
			b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds(), "records/s")
			b.ReportMetric(float64(size)/n, "B/record")
		})
	}
}

type counting struct{ n int64 }

func (c *counting) Write(p []byte) (int, error) { c.n += int64(len(p)); return len(p), nil }

// typical is a record as a fetch of a web page leaves it.
func typical(i int) *store.Record {
	sha := fmt.Sprintf("%064x", i*7919)
	return &store.Record{
		ID: fmt.Sprintf("%032x", i*104729), Job: "spring", Batch: fmt.Sprintf("b%d", i/32), URL: fmt.Sprintf("https://h%d.example.test/page/%d?x=1", i%200, i),
		Method: "GET", Outcome: store.OK, Status: 200, Attempts: 1, Bytes: 2048, SHA256: sha, Body: "bodies/" + sha[:2] + "/" + sha + ".html",
		Headers: map[string][]string{"Content-Type": {"text/html; charset=utf-8"}, "Date": {"Fri, 20 Nov 2026 19:08:06 GMT"}, "Server": {"nginx"},
			"Content-Length": {"2048"}, "Etag": {fmt.Sprintf("%q", sha[:16])}, "Cache-Control": {"max-age=3600"}},
		ContentType: "text/html; charset=utf-8", FetchedAt: time.Unix(1_790_000_000+int64(i), 123456000), ElapsedMS: 12.25,
		Timings:  &store.Timings{Connect: 1, TLS: 2, TTFB: float64(i%50) + 0.125, Total: 12.25},
		Protocol: "HTTP/2.0", RemoteAddr: fmt.Sprintf("203.0.113.%d:443", i%200), Worker: "w1",
	}
}
