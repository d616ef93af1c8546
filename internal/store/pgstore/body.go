package pgstore

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
)

const (
	rowSize    = 1 << 20  // bytes of a body in one row
	smallSize  = 64 << 10 // bytes of a body that waits in memory for the commit, at most
	heldBodies = 1 << 20  // bytes of such bodies that one unit holds, about

	bodyFields = 4
	copyBodies = `COPY bodies (owner, body, n, data) FROM STDIN WITH (FORMAT binary)`

	// insertRow writes one row of a unit's body as long as the unit is in writing, and keeps it there meanwhile.
	insertRow = `WITH own AS (SELECT 1 FROM writing WHERE owner = $1 FOR KEY SHARE)
		INSERT INTO bodies (owner, body, n, data) SELECT $1, $2, $3, $4 FROM own`
)

var (
	smallBuffers = sync.Pool{New: func() any { return new([smallSize]byte) }}
	rowBuffers   = sync.Pool{New: func() any { return new([rowSize]byte) }}
)

// putBuffer gives a buffer back to the pool that it is from.
func putBuffer(b []byte) {
	switch cap(b) {
	case smallSize:
		smallBuffers.Put((*[smallSize]byte)(b[:smallSize]))
	case rowSize:
		rowBuffers.Put((*[rowSize]byte)(b[:rowSize]))
	}
}

// body writes one body. It is used by one goroutine.
type body struct {
	u    *unit
	n    int    // number of the body in its unit, from 1
	buf  []byte // not yet written; nil when the body has ended
	rows int    // written so far
	hash hash.Hash
	size int64
	err  error // the first one; every later call returns it
}

// errBodyEnded is returned by a body that was finished or aborted.
var errBodyEnded = errors.New("the body has ended")

// Body starts a body.
func (u *unit) Body(ctx context.Context, _ store.BodyMeta) (store.BodyWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, fmt.Errorf("start body in unit %s: %w", u.name, errEnded)
	}
	u.begun++
	return &body{u: u, n: u.begun, hash: sha256.New(), buf: smallBuffers.Get().(*[smallSize]byte)[:0]}, nil
}

// Write takes bytes. After an error every call returns that error.
func (b *body) Write(p []byte) (int, error) {
	if b.buf == nil && b.err == nil {
		return 0, errBodyEnded
	}
	if b.err != nil {
		return 0, b.err
	}
	b.hash.Write(p)
	b.size += int64(len(p))
	if !b.u.s.target.Bodies {
		return len(p), nil
	}
	for rest := p; len(rest) > 0; {
		if len(b.buf) == cap(b.buf) {
			if b.err = b.makeRoom(); b.err != nil {
				return 0, b.err
			}
		}
		n := copy(b.buf[len(b.buf):cap(b.buf)], rest)
		b.buf = b.buf[:len(b.buf)+n]
		rest = rest[n:]
	}
	return len(p), nil
}

// makeRoom goes over to a buffer of a whole row, or writes the row.
func (b *body) makeRoom() error {
	if cap(b.buf) == smallSize {
		large := append(rowBuffers.Get().(*[rowSize]byte)[:0], b.buf...)
		putBuffer(b.buf)
		b.buf = large
		return nil
	}
	return b.flush()
}

// flush writes what is in memory as a row. It has its own limit in time, and ends by itself.
func (b *body) flush() error {
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	if err := b.u.enlist(ctx); err != nil {
		return trouble("write body", err)
	}
	written, err := b.u.s.async(ctx, insertRow, b.u.key, b.n, b.rows, b.buf)
	if err != nil {
		return trouble("write body", err)
	}
	if written == 0 {
		return fmt.Errorf("write body of unit %s: %w", b.u.name, errSwept)
	}
	b.rows++
	b.buf = b.buf[:0]
	b.u.s.at("flushed")
	return nil
}

