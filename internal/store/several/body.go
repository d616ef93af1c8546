package several

import (
	"context"
	"errors"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Body starts one body in every store that keeps it.
func (u *unit) Body(ctx context.Context, meta store.BodyMeta) (store.BodyWriter, error) {
	if !u.tee { // no detour for bodies that one store takes
		return u.first.Body(ctx, meta)
	}
	b := &body{u: u, hop: meta.Hop}
	if keeps := keepsExchanges(u.first); keeps || !meta.Hop {
		w, err := u.first.Body(ctx, meta)
		if err != nil {
			return nil, err
		}
		b.first = branch{w: w, exchange: exchangeWriter(w, keeps)}
	}
	b.rest = make([]branch, len(u.rest))
	for i := range u.rest {
		c := &u.rest[i]
		keeps := keepsExchanges(c.unit)
		if c.to.bodiless || meta.Hop && !keeps {
			continue
		}
		w, err := c.unit.Body(ctx, meta)
		if err == nil {
			b.rest[i] = branch{w: w, exchange: exchangeWriter(w, keeps)}
		} else if err := b.failed(i, err); err != nil {
			b.Abort()
			return nil, err
		}
	}
	return b, nil
}

func exchangeWriter(w store.BodyWriter, keeps bool) store.ExchangeWriter {
	e, ok := w.(store.ExchangeWriter)
	if !ok || !keeps {
		return nil
	}
	return e
}

// branch is a body on its way into one store. Its w is nil where that store does not take it.
type branch struct {
	w        store.BodyWriter
	exchange store.ExchangeWriter // the same, where exchanges are kept
}

// body is a body on its way into several stores. It is an ExchangeWriter for those that keep exchanges, and a plain
// writer for the others. It is used by one goroutine.
type body struct {
	u     *unit
	hop   bool
	first branch
	rest  []branch // beside unit.rest
}

var _ store.ExchangeWriter = (*body)(nil)

// Write takes decoded bytes, for all.
func (b *body) Write(p []byte) (int, error) {
	return len(p), b.each(func(br *branch) error {
		_, err := br.w.Write(p)
		return err
	})
}

// Sent takes bytes as they were sent, for those that keep exchanges.
func (b *body) Sent(p []byte) (int, error) {
	return len(p), b.each(func(br *branch) error {
		if br.exchange == nil {
			return nil
		}
		_, err := br.exchange.Sent(p)
		return err
	})
}

// Cut ends a body that did not come whole. Those that keep exchanges keep what there is, the others drop it.
func (b *body) Cut(reason string) error {
	return b.each(func(br *branch) error {
		if br.exchange == nil {
			br.w.Abort()
			return nil
		}
		return br.exchange.Cut(reason)
	})
}

// Finish ends the body everywhere, and says how the first store's record refers to it.
func (b *body) Finish() (store.BodyRef, error) {
	var ref store.BodyRef
	if b.first.w != nil {
		var err error
		if ref, err = b.first.w.Finish(); err != nil {
			b.Abort()
			return store.BodyRef{}, err
		}
	}
	places := make([]string, len(b.rest))
	for i := range b.rest {
		if b.rest[i].w == nil {
			continue
		}
		its, err := b.rest[i].w.Finish()
		if err := b.failed(i, err); err != nil {
			b.Abort()
			return store.BodyRef{}, err
		}
		places[i] = its.Body
	}
	if !b.hop {
		b.u.placed(bodyKey{ref.Body, ref.SHA256}, places)
	}
	return ref, nil
}

// placed notes where a body lies in the later stores.
func (u *unit) placed(key bodyKey, places []string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for i, place := range places {
		u.rest[i].bodies[key] = place
	}
}

// Abort drops the body everywhere.
func (b *body) Abort() {
	if b.first.w != nil {
		b.first.w.Abort()
	}
	for i := range b.rest {
		if w := b.rest[i].w; w != nil {
			w.Abort()
		}
	}
}

// each does something in every store that takes the body.
func (b *body) each(do func(*branch) error) error {
	if b.first.w != nil {
		if err := do(&b.first); err != nil {
			return err
		}
	}
	for i := range b.rest {
		if b.rest[i].w == nil {
			continue
		}
		if err := b.failed(i, do(&b.rest[i])); err != nil {
			return err
		}
	}
	return nil
}

// failed takes what a later store says of this body. Where it refuses this one body it goes without: its record will
// say of what length and digest it was, and not where.
func (b *body) failed(i int, err error) error {
	if err == nil {
		return nil
	}
	m := b.u.rest[i].to
	if !errors.Is(err, store.ErrRecord) {
		return m.wrap(err)
	}
	b.u.s.note(m.wrap(err))
	if w := b.rest[i].w; w != nil {
		w.Abort()
	}
	b.rest[i] = branch{}
	return nil
}
