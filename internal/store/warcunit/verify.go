package warcunit

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// Kinds of findings.
const (
	TornKind      = "torn"
	StructureKind = "structure"
	DigestKind    = "digest"
)

// Verify reads a unit whole: that each record is, has the digests that it names, and lies where the account says. It
// returns what is wrong with the unit of that name, or nil. where names it in findings. An error is trouble with the store.
func (o *Opened) Verify(where, job, name string) (*store.Finding, error) {
	a, m, err := ReadStored(o, o.Kind, o.End())
	if err != nil {
		return Damaged(where, err)
	}
	if a.Unit() != name || a.Job != job || m.Whole != o.Size {
		return &store.Finding{Kind: StructureKind, Where: where,
			What: fmt.Sprintf("it holds unit %s of job %s in its last %d of %d bytes", a.Unit(), a.Job, m.Whole, o.Size)}, nil
	}
	captures := make(map[int64]warc.Capture, len(a.Captures))
	for _, c := range a.Captures {
		captures[c.Offset] = c
	}
	records, err := o.members(m, captures)
	if err != nil {
		return Damaged(where, err)
	}
	if len(captures) > 0 || records != a.Records {
		return &store.Finding{Kind: StructureKind, Where: where, What: fmt.Sprintf(
			"%d of %d records are there, and %d captures are not where the account says", records, a.Records, len(captures))}, nil
	}
	return nil, nil
}

// members reads the members of a unit, counts its records, and strikes out the captures that it meets.
func (o *Opened) members(m warc.Mark, captures map[int64]warc.Capture) (records int, err error) {
	r := warc.NewReader(io.NewSectionReader(o, o.Base, o.Size))
	defer r.Close()
	r.Verify = true
	for {
		rec, err := r.Next()
		if err == io.EOF {
			return records, nil
		}
		if err == nil && rec.Offset >= o.Size-m.Part {
			var block []byte
			block, err = readBlock(rec)
			for line := range bytes.Lines(block) {
				if bytes.HasPrefix(line, []byte(recordField)) {
					records++
				}
			}
		} else if err == nil {
			err = rec.Finish()
		}
		if err != nil {
			return records, err
		}
		if c, ok := captures[rec.Offset]; ok && c.Length == rec.Length && rec.Type() != warc.Request && rec.Type() != warc.Metadata {
			delete(captures, rec.Offset)
		}
	}
}

// Damaged tells a finding from trouble with the store.
func Damaged(where string, err error) (*store.Finding, error) {
	f := store.Finding{Where: where, What: err.Error()}
	switch {
	case errors.Is(err, warc.ErrDigest):
		f.Kind = DigestKind
	case errors.Is(err, warc.ErrTorn):
		f.Kind = TornKind
	case errors.Is(err, warc.ErrDamaged):
		f.Kind = StructureKind
	default:
		return nil, err
	}
	return &f, nil
}
