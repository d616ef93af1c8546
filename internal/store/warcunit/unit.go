package warcunit

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// errEnded is returned by a unit that was committed or discarded.
var errEnded = errors.New("the unit has ended")

// Unit is a unit being written. Drivers embed it and give it a Commit, of End and Finish. It implements the rest of
// store.Unit and store.ExchangeKeeper. A commit that failed may be tried again, and nothing is fetched twice for a full disk, but
// for a flush that failed (disk.Syncer).
type Unit struct {
	s         *Workshop
	job, name string
	stem      string // begins each of its temporary names: WORKER~RUN~N
	kind      warc.Compression

	mu       sync.Mutex
	ended    bool
	bodies   int    // begun so far
	data     spool  // the members of answers
	meta     spool  // those of records
	lines    []byte // of records that are in no member yet
	records  int
	captures []warc.Capture
	own      map[warc.Digest]original // payloads in this unit
	commits  int                      // Finish was called so often
}

var _ store.ExchangeWriter = (*body)(nil)

// Size is how many bytes the records of answers have so far, compressed.
func (u *Unit) Size() int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.data.Size()
}

// KeepsExchanges reports that this unit does.
func (u *Unit) KeepsExchanges() bool { return true }

// Body starts a body.
func (u *Unit) Body(ctx context.Context, meta store.BodyMeta) (store.BodyWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	if u.ended {
		u.mu.Unlock()
		return nil, fmt.Errorf("start body in unit %s: %w", u.name, errEnded)
	}
	u.bodies++
	n := u.bodies
	u.mu.Unlock()
	b, err := newBody(u, n, meta)
	if err != nil {
		return nil, fmt.Errorf("start body in unit %s: %w", u.name, err)
	}
	return b, nil
}

// work are buffers in which members are made, outside the unit's lock.
type work struct{ out, head, block []byte }

var works = sync.Pool{New: func() any {
	return &work{out: make([]byte, 0, 4<<10), head: make([]byte, 0, 1<<10), block: make([]byte, 0, 1<<10)}
}}

// release gives the buffers back, but for one that a large answer has grown.
func (w *work) release() {
	if cap(w.out) <= 4*freeSize && cap(w.block) <= freeSize && cap(w.head) <= freeSize {
		works.Put(w)
	}
}

// write appends the records of an answer: the response and, where it is known, its request and a decoded copy. Small ones
// are compressed before the lock is taken, large ones go straight to the file.
func (u *Unit) write(b *body, h *warc.Header, keepPayload bool) (offset int64, err error) {
	w := works.Get().(*work)
	defer w.release()
	w.out = w.out[:0]
	small := b.block.file == nil || !keepPayload
	if small {
		block := b.block.mem
		if !keepPayload {
			w.block = warc.AppendResponseHead(w.block[:0], b.meta.Exchange)
			block = w.block
		}
		u.member(w, h, block)
	}
	length := int64(len(w.out))
	u.request(w, b, h.ID)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return 0, errEnded
	}
	offset = u.data.Size()
	if small {
		_, err = u.data.Write(w.out)
	} else {
		length, err = u.writeLarge(b.block.reader(0), h, b.block.Size(), w.out)
	}
	if err == nil && b.decoded != nil {
		err = u.writeDecoded(w, b, h)
	}
	if err == nil {
		u.book(b, h, offset, length)
	}
	return offset, err
}

// member adds a record whose block is in memory to what w holds.
func (u *Unit) member(w *work, h *warc.Header, block []byte) {
	w.head = h.Append(w.head[:0], int64(len(block)))
	w.out = u.kind.Append(w.out, w.head, block, end)
}

var end = []byte(warc.End)

// request adds the record of the request that was answered by the record of that ID.
func (u *Unit) request(w *work, b *body, answer warc.ID) {
	e := b.meta.Exchange
	if e == nil || e.Method == "" {
		return
	}
	w.block = append(warc.AppendRequestHead(w.block[:0], e), e.RequestBody...)
	u.member(w, &warc.Header{
		Type: warc.Request, ID: warc.NewID(), Date: b.at, TargetURI: b.meta.URL, IP: warc.IP(e), Protocol: warc.Protocol(e),
		ConcurrentTo: answer, BlockDigest: sha256.Sum256(w.block), ContentType: warc.HTTPRequest,
	}, w.block)
}

// writeLarge appends a record to the file of the unit, and what is to follow it. The caller holds u.mu.
func (u *Unit) writeLarge(block io.Reader, h *warc.Header, size int64, rest []byte) (length int64, err error) {
	if err := u.data.toFile(); err != nil {
		return 0, err
	}
	from := u.data.size
	head := h.Append(nil, size)
	err = u.data.stream(func(w io.Writer) error {
		total := int64(len(head)) + size + int64(len(warc.End))
		if err := u.kind.Copy(w, total, bytes.NewReader(head), block, strings.NewReader(warc.End)); err != nil {
			return err
		}
		end, err := u.data.file.Seek(0, io.SeekCurrent)
		length = end - from
		if err == nil {
			_, err = w.Write(rest)
		}
		return err
	})
	return length, err
}

