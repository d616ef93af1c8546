package s3store

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
	"github.com/minio/minio-go/v7"
)

const (
	// onePut is the most bytes of a unit that go in one PUT. Of a larger one, a piece is sent again where a line breaks, not
	// the whole.
	onePut = 64 << 20
	// mostPut is the most that S3 takes in one PUT.
	mostPut = 5 << 30
)

// unitType is the Content-Type of units. A Content-Encoding would have clients unpack them.
const unitType = "application/warc"

// archiveUnit is a unit being written.
type archiveUnit struct {
	*warcunit.Unit
	s         *Archive
	job, name string
	stem      string // begins each of its temporary names: WORKER~RUN~N
	kind      warc.Compression
}

// Commit makes the unit visible. The recipe:
//
//  1. Make the unit whole, in memory or in its nameless file: the members of answers, those of records, the account.
//  2. PUT it to units/UNIT.warc.gz on condition that there is none (If-None-Match: *). The first one wins, and it is the one
//     step before which the unit does not exist and after which it does, whole: THE commit point. A large unit is sent as a
//     multipart upload, whose completion has the condition, if the server is found to keep it there; nobody sees its pieces.
//
// When the answer to step 2 is lost the call is repeated, and finds the name taken, perhaps by itself: the attempt in the
// account tells. S3 acknowledges what is durable, so nothing remains to be flushed.
//
// When Commit fails nothing is lost: it may be called again, or the unit be discarded. A failed Commit may yet have made
// the unit visible, when the server did what it was asked and could not say so; the next one finds it there.
func (u *archiveUnit) Commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	winner, won, err := u.End(a, func() (*store.Account, bool, error) {
		if err := u.s.enter(); err != nil {
			return nil, false, err
		}
		defer u.s.work.Done()
		return u.commit(ctx, a)
	})
	if err != nil {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, err)
	}
	return winner, won, nil
}

func (u *archiveUnit) commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	u.s.at("begin")
	whole, err := u.Finish(a)
	if err != nil {
		return nil, false, err
	}
	if whole.Size > u.s.onePut {
		// A worker that slept finds its unit taken here, before it sends what is large.
		if winner, won, err := u.yieldTo(ctx); !errors.Is(err, store.ErrNotFound) {
			return winner, won, err
		}
	}
	err = u.put(ctx, whole)
	if errors.Is(err, errTaken) {
		winner, won, err := u.yieldTo(ctx)
		if errors.Is(err, store.ErrNotFound) { // removed by hand meanwhile: trouble, not an answer
			err = fmt.Errorf("%s was there and is not: %w", u.s.keys.unit(u.job, u.name, u.kind), errDamaged)
		}
		return winner, won, err
	}
	if err != nil {
		return nil, false, err
	}
	u.s.at("visible")
	return a, true, nil
}

// put is step 2.
func (u *archiveUnit) put(ctx context.Context, whole *warcunit.Finished) error {
	key := u.s.keys.unit(u.job, u.name, u.kind)
	if whole.Size > u.s.onePut {
		inPieces, err := u.s.completesConditionally(ctx)
		switch {
		case err != nil:
			return err
		case inPieces:
			return u.putInPieces(ctx, key, whole)
		case whole.Size > mostPut:
			return fmt.Errorf("write %s: it has %d bytes, more than one PUT takes, and %s ignores the condition of a multipart upload "+
				"(If-None-Match): use another server or a newer version", key, whole.Size, u.s.c.server())
		}
	}
	p, err := section(whole, 0, whole.Size)
	if err == nil {
		_, err = u.s.c.put(ctx, key, p, unitType, condition{absent: true})
	}
	return err
}

// section is what a call sends of a unit.
func section(whole *warcunit.Finished, from, size int64) (payload, error) {
	if whole.File == nil {
		return inMemory(whole.Data[from : from+size]), nil
	}
	bytes := io.NewSectionReader(whole.File, from, size)
	sum := sha256.New()
	if n, err := io.Copy(sum, bytes); err != nil || n != size {
		return payload{}, fmt.Errorf("read %s, of which %d of %d bytes are there: %w", whole.Path, n, size, errors.Join(err, io.ErrUnexpectedEOF))
	}
	return payload{bytes: bytes, size: size, sha: hex.EncodeToString(sum.Sum(nil))}, nil
}

// putInPieces sends a large unit. What it leaves behind when the program dies is an upload, which Sweep aborts.
func (u *archiveUnit) putInPieces(ctx context.Context, key string, whole *warcunit.Finished) error {
	up := &upload{s: &u.s.base, key: key, kind: unitType}
	err := up.sendAll(ctx, whole)
	if err == nil {
		u.s.at("uploaded")
		err = up.complete(ctx, condition{absent: true})
	}
	if err != nil {
		_ = up.abort() // else Sweep will
	}
	return err
}

func (u *upload) sendAll(ctx context.Context, whole *warcunit.Finished) error {
	for at := int64(0); at < whole.Size; {
		size := min(u.s.piece(u.next()), whole.Size-at)
		p, err := section(whole, at, size)
		if err != nil {
			return err
		}
		free, err := u.s.slot(ctx)
		if err != nil {
			return err
		}
		err = u.send(ctx, p)
		free()
		if err != nil {
			return err
		}
		at += size
	}
	return nil
}

// yieldTo answers with the account of the unit that is there already, or with store.ErrNotFound. It may be this very unit,
// from an attempt whose answer was lost.
func (u *archiveUnit) yieldTo(ctx context.Context) (*store.Account, bool, error) {
	winner, err := u.s.readStored(ctx, u.job, u.name)
	if err != nil {
		return nil, false, err
	}
	return winner.Account, winner.IsOf(u.stem), nil
}

// conditionality says whether a server keeps a condition.
type conditionality int

const (
	unasked conditionality = iota
	kept
	ignored
)

// completesConditionally reports whether the completion of an upload fails where the object is there already. Not every
// server that keeps the condition of a PUT does so. It is tried out once, before the first large unit.
func (s *Archive) completesConditionally(ctx context.Context) (bool, error) {
	s.mu.Lock()
	known := s.pieced
	s.mu.Unlock()
	if known == unasked {
		var err error
		if known, err = s.tryCompletion(ctx); err != nil {
			return false, err
		}
		s.mu.Lock()
		s.pieced = known
		s.mu.Unlock()
	}
	return known == kept, nil
}

// tryCompletion completes an upload over an object that is there.
func (s *Archive) tryCompletion(ctx context.Context) (conditionality, error) {
	key := s.keys.probe(s.run + "~" + randomHex(4))
	probe := inMemory([]byte("probe\n"))
	before, err := s.c.put(ctx, key, probe, "text/plain", condition{})
	if err != nil {
		return unasked, err
	}
	defer func() { _ = s.c.remove(context.WithoutCancel(ctx), key) }() // else Sweep will
	id, err := s.c.start(ctx, key, "text/plain")
	if err != nil {
		return unasked, err
	}
	etag, err := s.c.putPart(ctx, key, id, 1, probe)
	if err == nil {
		err = s.c.complete(ctx, key, id, []minio.CompletePart{{PartNumber: 1, ETag: etag}}, probe.size, condition{absent: true})
	}
	if err == nil {
		return ignored, nil
	}
	_ = s.c.abort(context.WithoutCancel(ctx), key, id)
	if !errors.Is(err, errTaken) {
		return unasked, err
	}
	now, err := s.c.head(ctx, key) // an answer may have been lost that said it was completed
	switch {
	case err != nil:
		return unasked, err
	case now.etag != before:
		return ignored, nil
	}
	return kept, nil
}
