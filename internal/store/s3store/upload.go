package s3store

import (
	"context"
	"fmt"

	"github.com/minio/minio-go/v7"
)

// maxPieces is how many parts S3 allows in one upload.
const maxPieces = 10_000

// upload is a multipart upload that is filled piece by piece. It is used by one goroutine.
type upload struct {
	s      *base
	key    string
	id     string // "" before the first piece
	kind   string // Content-Type of the object
	pieces []piece
	skip   int // numbers that another may have used
	size   int64
}

// piece is a part of an upload that the server has.
type piece struct {
	Number int    `json:"n"`
	ETag   string `json:"etag"`
	Size   int64  `json:"size"`
}

// next returns the number of the next piece.
func (u *upload) next() int {
	if len(u.pieces) == 0 {
		return 1 + u.skip
	}
	return u.pieces[len(u.pieces)-1].Number + 1 + u.skip
}

// add sends what is in the spool as the next piece and empties the spool.
func (u *upload) add(ctx context.Context, sp *spool) error {
	if err := u.send(ctx, sp.payload()); err != nil {
		return err
	}
	sp.reset()
	return nil
}

// send sends the next piece.
func (u *upload) send(ctx context.Context, p payload) error {
	if u.next() > maxPieces {
		return fmt.Errorf("upload %s: more than %d pieces: the body is too large for this store", u.key, maxPieces)
	}
	free, err := u.s.slot(ctx)
	if err != nil {
		return err
	}
	defer free()
	if u.id == "" {
		id, err := u.s.c.start(ctx, u.key, u.kind)
		if err != nil {
			return err
		}
		u.id = id
		u.s.sends(id, true)
	}
	number := u.next()
	etag, err := u.s.c.putPart(ctx, u.key, u.id, number, p)
	if err != nil {
		return err
	}
	u.pieces = append(u.pieces, piece{Number: number, ETag: etag, Size: p.size})
	u.skip = 0
	u.size += p.size
	return nil
}

// complete makes the object of the pieces. An error other than errTaken leaves the upload as it was.
func (u *upload) complete(ctx context.Context, when condition) error {
	parts := make([]minio.CompletePart, 0, len(u.pieces))
	for _, p := range u.pieces {
		parts = append(parts, minio.CompletePart{PartNumber: p.Number, ETag: p.ETag})
	}
	if err := u.s.c.complete(ctx, u.key, u.id, parts, u.size, when); err != nil {
		return err
	}
	u.s.sends(u.id, false)
	return nil
}

// abort drops the upload. What it fails to drop, Sweep will.
func (u *upload) abort() error {
	if u == nil || u.id == "" {
		return nil
	}
	u.s.sends(u.id, false)
	return u.s.c.abort(context.WithoutCancel(u.s.ctx), u.key, u.id)
}
