// Package export writes the records of a job in formats that other programs read: lines of JSON, CSV, Parquet, WARC and
// plain URLs.
//
// It promises to stream: memory does not grow with the number of records. Columns and their names are a public contract,
// as the fields of store.Record are: they are only added to. Where records come from is the caller's: this package knows
// neither stores nor ledgers, and reads of an iterator only what it writes.
package export

import (
	"context"
	"fmt"
	"io"
	"iter"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Format is how records are written. The values are a public contract.
type Format string

// The formats.
const (
	JSONL   Format = "jsonl"   // one JSON object a line, as in results.jsonl
	CSV     Format = "csv"     // RFC 4180 with a header line
	Parquet Format = "parquet" // Apache Parquet
	WARC    Format = "warc"    // WARC 1.1 with the bodies, see WriteWARC
	URLs    Format = "urls"    // the request's URL alone, one a line
)

// Binary reports whether a format is no text, so that nobody wants it on a terminal or compressed once more.
func (f Format) Binary() bool { return f == Parquet || f == WARC }

// Source yields the records to be exported. The records are not kept.
type Source = iter.Seq2[*store.Record, error]

// Options say what is written and how. The zero value writes every record with every column.
type Options struct {
	Filter Filter   // the zero Filter lets everything pass
	Fields []string // columns of CSV, in their order; see CheckFields. Empty: Columns
	Limit  int64    // at most so many records are written; 0: all
	Counts *Counts  // counted while it goes on; nil: nobody looks
	// CreatedBy is what Parquet files name as their writer, "fetchfleet version v1.2.3"; "": fetchfleet.
	CreatedBy string
}

// Counts are the figures of an export. They may be read while it goes on.
type Counts struct {
	Read    atomic.Int64 // records that came from the source
	Written atomic.Int64 // records that passed the filter
}

// encoder writes one format.
type encoder interface {
	encode(ctx context.Context, r *store.Record) error
	// close writes what is left. It does not close the writer below.
	close() error
}

// Write writes the records of a source to w until the source ends, the limit is reached or ctx is done. Errors of the
// source and of w come back wrapped; after one, what was written is not whole. WARC is no single stream: see WriteWARC.
func Write(ctx context.Context, w io.Writer, f Format, from Source, o Options) error {
	e, err := encoderOf(w, f, o)
	if err != nil {
		return err
	}
	if err := pass(ctx, e, from, o); err != nil {
		return err
	}
	if err := e.close(); err != nil {
		return fmt.Errorf("write %s: %w", f, err)
	}
	return nil
}

func encoderOf(w io.Writer, f Format, o Options) (encoder, error) {
	if len(o.Fields) > 0 && f != CSV {
		return nil, fmt.Errorf("fields are chosen for %s alone, not for %s", CSV, f)
	}
	switch f {
	case JSONL:
		return &lineEncoder{w: w, line: store.AppendRecord}, nil
	case URLs:
		return &lineEncoder{w: w, line: appendURL}, nil
	case CSV:
		return newCSV(w, o.Fields)
	case Parquet:
		return newParquet(w, o), nil
	}
	return nil, fmt.Errorf("no format %q", f)
}

// pass gives the records that are asked for to an encoder.
func pass(ctx context.Context, e encoder, from Source, o Options) error {
	if o.Counts == nil {
		o.Counts = &Counts{}
	}
	for r, err := range from {
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("read the records: %w", err)
		}
		o.Counts.Read.Add(1)
		if !o.Filter.Match(r) {
			continue
		}
		if err := e.encode(ctx, r); err != nil {
			return fmt.Errorf("write record %s: %w", r.ID, err)
		}
		if o.Counts.Written.Add(1) == o.Limit {
			return nil
		}
	}
	return nil
}

// CheckFields refuses names that are no columns, with the list of those that are.
func CheckFields(names []string) error {
	seen := map[string]bool{}
	for _, name := range names {
		f, err := fieldNamed(name)
		if err != nil {
			return err
		}
		if seen[f.name] {
			return fmt.Errorf("%q stands there twice", name)
		}
		seen[f.name] = true
	}
	return nil
}

// Columns are the columns of CSV and Parquet, in their order.
func Columns() []string {
	var names []string
	for _, f := range fields {
		if !f.derived {
			names = append(names, f.name)
		}
	}
	return names
}

// known lists what can be named in a filter or as a column of CSV.
func known() string {
	names := make([]string, 0, len(fields))
	for _, f := range fields {
		names = append(names, f.name)
	}
	slices.Sort(names)
	return strings.Join(names, ", ") + ", " + metaPrefix + "KEY, " + headerPrefix + "NAME"
}
