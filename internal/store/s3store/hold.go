package s3store

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// partLease is how long a part is its holder's after the holder last said so. It says so three times as often.
const partLease = time.Minute

// partVersion is the version of heldPart that this code writes.
const partVersion = 1

// heldPart is what is known of a body whose transfer was cut: parts/REQUEST.json. It is changed only on condition that
// it is as it was last seen (If-Match), so of two who want it one gets it. Whether its holder lives is judged by the
// server's clock alone: when it was last changed, against the Date of the answer.
type heldPart struct {
	V      int            `json:"v"`
	Holder string         `json:"holder,omitempty"` // "" when nobody has it
	Note   store.PartNote `json:"note"`
	Upload string         `json:"upload,omitempty"` // id of the multipart upload
	Key    string         `json:"key,omitempty"`    // of the upload and the object that it becomes: no other upload has it
	Pieces []piece        `json:"pieces,omitempty"`
	Hash   []byte         `json:"hash,omitempty"`  // state of SHA-256 after the pieces
	Whole  bool           `json:"whole,omitempty"` // the upload was completed
	Tail   string         `json:"tail,omitempty"`  // key of the bytes after the pieces, which are too few for one
	TailN  int64          `json:"tail_bytes,omitempty"`
}

func (h *heldPart) size() int64 {
	n := h.TailN
	for _, p := range h.Pieces {
		n += p.Size
	}
	return n
}

// errLost says that a holder was taken for dead. The part is another's, so to the caller it is busy.
var errLost = fmt.Errorf("the part was taken over by another holder: %w", store.ErrBusy)

// Part takes what is kept under a request's id.
func (s *base) Part(ctx context.Context, job, request string) (store.Part, error) {
	p, err := s.hold(ctx, job, request)
	if err != nil {
		return nil, fmt.Errorf("take part of request %s: %w", request, err)
	}
	return p, nil
}

func (s *base) hold(ctx context.Context, job, request string) (*part, error) {
	if err := checkNames(job, request); err != nil {
		return nil, err
	}
	if s.ctx.Err() != nil {
		return nil, errClosed
	}
	p := &part{s: s, ctx: ctx, job: job, request: request, key: s.keys.partState(job, request), hash: sha256.New()}
	p.up = p.newUpload()
	err := p.claim(ctx)
	if err == nil {
		err = p.load(ctx)
	}
	if err != nil {
		p.spool.close()
		return nil, err
	}
	p.renewWhileHeld()
	return p, nil
}

// claim writes the caller's name into the state, or returns store.ErrBusy.
func (p *part) claim(ctx context.Context) error {
	state, o, err := p.s.readPart(ctx, p.key)
	switch {
	case isMissing(err):
		state = heldPart{V: partVersion}
	case err != nil:
		return err
	case state.Holder != "" && o.now.Sub(o.modified) < p.s.lease:
		return store.ErrBusy
	case state.Holder != "": // it may be sending a piece yet, whose number must not be ours
		p.up.skip = 1
	}
	state.Holder = p.s.run + "~" + randomHex(8)
	p.state, p.etag = state, o.etag
	err = p.save(ctx)
	if errors.Is(err, errLost) {
		return store.ErrBusy
	}
	return err
}

func (s *base) readPart(ctx context.Context, key string) (h heldPart, o object, err error) {
	if o, err = s.c.get(ctx, key, maxAccount); err != nil {
		return h, o, err
	}
	if err := json.Unmarshal(o.data, &h); err != nil {
		return h, o, fmt.Errorf("%s %w: %w", key, errDamaged, err)
	}
	if h.V > partVersion {
		return h, o, fmt.Errorf("%s %w: it has version %d, this program knows %d: use a newer one", key, errDamaged, h.V, partVersion)
	}
	if h.Upload != "" && h.Key == "" { // by a program that had one key for all uploads of a request
		h.Key = strings.TrimSuffix(key, partState) + ".bytes"
	}
	return h, o, nil
}

// newUpload is for the bytes of one transfer. Those of an earlier one may wait under their own key for a unit's commit.
func (p *part) newUpload() *upload {
	return &upload{s: p.s, key: p.s.keys.partBytes(p.job, p.request, randomHex(8))}
}

