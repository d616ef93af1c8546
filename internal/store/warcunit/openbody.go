package warcunit

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/fetchfleet/fetchfleet/internal/coding"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// OpenBody opens a body by the Body field of its record, decoded. Its last Read fails if the record is damaged.
func (s *Workshop) OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	bodyJob, unit, offset, err := ParseBody(job, body)
	if err != nil {
		return nil, fmt.Errorf("open body: %w", err)
	}
	b, err := s.openRecord(ctx, bodyJob, unit, offset)
	if err != nil {
		return nil, fmt.Errorf("open body %s of job %s: %w", body, job, err)
	}
	if err := b.open(); err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("open body %s of job %s: %w", body, job, err)
	}
	return b, nil
}

// openRecord opens the record at an offset of a unit.
func (s *Workshop) openRecord(ctx context.Context, job, unit string, offset int64) (*openedBody, error) {
	o, err := s.Open(ctx, job, unit, offset)
	if err != nil {
		return nil, err
	}
	b := &openedBody{file: o}
	if offset >= o.Size {
		err = fmt.Errorf("%w: offset %d of a unit of %d bytes", warc.ErrDamaged, offset, o.Size)
	} else {
		b.reader = warc.NewReader(io.NewSectionReader(o, o.Base+offset, o.Size-offset))
		b.record, err = b.reader.Next()
	}
	if err != nil {
		_ = b.Close()
		return nil, fmt.Errorf("%s: %w", o.Name(), err)
	}
	return b, nil
}

// openedBody is a record open for reading.
type openedBody struct {
	file    *Opened
	reader  *warc.Reader
	record  *warc.Record
	payload io.Reader      // of the record, as sent
	decoded *coding.Reader // nil where nothing is to be undone
	left    int64          // decoded bytes that are still to come, where decoded
}

// open passes over the head and prepares to decode.
func (b *openedBody) open() error {
	switch b.record.Type() {
	case warc.Resource, warc.Conversion:
		b.payload = b.record
		return nil
	case warc.Response:
	default:
		return fmt.Errorf("%w: it is in a %.20q record", warc.ErrDamaged, b.record.Type())
	}
	src := bufio.NewReaderSize(b.record, 4<<10)
	b.payload = src
	if err := passHead(src); err != nil {
		return err
	}
	length := b.record.Get(decodedField)
	if length == "" {
		return nil
	}
	n, err := strconv.ParseInt(length, 10, 64)
	if err != nil || n < 0 {
		return fmt.Errorf("%w: %s is %.40q", warc.ErrDamaged, decodedField, length)
	}
	// What lies between two codings may be longer than what comes out at last, but not by much.
	if b.decoded, err = coding.NewReader([]string{b.record.Get(encodingField)}, src, coding.Limits{Bytes: n + n/8 + 1<<20}); err != nil {
		return err
	}
	if b.decoded == nil {
		return fmt.Errorf("%w: %s is %.40q, which names nothing to undo", warc.ErrDamaged, encodingField, b.record.Get(encodingField))
	}
	b.left = n
	return nil
}

// maxHead is the most that the head of an answer may have; it was received, under a limit that is lower.
const maxHead = 64 << 20

// passHead reads the head of an HTTP answer.
func passHead(src *bufio.Reader) error {
	for read := 0; read < maxHead; {
		line, err := src.ReadSlice('\n')
		read += len(line)
		long := err == bufio.ErrBufferFull
		for err == bufio.ErrBufferFull {
			line, err = src.ReadSlice('\n')
			read += len(line)
		}
		if err != nil {
			return err
		}
		if !long && len(bytes.TrimRight(line, "\r\n")) == 0 {
			return nil
		}
	}
	return fmt.Errorf("%w: the head of the answer does not end", warc.ErrDamaged)
}

// Read reads decoded bytes.
func (b *openedBody) Read(p []byte) (int, error) {
	if b.decoded == nil {
		n, err := b.payload.Read(p)
		return n, b.end(err)
	}
	n, err := b.decoded.Read(p)
	b.left -= int64(n)
	if err == io.EOF && b.left != 0 || b.left < 0 {
		return n, fmt.Errorf("%s: %w: the decoded body has not the length it had", b.file.Name(), warc.ErrDamaged)
	}
	return n, b.end(err)
}

// end checks the record once it was read.
func (b *openedBody) end(err error) error {
	if err == io.EOF {
		if ferr := b.record.Finish(); ferr != nil {
			err = ferr
		}
	}
	if err != nil && err != io.EOF {
		return fmt.Errorf("%s: %w", b.file.Name(), err)
	}
	return err
}

// Close closes the body.
func (b *openedBody) Close() error {
	if b.file == nil {
		return errors.New("the body is closed")
	}
	if b.decoded != nil {
		b.decoded.Release()
	}
	if b.reader != nil {
		b.reader.Close()
	}
	err := b.file.Close()
	b.file = nil
	return err
}
