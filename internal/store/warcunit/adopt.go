package warcunit

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// Whole is a body that was kept as sent in a file until all of it had come.
type Whole struct {
	Path      string
	File      *os.File // where the file has no name any more; then Path is for errors alone
	Size      int64    // bytes
	SHA256    string   // lower-case hex digest
	Stretches []store.Stretch
}

// Adopt copies a whole body, which is not coded, into the unit.
func (u *Unit) Adopt(ctx context.Context, meta store.BodyMeta, w Whole) (ref store.BodyRef, err error) {
	f := w.File
	if f == nil {
		if f, err = os.Open(w.Path); err != nil {
			return ref, disk.Trouble("open part", w.Path, err)
		}
		defer func() { _ = f.Close() }()
	}
	a := &adoption{ctx: ctx, u: u, meta: meta, whole: w, file: f, sum: parseDigest(w.SHA256)}
	ref = store.BodyRef{Bytes: w.Size, SHA256: w.SHA256}
	list := w.Stretches
	if len(list) > 0 && list[0].Exchange != nil {
		a.meta.Exchange = list[0].Exchange
	}
	if len(list) > 1 {
		ref.Body, err = a.pieces(list)
	} else {
		ref.Body, err = a.single()
	}
	if w.Size == 0 {
		ref.Body = ""
	}
	return ref, err
}

// adoption makes a whole part records of a unit. A body that came in one exchange is its response, as if it had come
// through Body. One that came in several is kept twice: piece by piece, each the response of its exchange, and as a whole,
// a resource record, because no answer had it.
type adoption struct {
	ctx   context.Context
	u     *Unit
	meta  store.BodyMeta
	whole Whole
	file  *os.File
	sum   warc.Digest
}

// single writes a body that came in one exchange.
func (a *adoption) single() (name string, err error) {
	b := a.body(a.meta, a.whole.Size)
	if a.meta.Exchange == nil && a.whole.Size == 0 {
		return "", nil
	}
	if earlier := a.u.earlier(a.sum, ""); a.whole.Size > 0 && earlier.body != "" {
		if a.meta.Exchange == nil {
			return earlier.body, nil
		}
		h := b.header(warc.Digest{}, a.sum, "")
		b.revisit(h, earlier)
		_, err := a.u.write(b, h, false)
		return earlier.body, err
	}
	p, err := a.piece(b, 0, "")
	if err != nil {
		return "", err
	}
	offset, err := a.write(p)
	return BodyName(a.u.name, offset), err
}

// pieces writes a body that came in several exchanges.
func (a *adoption) pieces(list []store.Stretch) (name string, err error) {
	var all []*piece
	var extra []warc.Field
	for i, s := range list {
		end, cut := a.whole.Size, ""
		if i+1 < len(list) {
			end, cut = list[i+1].From, "disconnect"
		}
		if s.Exchange == nil {
			continue // the whole is kept all the same
		}
		meta := a.meta
		meta.Exchange = s.Exchange
		p, err := a.piece(a.body(meta, end-s.From), s.From, cut)
		if err != nil {
			return "", err
		}
		p.silent = true
		all = append(all, p)
		extra = append(extra, warc.Field{Name: "WARC-Concurrent-To", Value: p.h.ID.String()})
	}
	meta := a.meta
	meta.Exchange = nil
	b := a.body(meta, a.whole.Size)
	if e := a.meta.Exchange; e != nil && !e.At.IsZero() {
		b.at = e.At
	}
	whole := &piece{body: b, size: a.whole.Size, h: b.header(a.sum, a.sum, "")}
	whole.h.Extra = append(extra, whole.h.Extra...)
	offset, err := a.write(append(all, whole)...)
	return BodyName(a.u.name, offset), err
}

// body is what writes records of so many bytes that lie in the part.
func (a *adoption) body(meta store.BodyMeta, size int64) *body {
	b := &body{u: a.u, meta: meta, at: time.Now(), adopted: size}
	if e := meta.Exchange; e != nil && !e.At.IsZero() {
		b.at = e.At
	}
	return b
}

// piece is a record whose payload is bytes of the part.
type piece struct {
	*body
	h          *warc.Header
	head       []byte // of the HTTP answer
	from, size int64
	silent     bool // no index has it
}

// piece digests the bytes from one on, as many as b is of, as the payload of b's answer.
func (a *adoption) piece(b *body, from int64, cut string) (*piece, error) {
	p := &piece{body: b, from: from, size: b.adopted}
	block, payload := sha256.New(), sha256.New()
	if b.meta.Exchange != nil {
		p.head = b.headBytes()
		block.Write(p.head)
	}
	sinks := io.Writer(block)
	if p.size < a.whole.Size {
		sinks = io.MultiWriter(block, payload)
	}
	if n, err := io.Copy(sinks, a.reader(p)); err != nil || n != p.size {
		return nil, a.unread(p, n, err)
	}
	sum := a.sum
	if p.size < a.whole.Size {
		sum = warc.Digest(payload.Sum(nil))
	}
	p.h = b.header(warc.Digest(block.Sum(nil)), sum, cut)
	return p, nil
}

func (a *adoption) unread(p *piece, n int64, err error) error {
	if err == nil {
		err = fmt.Errorf("%d of %d bytes: %w", n, p.size, io.ErrUnexpectedEOF)
	}
	return disk.Trouble("read part", a.whole.Path, err)
}

// reader reads the bytes of a piece until the caller gives up.
func (a *adoption) reader(p *piece) io.Reader {
	return &patient{ctx: a.ctx, Reader: io.NewSectionReader(a.file, p.from, p.size)}
}

// patient reads for as long as somebody waits.
type patient struct {
	io.Reader
	ctx context.Context
}

// Read returns the error of the context once it has ended.
func (r *patient) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// write appends all records or none, and returns where the last of them is, the one that a body name refers to. Each
// answer is followed by its request.
func (a *adoption) write(list ...*piece) (offset int64, err error) {
	u := a.u
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return 0, errEnded
	}
	if err := u.data.toFile(); err != nil {
		return 0, err
	}
	before := u.data.size
	lengths, offsets := make([]int64, len(list)), make([]int64, len(list))
	for i, p := range list {
		offsets[i] = u.data.size
		if lengths[i], err = a.append(p); err != nil {
			u.data.size = before
			return 0, errors.Join(err, u.data.file.Truncate(before))
		}
	}
	for i, p := range list {
		if !p.silent {
			u.book(p.body, p.h, offsets[i], lengths[i])
		}
	}
	return offsets[len(list)-1], nil
}

// append appends one record and its request. The caller holds u.mu.
func (a *adoption) append(p *piece) (length int64, err error) {
	w := works.Get().(*work)
	defer w.release()
	w.out = w.out[:0]
	a.u.request(w, p.body, p.h.ID)
	block := io.MultiReader(strings.NewReader(string(p.head)), a.reader(p))
	return a.u.writeLarge(block, p.h, int64(len(p.head))+p.size, w.out)
}