// load takes up what is kept. An upload that is gone, as servers abort those that are old, leaves an empty part.
func (p *part) load(ctx context.Context) (err error) {
	if p.spool, err = newSpool(p.s.o.SpoolDir); err != nil {
		return err
	}
	there := true
	if p.state.Upload != "" {
		p.up.key = p.state.Key
	}
	if p.state.Whole {
		_, err = p.s.c.head(ctx, p.up.key)
		if there = !isMissing(err); there && err != nil {
			return err
		}
	}
	if p.state.Upload != "" && !p.state.Whole {
		if there, err = p.s.c.hasUpload(ctx, p.up.key, p.state.Upload); err != nil {
			return err
		}
	}
	if there && len(p.state.Hash) > 0 {
		there = p.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(p.state.Hash) == nil
	}
	if there && p.state.Tail != "" {
		there, err = p.loadTail(ctx)
	}
	if err != nil {
		return err
	}
	if !there {
		return p.forget(ctx, store.PartNote{})
	}
	p.up.id, p.up.pieces = p.state.Upload, slices.Clone(p.state.Pieces)
	p.up.size = p.state.size() - p.state.TailN
	if p.up.id != "" && !p.state.Whole {
		p.s.sends(p.up.id, true)
	}
	size := p.Size()
	p.state.Note.Stretches = slices.DeleteFunc(p.state.Note.Stretches, func(x store.Stretch) bool {
		return x.From >= size // its bytes died with its holder
	})
	return nil
}

func (p *part) loadTail(ctx context.Context) (there bool, err error) {
	o, err := p.s.c.get(ctx, p.state.Tail, largePiece)
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	p.hash.Write(o.data)
	_, err = p.spool.Write(o.data)
	return err == nil && o.size == p.state.TailN, err
}

// save writes the state, if nobody else did since it was last seen.
func (p *part) save(ctx context.Context) error {
	data, err := json.Marshal(&p.state)
	if err != nil {
		return fmt.Errorf("encode part: %w", err)
	}
	etag, err := p.s.c.put(ctx, p.key, inMemory(data), "application/json", condition{absent: p.etag == "", etag: p.etag})
	if errors.Is(err, errTaken) { // perhaps by this call itself, when an answer of the server was lost
		o, gerr := p.s.c.get(ctx, p.key, maxAccount)
		switch {
		case gerr == nil && string(o.data) == string(data):
			etag, err = o.etag, nil
		case gerr == nil || isMissing(gerr):
			err = errLost
		default:
			err = gerr
		}
	}
	if err == nil {
		p.etag = etag
	}
	return err
}

// change changes the state and saves it.
func (p *part) change(ctx context.Context, change func(*heldPart)) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.lost != nil {
		return p.lost
	}
	change(&p.state)
	err := p.save(ctx)
	if errors.Is(err, errLost) {
		p.lost = err
	}
	return err
}

// renewWhileHeld starts the goroutine that renews the holding. It ends with stop, or with the Store.
func (p *part) renewWhileHeld() {
	ctx, cancel := context.WithCancel(p.s.ctx)
	done := make(chan struct{})
	p.stop = func() { cancel(); <-done }
	go func() {
		defer close(done)
		tick := time.NewTicker(p.s.lease / 3)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				_ = p.change(ctx, func(*heldPart) {}) // what failed is tried again, or noted as lost
			case <-ctx.Done():
				return
			}
		}
	}()
}

// Release ends the holding and keeps the part, with what is too little for a piece of its own.
func (p *part) Release() error {
	if p.ended {
		return nil
	}
	ctx := context.WithoutCancel(p.ctx)
	err := p.release(ctx)
	p.s.sends(p.up.id, false)
	p.end()
	if err != nil && !errors.Is(err, errLost) {
		return fmt.Errorf("release part of request %s: %w", p.request, err)
	}
	return nil
}

func (p *part) release(ctx context.Context) error {
	if p.Size() == 0 && len(p.state.Note.Stretches) == 0 { // nothing worth keeping
		if err := p.change(ctx, func(h *heldPart) { *h = heldPart{V: partVersion} }); err != nil {
			return err
		}
		return p.s.c.remove(ctx, p.key)
	}
	tail, old := p.state.Tail, p.state.Tail
	n := p.state.TailN
	if p.spool.size != n {
		tail, n = p.s.keys.partTail(p.job, p.request, randomHex(8)), p.spool.size
		if _, err := p.s.c.put(ctx, tail, p.spool.payload(), "", condition{}); err != nil {
			tail, n = "", 0 // then only the pieces are kept
		}
	}
	err := p.change(ctx, func(h *heldPart) { h.Holder, h.Tail, h.TailN = "", tail, n })
	if err == nil && old != "" && old != tail {
		_ = p.s.c.remove(ctx, old)
	}
	return err
}

// end ends the holding, once.
func (p *part) end() bool {
	if p.ended {
		return false
	}
	p.ended = true
	p.stop()
	p.spool.close()
	return true
}

// HasPart reports whether something is kept under a request's id. It makes one call.
func (s *base) HasPart(ctx context.Context, job, request string) (bool, error) {
	if err := checkNames(job, request); err != nil {
		return false, fmt.Errorf("look for a part: %w", err)
	}
	h, _, err := s.readPart(ctx, s.keys.partState(job, request))
	if isMissing(err) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for part of request %s: %w", request, err)
	}
	return h.size() > 0, nil
}