// async runs one statement in a transaction that is not flushed to the server's disk: whatever relies on it is
// committed later, and then flushed with it. It returns how many rows were affected.
func (s *Store) async(ctx context.Context, sql string, args ...any) (affected int64, err error) {
	b := &pgx.Batch{}
	b.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	b.Queue(`SET LOCAL synchronous_commit = off`)
	b.Queue(sql, args...)
	b.Queue(`COMMIT`)
	results := s.pool.SendBatch(ctx, b)
	for range 2 {
		if _, err := results.Exec(); err != nil {
			return 0, errors.Join(err, results.Close())
		}
	}
	tag, err := results.Exec()
	if err != nil {
		_ = results.Close() // says the same
		return 0, err
	}
	return tag.RowsAffected(), results.Close()
}

// Finish writes what is left and books the body in its unit.
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
	ref := store.BodyRef{Bytes: b.size}
	if b.err != nil {
		return ref, b.err
	}
	ref.SHA256 = hex.EncodeToString(b.hash.Sum(nil))
	if b.size == 0 || !b.u.s.target.Bodies {
		return ref, nil
	}
	name, held, err := b.u.hold(b, ref.SHA256)
	if err != nil || held {
		ref.Body = name
		return ref, err
	}
	if len(b.buf) > 0 {
		if err := b.flush(); err != nil {
			return ref, err
		}
	}
	ref.Body, err = b.u.book(b, ref.SHA256)
	return ref, err
}

// hold takes a small body into the unit's memory, or finds that the unit has its bytes already.
func (u *unit) hold(b *body, digest string) (name string, held bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return "", false, fmt.Errorf("finish body in unit %s: %w", u.name, errEnded)
	}
	if b.rows > 0 {
		return "", false, nil
	}
	if name, held = u.have[digest]; held {
		return name, true, nil
	}
	if len(b.buf) > smallSize || len(u.bodies)+len(b.buf) > heldBodies {
		return "", false, nil
	}
	w := newRow(u.bodies, bodyFields)
	w.key(u.key)
	w.int4(b.n)
	w.int4(0)
	w.bytes(b.buf)
	u.bodies = w.b
	return u.note(b.n, digest), true, nil
}

// book notes a body whose rows are written, and drops them if the unit has these bytes already.
func (u *unit) book(b *body, digest string) (string, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return "", fmt.Errorf("finish body in unit %s: %w", u.name, errEnded)
	}
	if name, there := u.have[digest]; there {
		b.unwrite()
		return name, nil
	}
	return u.note(b.n, digest), nil
}

// note keeps the unit's books. The caller holds u.mu.
func (u *unit) note(n int, digest string) string {
	if u.have == nil {
		u.have = make(map[string]string, 32) // as many as most batches have
	}
	u.have[digest] = bodyName(u.key, n)
	return u.have[digest]
}

// Abort drops the body.
func (b *body) Abort() {
	if b.buf == nil {
		return
	}
	b.unwrite()
	b.release()
}

// unwrite removes the rows of a body. What cannot be removed goes with the unit, or stays without a record.
func (b *body) unwrite() {
	if b.rows == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	_, _ = b.u.s.async(ctx, `DELETE FROM bodies WHERE owner = $1 AND body = $2`, b.u.key, b.n)
	b.rows = 0
}

// release ends the body and gives its buffer back.
func (b *body) release() {
	putBuffer(b.buf)
	b.buf, b.hash = nil, nil
}

// bodyName is how a record refers to a body: the key in hexadecimal digits, a dot, the number of the body.
func bodyName(k key, n int) string { return hex.EncodeToString(k[:]) + "." + strconv.Itoa(n) }

// parseBody reads what bodyName wrote.
func parseBody(name string) (k key, n int, ok bool) {
	if len(name) < 34 || name[32] != '.' {
		return k, 0, false
	}
	if _, err := hex.Decode(k[:], []byte(name[:32])); err != nil {
		return k, 0, false
	}
	n, err := strconv.Atoi(name[33:])
	return k, n, err == nil && n > 0 && n < 1<<31 && bodyName(k, n) == name
}
