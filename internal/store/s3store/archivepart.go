package s3store

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// copyTo copies the part into a unit of an Archive, record by record, which takes all of its bytes to this machine. The
// part is removed then: a unit that is never committed takes the body with it.
func (p *part) copyTo(ctx context.Context, u *archiveUnit, meta store.BodyMeta) (store.BodyRef, error) {
	whole := p.spool
	if p.up.size > 0 {
		var err error
		if whole, err = p.download(ctx); err != nil {
			return store.BodyRef{}, err
		}
		defer whole.close()
	}
	ref, err := u.Adopt(ctx, meta, warcunit.Whole{
		Path: whole.file.Name(), File: whole.file, Size: whole.size, SHA256: whole.payload().sha, Stretches: p.state.Note.Stretches,
	})
	if err != nil {
		return store.BodyRef{}, err
	}
	_ = p.Drop() // else Sweep will, or the next holder, who finds it whole
	return ref, nil
}

// download brings a part, of which pieces are on the server, into a file without a name. The caller closes it.
func (p *part) download(ctx context.Context) (*spool, error) {
	if err := p.finish(ctx); err != nil {
		return nil, err
	}
	r, err := p.s.c.open(ctx, p.up.key)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()
	to, err := newSpool(p.s.o.SpoolDir)
	if err != nil {
		return nil, err
	}
	_, err = io.Copy(to, r)
	want := hex.EncodeToString(p.hash.Sum(nil))
	if err == nil && (to.size != p.Size() || to.payload().sha != want) {
		err = fmt.Errorf("%s %w: its %d bytes have digest %s, the %d that were kept have %s", p.up.key, errDamaged,
			to.size, to.payload().sha, p.Size(), want)
		_ = p.forget(ctx, store.PartNote{}) // no attempt could use it
	}
	if err != nil {
		to.close()
		return nil, err
	}
	return to, nil
}
