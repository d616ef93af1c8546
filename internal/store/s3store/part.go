package s3store

import (
	"context"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"slices"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
)

// part is a store.Part. Its bytes are pieces of a multipart upload, and behind them what is in the spool. A holder that
// dies loses what is in its spool: less than a piece. One that releases the part keeps that too, as an object.
type part struct {
	s            *base
	ctx          context.Context // of Part: the methods of an io.Writer have none
	job, request string
	key          string // of state
	up           *upload
	spool        *spool
	hash         hash.Hash
	err          error // the first one of Write; it is final
	stop         func()
	ended        bool

	mu    sync.Mutex // guards what follows: the holding is renewed beside everything else
	state heldPart
	etag  string // of state as it was last written
	lost  error  // somebody else took the part
}

// Note returns what was kept with the bytes.
func (p *part) Note() store.PartNote { return p.state.Note }

// Size returns how many bytes are kept.
func (p *part) Size() int64 { return p.up.size + p.spool.size }

// Write appends, and sends whenever a piece is full and more is to come.
func (p *part) Write(data []byte) (n int, err error) {
	for n < len(data) && p.err == nil {
		room := p.s.piece(len(p.up.pieces)+1) - p.spool.size
		if room <= 0 {
			p.err = p.send(p.ctx)
			continue
		}
		some := data[n:min(int64(len(data)), int64(n)+room)]
		p.hash.Write(some)
		if _, p.err = p.spool.Write(some); p.err == nil {
			n += len(some)
		}
	}
	if p.err != nil {
		return n, fmt.Errorf("write part of request %s: %w", p.request, p.err)
	}
	return n, nil
}

// send uploads what the spool holds as the next piece and notes that.
func (p *part) send(ctx context.Context) error {
	if p.state.Whole {
		return errors.New("the part is whole already")
	}
	if err := p.up.add(ctx, p.spool); err != nil {
		return err
	}
	sum, err := p.hash.(encoding.BinaryMarshaler).MarshalBinary()
	if err != nil {
		return err
	}
	tail := p.state.Tail
	err = p.change(ctx, func(h *heldPart) {
		h.Upload, h.Key, h.Pieces, h.Hash = p.up.id, p.up.key, slices.Clone(p.up.pieces), sum
		h.Tail, h.TailN = "", 0
	})
	if err == nil && tail != "" {
		_ = p.s.c.remove(ctx, tail) // else Sweep will
	}
	return err
}

// Begin drops whatever is kept, and starts over with a note.
func (p *part) Begin(n store.PartNote) error {
	if err := p.forget(p.ctx, n); err != nil {
		return fmt.Errorf("begin part of request %s: %w", p.request, err)
	}
	return nil
}

// forget makes the part empty. The state goes first: what it no longer names, Sweep removes if this does not.
func (p *part) forget(ctx context.Context, n store.PartNote) error {
	old := p.state
	err := p.change(ctx, func(h *heldPart) { *h = heldPart{V: partVersion, Holder: h.Holder, Note: n} })
	if err != nil {
		return err
	}
	p.s.removePart(ctx, old)
	p.s.sends(old.Upload, false)
	p.up = p.newUpload()
	p.spool.reset()
	p.hash.Reset()
	p.err = nil
	return nil
}

// removePart removes what a state named.
func (s *base) removePart(ctx context.Context, h heldPart) {
	if h.Upload != "" && !h.Whole {
		_ = s.c.abort(ctx, h.Key, h.Upload)
	}
	if h.Whole {
		_ = s.c.remove(ctx, h.Key)
	}
	if h.Tail != "" {
		_ = s.c.remove(ctx, h.Tail)
	}
}

// Stretch notes that the bytes from here on come from another exchange.
func (p *part) Stretch(x store.Stretch) error {
	err := p.change(p.ctx, func(h *heldPart) { h.Note.Stretches = append(slices.Clip(h.Note.Stretches), x) })
	if err != nil {
		return fmt.Errorf("note stretch of request %s: %w", p.request, err)
	}
	return nil
}

// finish makes the part an object under the key of its upload. It fails for a holder that was taken for dead.
func (p *part) finish(ctx context.Context) error {
	if p.Size() == 0 {
		return nil
	}
	if p.state.Whole {
		return p.change(ctx, func(*heldPart) {})
	}
	if p.spool.size > 0 {
		if err := p.send(ctx); err != nil {
			return err
		}
	}
	if err := p.up.complete(ctx, condition{}); err != nil {
		return err
	}
	return p.change(ctx, func(h *heldPart) { h.Whole = true })
}

// Open reads the part from its beginning. Nothing can be written to it any more, until Begin.
func (p *part) Open() (io.ReadCloser, error) {
	if p.Size() == 0 {
		return io.NopCloser(eof{}), nil
	}
	if err := p.finish(p.ctx); err != nil {
		return nil, fmt.Errorf("open part of request %s: %w", p.request, err)
	}
	r, err := p.s.c.open(p.ctx, p.up.key)
	if err != nil {
		return nil, fmt.Errorf("open part of request %s: %w", p.request, err)
	}
	return r, nil
}

type eof struct{}

// Read implements io.Reader.
func (eof) Read([]byte) (int, error) { return 0, io.EOF }

// Adopt makes the part a body of a unit of the same store.
func (p *part) Adopt(ctx context.Context, u store.Unit, meta store.BodyMeta) (store.BodyRef, error) {
	ref, err := p.adopt(ctx, u, meta)
	if err != nil {
		return ref, fmt.Errorf("adopt part of request %s: %w", p.request, err)
	}
	return ref, nil
}

func (p *part) adopt(ctx context.Context, to store.Unit, meta store.BodyMeta) (store.BodyRef, error) {
	if p.state.Note.Coded() {
		return store.BodyRef{}, fmt.Errorf("it is coded (%s)", p.state.Note.Coding)
	}
	if p.err != nil {
		return store.BodyRef{}, p.err
	}
	switch u := to.(type) {
	case *unit:
		if &u.s.base == p.s && u.job == p.job {
			return p.give(ctx, u, meta)
		}
	case *archiveUnit:
		if &u.s.base == p.s && u.job == p.job {
			return p.copyTo(ctx, u, meta)
		}
	}
	return store.BodyRef{}, errors.New("the unit is of another store or job")
}

// give makes the part's object the unit's. The server copies it when the unit is committed.
func (p *part) give(ctx context.Context, u *unit, meta store.BodyMeta) (store.BodyRef, error) {
	if err := p.finish(ctx); err != nil {
		return store.BodyRef{}, err
	}
	ref := store.BodyRef{Bytes: p.Size(), SHA256: hex.EncodeToString(p.hash.Sum(nil))}
	if ref.Bytes > 0 {
		ref.Body = filestore.BodyName(ref.SHA256, meta)
		p.s.sends(p.up.key, true)
		if err := u.take(ctx, &asideBody{body: ref.Body, kind: meta.ContentType, size: ref.Bytes, tmp: p.up.key}); err != nil {
			return store.BodyRef{}, err
		}
	}
	if p.end() {
		_ = p.s.c.remove(ctx, p.key) // else the next holder finds the bytes gone
	}
	return ref, nil
}

// Drop removes the part and ends the holding.
func (p *part) Drop() error {
	if p.ended {
		return nil
	}
	ctx := context.WithoutCancel(p.ctx)
	err := p.forget(ctx, store.PartNote{})
	if p.end() && err == nil {
		err = p.s.c.remove(ctx, p.key)
	}
	if err != nil {
		return fmt.Errorf("drop part of request %s: %w", p.request, err)
	}
	return nil
}
