package warcunit

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// Stored is an account as it lies at the end of its unit, with what is needed to read the unit.
type Stored struct {
	*store.Account
	Layout   int            `json:"layout"`
	Attempt  string         `json:"attempt"` // WORKER~RUN~N~COMMIT, unique for ever
	Records  int            `json:"records"`
	Captures []warc.Capture `json:"captures,omitempty"`
}

// IsOf reports whether it was written by the unit of that stem.
func (a *Stored) IsOf(stem string) bool { return strings.HasPrefix(a.Attempt, stem+"~") }

// AppendTo appends the last record of a unit, which has whole bytes before it, the last part of them records.
// '&', '<' and '>' stay as they are, so that payloads come back as they were given.
func (a *Stored) AppendTo(out []byte, kind warc.Compression, part, whole int64) ([]byte, error) {
	block := bytes.NewBufferString(accountField)
	enc := json.NewEncoder(block)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(a); err != nil {
		return out, fmt.Errorf("encode account: %w", err)
	}
	block.Truncate(block.Len() - 1)
	block.WriteString("\r\n")
	h := &warc.Header{Type: warc.Metadata, ID: warc.NewID(), Date: time.Now(), BlockDigest: sha256.Sum256(block.Bytes()), ContentType: warc.Fields}
	return kind.AppendMarked(out, part, whole, h.Append(nil, int64(block.Len())), block.Bytes(), []byte(warc.End)), nil
}

// tailSize is what is read of the end of a unit at first: it holds the account of most.
const tailSize = 8 << 10

// maxLast is the most that the last member of a unit may have: an account of 64 MiB, compressed.
const maxLast = 64 << 20

// readMark reads the end of the unit that ends at a byte of a file, until it finds its mark.
func readMark(f io.ReaderAt, kind warc.Compression, end int64) (warc.Mark, []byte, error) {
	for n := int64(tailSize); ; n *= 8 {
		n = min(n, end, maxLast)
		tail := make([]byte, n)
		if _, err := f.ReadAt(tail, end-n); err == io.EOF && n > 0 {
			return warc.Mark{}, nil, fmt.Errorf("%w: it should have %d bytes", warc.ErrTorn, end)
		} else if err != nil && err != io.EOF {
			return warc.Mark{}, nil, err
		}
		if m, ok := kind.FindMark(tail, end); ok && (m.Last <= n) {
			return m, tail[n-m.Last:], nil
		} else if ok && m.Last <= maxLast {
			tail = make([]byte, m.Last)
			_, err := f.ReadAt(tail, end-m.Last)
			return m, tail, err
		}
		if n == end || n == maxLast {
			return warc.Mark{}, nil, fmt.Errorf("%w: it does not end in the mark of a unit", warc.ErrDamaged)
		}
	}
}

// ReadStored reads the account of the unit that ends at a byte of a file.
func ReadStored(f io.ReaderAt, kind warc.Compression, end int64) (*Stored, warc.Mark, error) {
	m, last, err := readMark(f, kind, end)
	if err != nil {
		return nil, m, err
	}
	r := warc.NewReader(bytes.NewReader(last))
	defer r.Close()
	rec, err := r.Next()
	if err != nil {
		return nil, m, err
	}
	block, err := readBlock(rec)
	if err != nil {
		return nil, m, err
	}
	a := &Stored{Account: &store.Account{}}
	if err := decodeField(block, accountField, a); err != nil {
		return nil, m, err
	}
	switch {
	case a.Layout > LayoutVersion:
		return nil, m, fmt.Errorf("the unit has layout version %d, this program knows %d: use a newer one", a.Layout, LayoutVersion)
	case a.V > store.AccountVersion:
		return nil, m, fmt.Errorf("the account has version %d, this program knows %d: use a newer one", a.V, store.AccountVersion)
	}
	return a, m, nil
}

// maxField is the most that the block of a metadata record may have.
const maxField = 256 << 20

// errField says that a record is none of ours.
var errField = errors.New("no metadata of this program")

// readBlock reads the block of a metadata record, to its end.
func readBlock(rec *warc.Record) ([]byte, error) {
	if rec.Size > maxField {
		return nil, fmt.Errorf("%w: a metadata record has %d bytes", warc.ErrDamaged, rec.Size)
	}
	var block bytes.Buffer
	block.Grow(int(min(rec.Size, 1<<20)) + bytes.MinRead)
	if _, err := block.ReadFrom(rec); err != nil {
		return nil, err
	}
	return block.Bytes(), rec.Finish()
}

// decodeField reads one field of a metadata record.
func decodeField(line []byte, name string, into any) error {
	value, ok := bytes.CutPrefix(line, []byte(name))
	if !ok {
		return fmt.Errorf("%w: %w", warc.ErrDamaged, errField)
	}
	if err := json.Unmarshal(value, into); err != nil {
		return fmt.Errorf("%w: %w", warc.ErrDamaged, err)
	}
	return nil
}