// writeDecoded appends the decoded copy of an answer. The caller holds u.mu.
func (u *Unit) writeDecoded(w *work, b *body, answer *warc.Header) error {
	sum := warc.Digest(b.plain.Sum(nil))
	h := &warc.Header{
		Type: warc.Conversion, ID: warc.NewID(), Date: b.at, TargetURI: b.meta.URL, RefersTo: answer.ID.String(),
		BlockDigest: sum, PayloadDigest: sum, Truncated: answer.Truncated, ContentType: b.meta.ContentType,
	}
	if h.ContentType == "" {
		h.ContentType = "application/octet-stream"
	}
	if b.decoded.file == nil {
		w.out = w.out[:0]
		u.member(w, h, b.decoded.mem)
		_, err := u.data.Write(w.out)
		return err
	}
	_, err := u.writeLarge(b.decoded.reader(0), h, b.decoded.Size(), nil)
	return err
}

// book notes what was written. A piece of a body is for nobody who looks for a page. The caller holds u.mu.
func (u *Unit) book(b *body, h *warc.Header, offset, length int64) {
	if e := b.meta.Exchange; b.meta.Hop && e != nil && e.Status == 206 {
		return
	}
	c := warc.Capture{URL: h.TargetURI, At: h.Date, MIME: mediaType(b.meta.ContentType), Offset: offset, Length: length}
	if e := b.meta.Exchange; e != nil {
		c.Status = e.Status
	}
	if h.Type == warc.Revisit {
		c.MIME = warc.RevisitMIME
	}
	if h.PayloadDigest != (warc.Digest{}) {
		c.SHA256 = h.PayloadDigest.String()[len("sha256:"):]
	}
	u.captures = append(u.captures, c)
	if h.Type == warc.Revisit || h.Truncated != "" || b.block.Size() == b.head && b.adopted == 0 {
		return
	}
	if u.own == nil {
		u.own = make(map[warc.Digest]original, 32) // as many as most batches have
	}
	if _, ok := u.own[h.PayloadDigest]; !ok {
		u.own[h.PayloadDigest] = original{
			body: BodyName(u.name, offset), offset: offset, id: h.ID.String(), url: h.TargetURI, at: h.Date, encoding: b.encoding(),
		}
	}
}

// mediaType returns the media type of a Content-Type field (RFC 9110, section 8.3).
func mediaType(field string) string {
	kind, _, _ := strings.Cut(field, ";")
	return strings.TrimSpace(kind)
}

// recordField and accountField name the fields of our metadata records.
const (
	recordField  = "fetchfleet-record: "
	accountField = "fetchfleet-account: "
)

// linesSize is how many bytes of records share one metadata record. One record each would be the purer form, and was what
// a page cost most after its own compression: a third of the CPU and a quarter of the bytes.
const linesSize = 64 << 10

// Add takes a record. A record that no line of JSON can hold is refused with store.ErrRecord.
func (u *Unit) Add(r *store.Record) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return fmt.Errorf("add record to unit %s: %w", u.name, errEnded)
	}
	if u.lines == nil {
		u.lines = (*lineBuffers.Get().(*[]byte))[:0]
	}
	before := len(u.lines)
	line, err := store.AppendRecord(append(u.lines, recordField...), r)
	if err != nil {
		return fmt.Errorf("add record %.80q: %w (%w)", r.ID, store.ErrRecord, err)
	}
	u.lines = append(line, "\r\n"...)
	if len(u.lines) > linesSize {
		if err := u.flushLines(); err != nil {
			u.lines = u.lines[:before] // the caller may add it again
			return fmt.Errorf("add record %.80q to unit %s: %w", r.ID, u.name, err)
		}
	}
	u.records++
	return nil
}

var lineBuffers = sync.Pool{New: func() any { b := make([]byte, 0, linesSize); return &b }}

// flushLines makes a metadata record of the lines that are in none. The caller holds u.mu.
func (u *Unit) flushLines() error {
	if len(u.lines) == 0 {
		return nil
	}
	h := &warc.Header{Type: warc.Metadata, ID: warc.NewID(), Date: time.Now(), BlockDigest: sha256.Sum256(u.lines), ContentType: warc.Fields}
	w := works.Get().(*work)
	defer w.release()
	w.out = w.out[:0]
	u.member(w, h, u.lines)
	if _, err := u.meta.Write(w.out); err != nil {
		return err
	}
	u.lines = u.lines[:0]
	return nil
}

// Discard drops the unit and what it wrote aside.
func (u *Unit) Discard() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil
	}
	return u.drop()
}

// drop ends the unit and removes its temporary files. The caller holds u.mu.
func (u *Unit) drop() error {
	u.ended = true
	err := errors.Join(u.data.drop(), u.meta.drop())
	if cap(u.lines) > 0 && cap(u.lines) <= 2*linesSize {
		b := u.lines[:0]
		lineBuffers.Put(&b)
	}
	u.captures, u.own, u.lines = nil, nil, nil
	u.s.Ended(u.stem)
	return err
}
