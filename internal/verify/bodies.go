package verify

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// bodyRef is a body and what a record says of it.
type bodyRef struct {
	job, body     string
	bytes         int64
	sha256        string
	request, unit string
}

// where names the body; one of another job with that.
func (b *bodyRef) where(job string) string {
	if b.job != job {
		return "job " + b.job + ", " + b.body
	}
	return b.body
}

// readBodies reads what comes until there is no more.
func (v *run) readBodies(ctx context.Context, refs <-chan bodyRef) error {
	buf := make([]byte, 64<<10)
	for b := range refs {
		if err := v.readBody(ctx, &b, buf); err != nil {
			return err
		}
	}
	return nil
}

// readBody holds a body against its record. Its error says that the store is to be given up.
func (v *run) readBody(ctx context.Context, b *bodyRef, buf []byte) error {
	v.bodies.Add(1)
	n, sum, err := v.digest(ctx, b, buf)
	if err != nil {
		err = fmt.Errorf("body of request %s in unit %s: %w", b.request, b.unit, err)
		return v.failed(ctx, b.where(v.job), err, &v.bodiesInARow)
	}
	v.bodiesInARow.Store(0)
	f := store.Finding{Where: b.where(v.job)}
	switch {
	case n > b.bytes:
		f.Kind, f.What = "length", fmt.Sprintf("has more than the %d bytes that the record of request %s in unit %s says", b.bytes, b.request, b.unit)
	case n < b.bytes:
		f.Kind, f.What = "length", fmt.Sprintf("has %d bytes, the record of request %s in unit %s says %d", n, b.request, b.unit, b.bytes)
	case b.sha256 != "" && sum != b.sha256:
		f.Kind, f.What = "digest", fmt.Sprintf("has the SHA-256 %s, the record of request %s in unit %s says %s", sum, b.request, b.unit, b.sha256)
	default:
		return nil
	}
	v.found(f)
	return nil
}

// digest reads a body, and of one that is longer than its record says only a byte more: what is damaged may unpack
// to anything.
func (v *run) digest(ctx context.Context, b *bodyRef, buf []byte) (n int64, sum string, err error) {
	r, err := v.store.OpenBody(ctx, b.job, b.body)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = r.Close() }()
	hash := sha256.New()
	for n <= b.bytes && err == nil {
		if err = ctx.Err(); err != nil {
			break
		}
		var got int
		got, err = r.Read(buf[:min(int64(len(buf)), b.bytes+1-n)])
		hash.Write(buf[:got])
		n += int64(got)
		v.bytes.Add(int64(got))
	}
	if err != nil && err != io.EOF {
		return n, "", fmt.Errorf("after %d bytes: %w", n, err)
	}
	return n, hex.EncodeToString(hash.Sum(nil)), nil
}

// maxRemembered is how many bodies are surely remembered as read; it takes about 60 MB with as many before them.
const maxRemembered = 1 << 20

// remembered is a set that forgets its oldest members: a body that is met again after more than maxRemembered others
// may be read again. The zero value is empty.
type remembered struct {
	young, old map[key]struct{}
}

// add reports whether k is new.
func (r *remembered) add(k key) bool {
	if _, ok := r.young[k]; ok {
		return false
	}
	_, ok := r.old[k]
	if len(r.young) >= maxRemembered {
		r.old, r.young = r.young, nil
	}
	if r.young == nil {
		r.young = make(map[key]struct{})
	}
	r.young[k] = struct{}{}
	return !ok
}
