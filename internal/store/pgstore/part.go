package pgstore

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
)

const (
	takePart = `INSERT INTO parts AS p (job, request, key, holder, held_until)
		VALUES ($1, $2, $3, $4, now() + make_interval(secs => $5))
		ON CONFLICT (job, request) DO UPDATE SET holder = excluded.holder, held_until = excluded.held_until, touched_at = now()
		WHERE p.held_until < now() RETURNING p.key, p.note, p.size, p.rows, p.digest`
	// appendPart adds a row as long as the part is in the holder's hands.
	appendPart = `WITH own AS (UPDATE parts SET size = $3, rows = $4 + 1, digest = $5, note = $6::json, touched_at = now(),
			held_until = now() + make_interval(secs => $7) WHERE key = $1 AND holder = $2 RETURNING key)
		INSERT INTO bodies (owner, body, n, data) SELECT key, 0, $4, $8 FROM own`
)

// errLost is returned to a holder that was silent for so long that another took the part.
var errLost = fmt.Errorf("the part went to another worker meanwhile: %w", store.ErrBusy)

// part is a part in this Store's hands. Its bytes are rows of bodies, so that adopting them moves none.
type part struct {
	s            *Store
	job, request string
	key, holder  key
	note         store.PartNote
	noted        bool // whether note is in the table as it is here
	size         int64
	rows         int
	hash         hash.Hash // of all bytes, buf included
	buf          []byte    // not yet written
	err          error     // the first one
	ended        bool
}

// Part takes what is kept under a request's id into the caller's hands.
func (s *Store) Part(ctx context.Context, job, request string) (store.Part, error) {
	p, err := s.takePart(ctx, job, request)
	if err != nil {
		return nil, fmt.Errorf("take part %.130s of job %.130s: %w", request, job, err)
	}
	return p, nil
}

func (s *Store) takePart(ctx context.Context, job, request string) (*part, error) {
	if err := checkPart(job, request); err != nil {
		return nil, err
	}
	p := &part{s: s, job: job, request: request, holder: newKey(), hash: sha256.New(), noted: true}
	var note, digest []byte
	err := s.queryRow(ctx, takePart, []any{job, request, newKey(), p.holder, leaseTime.Seconds()}, &p.key, &note, &p.size, &p.rows, &digest)
	if errors.Is(err, store.ErrNotFound) {
		return nil, store.ErrBusy
	}
	if err != nil {
		return nil, err
	}
	if note != nil {
		err = json.Unmarshal(note, &p.note)
	}
	if err == nil {
		err = p.restore(ctx, digest)
	}
	if err != nil {
		return nil, errors.Join(err, p.letGo(ctx))
	}
	if err := s.holdings.add(p.holder); err != nil {
		return nil, errors.Join(err, p.letGo(ctx))
	}
	return p, nil
}

func checkPart(job, request string) error {
	if err := store.CheckName("job", job); err != nil {
		return err
	}
	return store.CheckName("request", request)
}

// restore continues the digest where the last holder left it. If its state was written by a program that had another
// form of it, the bytes are read again.
func (p *part) restore(ctx context.Context, digest []byte) error {
	if p.size == 0 || p.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(digest) == nil {
		return nil
	}
	p.hash.Reset()
	r, err := p.read(ctx)
	if err != nil {
		return err
	}
	_, err = io.Copy(p.hash, r)
	return err
}

// HasPart reports whether something is kept under a request's id.
func (s *Store) HasPart(ctx context.Context, job, request string) (there bool, err error) {
	if err = checkPart(job, request); err == nil {
		err = s.queryRow(ctx, `SELECT EXISTS (SELECT FROM parts WHERE job = $1 AND request = $2 AND size > 0)`, []any{job, request}, &there)
	}
	if err != nil {
		return false, fmt.Errorf("look for part %.130s of job %.130s: %w", request, job, err)
	}
	return there, nil
}

// Note is what was kept with the bytes.
func (p *part) Note() store.PartNote { return p.note }

// Size is how many bytes there are. Of those, the last MiB may not be written yet.
func (p *part) Size() int64 { return p.size + int64(len(p.buf)) }

// Write appends.
func (p *part) Write(b []byte) (int, error) {
	if p.ended && p.err == nil {
		return 0, errPartEnded
	}
	for rest := b; len(rest) > 0 && p.err == nil; {
		if p.buf == nil {
			p.buf = rowBuffers.Get().(*[rowSize]byte)[:0]
		}
		n := copy(p.buf[len(p.buf):cap(p.buf)], rest)
		p.hash.Write(rest[:n])
		p.buf = p.buf[:len(p.buf)+n]
		if rest = rest[n:]; len(p.buf) == cap(p.buf) {
			p.err = p.flush()
		}
	}
	if p.err != nil {
		return 0, p.err
	}
	return len(b), nil
}

// flush writes what is in memory as a row, with the note and the state of the digest.
func (p *part) flush() error {
	if len(p.buf) == 0 && p.noted {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), callLimit)
	defer cancel()
	note, err := json.Marshal(p.note)
	if err != nil {
		return fmt.Errorf("write note of part: %w", err)
	}
	var written int64
	if len(p.buf) == 0 {
		written, err = p.s.async(ctx, `UPDATE parts SET note = $3::json, touched_at = now() WHERE key = $1 AND holder = $2`,
			p.key, p.holder, string(note))
	} else {
		var digest []byte
		if digest, err = p.hash.(encoding.BinaryMarshaler).MarshalBinary(); err != nil {
			return fmt.Errorf("write part: %w", err)
		}
		written, err = p.s.async(ctx, appendPart, p.key, p.holder, p.Size(), p.rows, digest, string(note), leaseTime.Seconds(), p.buf)
	}
	switch {
	case err != nil:
		return trouble("write part", err)
	case written == 0:
		return errLost
	}
	if len(p.buf) > 0 {
		p.size, p.rows, p.buf = p.Size(), p.rows+1, p.buf[:0]
	}
	p.noted = true
	return nil
}

