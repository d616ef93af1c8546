package filestore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// bufferSize is what a body writer holds in memory: a body up to this size is one write, a longer one is streamed in
// pieces of it.
const bufferSize = 64 << 10

var buffers = sync.Pool{New: func() any { return new([bufferSize]byte) }}

func getBuffer() []byte { return buffers.Get().(*[bufferSize]byte)[:0] }

func putBuffer(b []byte) { buffers.Put((*[bufferSize]byte)(b[:bufferSize])) }

// body writes one body aside. It is used by one goroutine.
type body struct {
	u    *unit
	n    int // number of the body in its unit
	ext  string
	path string // the name that its URL suggests, "" = it is named by its digest
	buf  []byte // not yet written; nil when the body has ended
	file *os.File
	tmp  string    // path of file
	hash hash.Hash // of what was written to file
	size int64
	err  error // the first one; every later call returns it
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

// flush appends to the temporary file, which it makes at first.
func (b *body) flush(p []byte) error {
	if b.file == nil {
		b.err = b.create()
	}
	if b.err != nil || len(p) == 0 {
		return b.err
	}
	b.hash.Write(p)
	if _, err := b.file.Write(p); err != nil {
		b.err = disk.Trouble("write body", b.tmp, err)
	}
	return b.err
}

func (b *body) create() error {
	b.tmp = b.u.bodyTmp(b.n)
	b.hash = sha256.New()
	err := b.u.s.folder.In(b.u.jobTmp(), func() (err error) {
		b.file, err = os.OpenFile(b.tmp, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		return err
	})
	if err != nil {
		return bodyTrouble("create body", b.tmp, err)
	}
	return nil
}

// Finish writes what is left and books the body in its unit. An error that wraps store.ErrRecord is this body's alone.
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
	if b.file != nil {
		return b.finishLarge()
	}
	sum := sha256.Sum256(b.buf)
	ref := b.ref(sum[:])
	if b.size == 0 {
		return ref, nil
	}
	if b.path != "" {
		name, err := b.u.putSmall(b.path, ref.SHA256, b.n, b.buf)
		if name != "" || err != nil {
			ref.Body = name
			return ref, err
		}
	}
	if b.u.has(ref.Body) {
		return ref, nil
	}
	if err := b.u.putBody(ref.Body, b.n, b.buf); err != nil {
		return ref, err
	}
	return ref, b.u.put(ref.Body)
}

func (b *body) finishLarge() (store.BodyRef, error) {
	if err := b.flush(b.buf); err != nil {
		return store.BodyRef{}, err
	}
	err := b.file.Close()
	b.file = nil
	ref := b.ref(b.hash.Sum(nil))
	if err != nil {
		_ = disk.RemoveTmp(b.tmp)
		return ref, disk.Trouble("write body", b.tmp, err)
	}
	aside := asideBody{body: ref.Body, tmp: b.tmp, size: b.size}
	if b.path != "" {
		name, err := b.u.putLarge(b.path, ref.SHA256, aside)
		if name != "" || err != nil {
			ref.Body = name
			return ref, err
		}
	}
	return ref, b.u.keep(aside)
}

// ref says how a record refers to this body. A body without bytes has a digest but no file.
func (b *body) ref(sum []byte) store.BodyRef {
	ref := store.BodyRef{Bytes: b.size, SHA256: hex.EncodeToString(sum)}
	if b.size > 0 {
		ref.Body = bodyName(ref.SHA256, b.ext)
	}
	return ref
}

// Abort drops the body.
func (b *body) Abort() {
	if b.buf == nil {
		return
	}
	if b.file != nil {
		_ = b.file.Close()
		_ = disk.RemoveTmp(b.tmp) // if it cannot be removed, Sweep will try again
	}
	b.release()
}

// release ends the body and gives its buffer back.
func (b *body) release() {
	putBuffer(b.buf)
	b.buf, b.file, b.hash = nil, nil, nil
}

var _ io.Writer = (*body)(nil)

// bodyTrouble is disk.Trouble, but a name that the file system refuses is the matter of that one record.
func bodyTrouble(op, path string, err error) error {
	if disk.IsBadName(err) {
		return fmt.Errorf("%s %s: %w (%w)", op, path, store.ErrRecord, err)
	}
	return disk.Trouble(op, path, err)
}
