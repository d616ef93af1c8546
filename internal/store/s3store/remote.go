package s3store

import (
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/minio/minio-go/v7"
)

const (
	// tailSize is what is read of the end of a unit at first: account and records of most units.
	tailSize = 64 << 10
	// firstAhead and mostAhead are how many bytes are asked for at first and at most, where an object is read from its middle.
	// Nobody says how long a record is; with four times as many each time, few calls are made and little is sent in vain.
	firstAhead = 64 << 10
	mostAhead  = 64 << 20
	// drained is how much of an answer is read to its end rather than to lose the connection.
	drained = 16 << 10
)

// remote is an object that is read here and there, mostly forward. It implements warcunit.File, for one goroutine. A
// transfer that is cut goes on by itself from where it was.
type remote struct {
	ctx  context.Context // of the open call: an io.ReaderAt has none
	c    *client
	key  string
	etag string
	size int64
	tail []byte // its last bytes, where they were read

	body    io.ReadCloser // the answer that is being read, or nil
	at, end int64         // what body is still to yield
	ahead   int64         // how many bytes the next call asks for
}

// openTail opens an object and reads its end, in one call.
func (c *client) openTail(ctx context.Context, key string) (*remote, error) {
	r := &remote{ctx: ctx, c: c, key: key, ahead: mostAhead}
	err := c.do(ctx, "read", key, func() error {
		var o minio.GetObjectOptions
		if err := o.SetRange(0, -tailSize); err != nil {
			return err
		}
		if err := r.ask(o); err != nil {
			return err
		}
		r.tail = make([]byte, r.end-r.at)
		_, err := io.ReadFull(r.body, r.tail)
		r.hangUp()
		return err
	})
	if err != nil {
		return nil, err
	}
	if r.end != r.size {
		return nil, c.trouble("read", key, fmt.Errorf("asked for its end and was sent the bytes before %d of %d: %w", r.end, r.size, errDamaged))
	}
	return r, nil
}

// openAt opens an object that is read from a byte on.
func (c *client) openAt(ctx context.Context, key string, offset int64) (*remote, error) {
	r := &remote{ctx: ctx, c: c, key: key, ahead: firstAhead}
	if err := c.do(ctx, "read", key, func() error { return r.connect(offset) }); err != nil {
		return nil, err
	}
	return r, nil
}

// connect asks for bytes from an offset on.
func (r *remote) connect(offset int64) error {
	var o minio.GetObjectOptions
	end := offset + r.ahead
	if r.size > 0 { // and what is in tail need not be sent again
		end = min(end, r.size-int64(len(r.tail)))
	}
	if err := o.SetRange(offset, end-1); err != nil {
		return err
	}
	if r.etag != "" {
		if err := o.SetMatchETag(r.etag); err != nil {
			return err
		}
	}
	if err := r.ask(o); err != nil {
		return err
	}
	if r.at != offset {
		r.hangUp()
		return fmt.Errorf("asked for the bytes from %d on and was offered those from %d on: %w", offset, r.at, errDamaged)
	}
	r.ahead = min(4*r.ahead, mostAhead)
	return nil
}

// ask makes a call, whose answer says which bytes it brings.
func (r *remote) ask(o minio.GetObjectOptions) error {
	r.hangUp()
	body, info, header, err := r.c.quick.GetObject(r.ctx, r.c.o.Bucket, r.key, o)
	if codeOf(err) == "InvalidRange" { // an object that is shorter than it should be
		return fmt.Errorf("%w: %w (%w)", warc.ErrTorn, errDamaged, err)
	}
	if err != nil {
		return err
	}
	from, end, size, ok := parseContentRange(header.Get("Content-Range"))
	if !ok { // the answer is the whole object
		from, end, size = 0, info.Size, info.Size
	}
	if info.Size != end-from || r.size != 0 && r.size != size || !ok && size > mostAhead {
		_ = body.Close()
		return fmt.Errorf("was offered %d bytes as %.80q: %w", info.Size, header.Get("Content-Range"), errDamaged)
	}
	r.body, r.at, r.end, r.size, r.etag = body, from, end, size, info.ETag
	return nil
}

// parseContentRange reads "bytes FIRST-LAST/SIZE" (RFC 9110, section 14.4); end is the byte after the last.
func parseContentRange(field string) (from, end, size int64, ok bool) {
	rest, ok := strings.CutPrefix(field, "bytes ")
	span, whole, two := strings.Cut(rest, "/")
	first, last, three := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	end, err2 := strconv.ParseInt(last, 10, 64)
	size, err3 := strconv.ParseInt(whole, 10, 64)
	ok = ok && two && three && err1 == nil && err2 == nil && err3 == nil && 0 <= from && from <= end && end < size
	return from, end + 1, size, ok
}

// hangUp ends the answer that is being read.
func (r *remote) hangUp() {
	if r.body == nil {
		return
	}
	if r.end-r.at <= drained {
		_, _ = io.CopyN(io.Discard, r.body, r.end-r.at)
	}
	_ = r.body.Close()
	r.body = nil
}

// Name returns the object's key.
func (r *remote) Name() string { return r.key }

// ReadAt implements io.ReaderAt, for one goroutine.
func (r *remote) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && off < r.size {
		var some int
		if from := r.size - int64(len(r.tail)); off >= from {
			some = copy(p[n:], r.tail[off-from:])
		} else if some, err = r.read(p[n:min(int64(len(p)), int64(n)+from-off)], off); err != nil {
			return n, err
		}
		n += some
		off += int64(some)
	}
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// read reads some bytes at an offset, from the answer that is being read where it is there.
func (r *remote) read(p []byte, off int64) (n int, err error) {
	err = r.c.do(r.ctx, "read", r.key, func() error {
		if r.body == nil || r.at != off || r.at == r.end {
			if err := r.connect(off); err != nil {
				return err
			}
		}
		n, err = r.body.Read(p[:min(int64(len(p)), r.end-r.at)])
		r.at += int64(n)
		if n > 0 || err == nil {
			return nil
		}
		_ = r.body.Close()
		r.body = nil
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	return n, err
}

// Close implements io.Closer.
func (r *remote) Close() error {
	r.hangUp()
	return nil
}
