package warcunit

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// File is what a unit is read from. Errors of ReadAt other than io.EOF are passed on.
type File interface {
	io.ReaderAt
	io.Closer
	Name() string // for errors
}

// Opened is a unit open for reading, alone in its file or merged with others.
type Opened struct {
	File
	Kind       warc.Compression
	Base, Size int64 // of the unit in the file
}

// End returns where the unit ends in its file.
func (o *Opened) End() int64 { return o.Base + o.Size }

// Stored reads the account.
func (o *Opened) Stored() (*Stored, warc.Mark, error) {
	a, m, err := ReadStored(o, o.Kind, o.End())
	if err != nil {
		return nil, m, fmt.Errorf("%s: %w", o.Name(), err)
	}
	return a, m, nil
}

// EachRecord calls do with each record, in the order in which they were added, until it returns false.
func (o *Opened) EachRecord(ctx context.Context, do func(*store.Record) bool) error {
	a, m, err := o.Stored()
	if err != nil {
		return err
	}
	r := warc.NewReader(io.NewSectionReader(o, o.End()-m.Part, m.Part-m.Last))
	defer r.Close()
	for n := 0; n < a.Records; {
		member, err := r.Next()
		if err == io.EOF {
			err = fmt.Errorf("%w: %d of %d records", warc.ErrTorn, n, a.Records)
		}
		var block []byte
		if err == nil {
			block, err = readBlock(member)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", o.Name(), err)
		}
		for line := range bytes.Lines(block) {
			if err := ctx.Err(); err != nil {
				return err
			}
			record := new(store.Record)
			if err := decodeField(line, recordField, record); err != nil {
				return fmt.Errorf("%s: %w", o.Name(), err)
			}
			if n++; !do(record) {
				return nil
			}
		}
	}
	return nil
}