// Begin drops whatever is kept, and starts over with a note.
func (p *part) Begin(n store.PartNote) error {
	if p.err != nil || p.ended {
		return errors.Join(p.err, errPartEnded)
	}
	note, err := json.Marshal(n)
	if err != nil {
		return fmt.Errorf("begin part: %w", err)
	}
	fresh := newKey()
	p.err = p.change(func(ctx context.Context, tx pgx.Tx) error {
		err := oneRow(tx.Exec(ctx, `UPDATE parts SET key = $3, note = $4::json, size = 0, rows = 0, digest = NULL, touched_at = now()
			WHERE key = $1 AND holder = $2`, p.key, p.holder, fresh, string(note)))
		if err == nil {
			_, err = tx.Exec(ctx, `DELETE FROM bodies WHERE owner = $1`, p.key)
		}
		return err
	})
	if p.err != nil {
		return p.err
	}
	p.key, p.note, p.noted, p.size, p.rows, p.buf = fresh, n, true, 0, 0, p.buf[:0]
	p.hash.Reset()
	return nil
}

// Stretch notes that the bytes from here on come from another exchange. It is written with the next bytes.
func (p *part) Stretch(s store.Stretch) error {
	if p.err != nil || p.ended {
		return errors.Join(p.err, errPartEnded)
	}
	p.note.Stretches = append(p.note.Stretches, s)
	p.noted = false
	return nil
}

// Open reads the part from its beginning.
func (p *part) Open() (io.ReadCloser, error) {
	if p.err != nil || p.ended {
		return nil, errors.Join(p.err, errPartEnded)
	}
	if p.err = p.flush(); p.err != nil {
		return nil, p.err
	}
	return p.read(context.Background())
}

// read reads what is written. An empty part has no rows.
func (p *part) read(ctx context.Context) (io.ReadCloser, error) {
	r, err := p.s.openRows(func(row int, buf []byte) ([]byte, bool, error) {
		return p.s.readRow(ctx, selectRow, []any{p.key, 0, row}, buf)
	})
	if errors.Is(err, store.ErrNotFound) && p.rows == 0 {
		return r, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read part: %w", err)
	}
	return r, nil
}

// Adopt makes the part a body of a unit: its rows change their owner.
func (p *part) Adopt(ctx context.Context, to store.Unit, _ store.BodyMeta) (store.BodyRef, error) {
	ref, err := p.adopt(ctx, to)
	if err != nil {
		return store.BodyRef{}, fmt.Errorf("adopt part %s: %w", p.request, err)
	}
	p.end()
	return ref, nil
}

func (p *part) adopt(ctx context.Context, to store.Unit) (ref store.BodyRef, err error) {
	u, ours := to.(*unit)
	switch {
	case p.err != nil || p.ended:
		return ref, errors.Join(p.err, errPartEnded)
	case !ours || u.s != p.s || u.job != p.job:
		return ref, errors.New("the unit is of another store or job")
	case p.note.Coded():
		return ref, fmt.Errorf("its bytes are coded as %s", p.note.Coding)
	case p.Size() != p.note.Length:
		return ref, fmt.Errorf("it has %d of %d bytes", p.Size(), p.note.Length)
	}
	if p.err = p.flush(); p.err != nil {
		return ref, p.err
	}
	ref = store.BodyRef{Bytes: p.size, SHA256: hex.EncodeToString(p.hash.Sum(nil))}
	if p.size == 0 || !p.s.target.Bodies {
		return ref, p.remove()
	}
	n, name, err := u.number(ref.SHA256)
	if err != nil {
		return ref, err
	}
	if name != "" {
		ref.Body = name
		return ref, p.remove()
	}
	call, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	if err := u.enlist(call); err != nil {
		return ref, trouble("write to the unit", err)
	}
	if err := p.hand(u, n); err != nil {
		return ref, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return ref, errEnded
	}
	ref.Body = u.note(n, ref.SHA256)
	return ref, nil
}

// number gives a body its number, or the name of one with the same bytes.
func (u *unit) number(digest string) (n int, name string, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return 0, "", errEnded
	}
	u.begun++
	return u.begun, u.have[digest], nil
}

// hand changes the owner of the part's rows. Their bytes stay where they are in the server's files.
func (p *part) hand(u *unit, n int) error {
	return p.change(func(ctx context.Context, tx pgx.Tx) error {
		tag, err := tx.Exec(ctx, `SELECT 1 FROM writing WHERE owner = $1 FOR KEY SHARE`, u.key)
		if err == nil && tag.RowsAffected() == 0 {
			err = errSwept
		}
		if err == nil {
			err = oneRow(tx.Exec(ctx, `DELETE FROM parts WHERE key = $1 AND holder = $2`, p.key, p.holder))
		}
		if err == nil {
			_, err = tx.Exec(ctx, `UPDATE bodies SET owner = $2, body = $3 WHERE owner = $1`, p.key, u.key, n)
		}
		return err
	})
}
