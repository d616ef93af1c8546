package s3store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
)

// bufferSize is what a body writer holds in memory: a body up to this size is one PUT from there, a longer one goes
// through a spool.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func getBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:0] }

func putBuffer(b []byte) { buffers.Put((*[bufferSize]byte)(b[:bufferSize])) }

// body writes one body aside. It is used by one goroutine. A body of up to one buffer is put in place when it is
// finished; up to one piece it waits in its spool for the commit, which sends it in one PUT under its digest's name;
// beyond that it is sent piece by piece under a temporary name while it comes, and the commit has the server copy it
// to its digest's, which is known only at its end.
type body struct {
	ctx  context.Context // of Body: the methods of an io.Writer have none
	u    *unit
	n    int // number of the body in its unit
	meta store.BodyMeta

	buf   []byte // not yet spooled; nil when the body has ended
	spool *spool
	up    *upload   // of a body of more than one piece
	hash  hash.Hash // of what was spooled
	size  int64
	err   error // the first one; every later call returns it
}

// errBodyEnded is returned by a body that was finished or aborted.
var errBodyEnded = errors.New("the body has ended")

// Write takes bytes. After an error every call returns that error.
func (b *body) Write(p []byte) (int, error) {
	if b.buf == nil && b.err == nil {
		return 0, errBodyEnded
	}
	if b.err != nil {
		return 0, b.err
	}
	if len(b.buf)+len(p) > bufferSize {
		if err := b.flush(b.buf); err != nil {
			return 0, err
		}
		b.buf = b.buf[:0]
	}
	if len(p) > bufferSize {
		if err := b.flush(p); err != nil {
			return 0, err
		}
	} else {
		b.buf = append(b.buf, p...)
	}
	b.size += int64(len(p))
	return len(p), nil
}

// flush appends to the spool, and sends it whenever a piece is full and more is to come.
func (b *body) flush(p []byte) error {
	if b.spool == nil {
		b.hash = sha256.New()
		b.spool, b.err = newSpool(b.u.s.o.SpoolDir)
	}
	for len(p) > 0 && b.err == nil {
		room := b.u.s.piece(b.pieces()+1) - b.spool.size
		if room <= 0 {
			b.err = b.send()
			continue
		}
		some := p[:min(int64(len(p)), room)]
		b.hash.Write(some)
		_, b.err = b.spool.Write(some)
		p = p[len(some):]
	}
	return b.err
}

func (b *body) pieces() int {
	if b.up == nil {
		return 0
	}
	return len(b.up.pieces)
}

// send uploads what the spool holds as the next piece.
func (b *body) send() error {
	if b.up == nil {
		b.up = &upload{s: &b.u.s.base, key: b.u.s.keys.tmp(b.u.job, b.u.bodyTmp(b.n)), kind: b.meta.ContentType}
	}
	return b.up.add(b.ctx, b.spool)
}

// Finish sends what is left and books the body in its unit.
func (b *body) Finish() (store.BodyRef, error) {
	if b.buf == nil && b.err == nil {
		return store.BodyRef{}, errBodyEnded
	}
	ref, err := b.finish()
	if err != nil {
		b.Abort()
		b.err = err
		return store.BodyRef{}, err
	}
	b.release()
	return ref, nil
}

func (b *body) finish() (store.BodyRef, error) {
	if b.err != nil {
		return store.BodyRef{}, b.err
	}
	if b.spool != nil {
		return b.finishLarge()
	}
	sum := sha256.Sum256(b.buf)
	ref := b.ref(sum[:])
	if b.size == 0 || b.u.has(ref.Body) {
		return ref, nil
	}
	small := inMemory(b.buf)
	if err := b.u.putBody(b.ctx, ref.Body, small, b.meta.ContentType); err != nil {
		return ref, err
	}
	return ref, b.u.put(ref.Body)
}

func (b *body) finishLarge() (store.BodyRef, error) {
	if err := b.flush(b.buf); err != nil {
		return store.BodyRef{}, err
	}
	b.buf = b.buf[:0]
	ref := b.ref(b.hash.Sum(nil))
	aside := &asideBody{body: ref.Body, kind: b.meta.ContentType, size: b.size}
	if b.up == nil {
		aside.spool, b.spool = b.spool, nil
		return ref, b.u.take(b.ctx, aside)
	}
	if err := b.send(); err != nil {
		return ref, err
	}
	if err := b.up.complete(b.ctx, condition{}); err != nil {
		return ref, err
	}
	aside.tmp, b.up = b.up.key, nil
	return ref, b.u.take(b.ctx, aside)
}

// ref says how a record refers to this body. A body without bytes has a digest but no object.
func (b *body) ref(sum []byte) store.BodyRef {
	ref := store.BodyRef{Bytes: b.size, SHA256: hex.EncodeToString(sum)}
	if b.size > 0 {
		ref.Body = filestore.BodyName(ref.SHA256, b.meta)
	}
	return ref
}

// Abort drops the body.
func (b *body) Abort() {
	if b.buf == nil {
		return
	}
	_ = b.up.abort() // if it cannot be aborted, Sweep will try again
	b.release()
}

// release ends the body and gives its buffer back.
func (b *body) release() {
	b.spool.close()
	putBuffer(b.buf)
	b.buf, b.spool, b.up, b.hash = nil, nil, nil, nil
}
