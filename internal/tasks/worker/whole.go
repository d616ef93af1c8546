package worker

import (
	"context"
	"errors"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/charset"
	"github.com/fetchfleet/fetchfleet/internal/coding"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// What becomes of a part: the body of its request when it is whole, else what an archive keeps of one that was given up.

// whole makes a part that is whole the body of the request.
func (a *attempt) whole(ctx context.Context, resp *fetch.Response) (store.BodyRef, error) {
	note := a.part.Note()
	meta := store.BodyMeta{URL: note.URL, ContentType: resp.ContentType}
	if first := note.Stretches[0].Exchange; first != nil {
		meta.Exchange = first
	}
	if note.Coding == "" {
		text, err := a.textOfPart(resp)
		if err != nil {
			return store.BodyRef{}, err
		}
		a.charset = text
		ref, err := a.part.Adopt(ctx, a.unit, meta)
		if err == nil {
			a.part = partial{moves: a.part.moves}
		}
		return ref, err
	}
	return a.decoded(ctx, meta, note)
}

// decoded keeps the body of a part that is coded. No answer had the whole of one that came in several: where exchanges are
// archived each is, and what they make together is a body without one.
func (a *attempt) decoded(ctx context.Context, meta store.BodyMeta, note store.PartNote) (store.BodyRef, error) {
	sent, err := a.part.Open()
	if err != nil {
		return store.BodyRef{}, err
	}
	defer func() { _ = sent.Close() }()
	if len(note.Stretches) > 1 {
		meta.Exchange = nil
	}
	k, err := a.keeper(ctx, meta)
	if err != nil {
		return store.BodyRef{}, err
	}
	defer k.Abort()
	k.text = charset.NewSniffer(meta.ContentType)
	source := io.Reader(sent)
	if k.coded {
		source = io.TeeReader(sent, seen(k.sent))
	}
	if err := decode(note.Coding, source, k, coding.Limits{Bytes: a.spec.MaxBody, Ratio: a.spec.Ratio()}); err != nil {
		return store.BodyRef{}, err
	}
	if len(note.Stretches) > 1 {
		if err := a.archivePart(ctx, ""); err != nil {
			return store.BodyRef{}, err
		}
	}
	ref, err := k.Finish()
	if err != nil {
		return ref, err
	}
	a.charset = k.text.Charset()
	return ref, a.dropPart()
}

// archivePart archives the exchanges that a part came in, where the store wants them. reason is why the last of them broke
// off, "" for one that did not.
func (a *attempt) archivePart(ctx context.Context, reason string) error {
	if !a.archives || a.part.Size() == 0 {
		return nil
	}
	sent, err := a.part.Open()
	if err != nil {
		return err
	}
	defer func() { _ = sent.Close() }()
	note := a.part.Note()
	for i, s := range note.Stretches {
		end, cut := a.part.Size(), reason
		if i+1 < len(note.Stretches) {
			end, cut = note.Stretches[i+1].From, cutReason(fetch.BodyCut)
		}
		if err := a.archivePiece(ctx, note.URL, s.Exchange, io.LimitReader(sent, end-s.From), cut); err != nil {
			return err
		}
	}
	return nil
}

// archivePiece archives one exchange with the part of a body that it brought.
func (a *attempt) archivePiece(ctx context.Context, url string, e *store.Exchange, sent io.Reader, cut string) error {
	if e == nil { // begun by a worker whose store kept none
		_, err := io.Copy(io.Discard, sent)
		return err
	}
	piece := *e
	piece.Coded = false // nothing undoes the coding of a piece
	meta := store.BodyMeta{URL: url, Exchange: &piece, Hop: true}
	if kind := piece.Response["Content-Type"]; len(kind) > 0 {
		meta.ContentType = kind[0]
	}
	k, err := a.keeper(ctx, meta)
	if err != nil {
		return err
	}
	defer k.Abort()
	if err := stream(sent, k); err != nil || k.archive == nil {
		return err
	}
	if cut != "" {
		return k.archive.Cut(cut)
	}
	_, err = k.Finish()
	return err
}

// decode undoes the codings that are known. What is wrong with the data is an error of the server's.
func decode(codings string, sent io.Reader, to io.Writer, limits coding.Limits) error {
	source := sent
	plain, err := coding.NewReader([]string{codings}, sent, limits)
	if plain != nil {
		defer plain.Release()
		source = plain
	}
	if err != nil {
		return &fetch.Error{Class: fetch.Decode, Op: "decode", Err: err}
	}
	err = stream(broken{source}, to)
	if err == nil {
		_, err = io.Copy(io.Discard, sent) // what follows the coding's own end was sent, too
	}
	return err
}

// broken makes errors of decoding what they are to the outcome table.
type broken struct{ io.Reader }

// Read returns errors as those of the exchange.
func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	switch {
	case err == nil, err == io.EOF:
	case errors.Is(err, coding.ErrTooLarge):
		err = &fetch.Error{Class: fetch.DecodeTooLarge, Op: "decode", Err: err}
	case errors.Is(err, coding.ErrRatio):
		err = &fetch.Error{Class: fetch.DecodeRatio, Op: "decode", Err: err}
	default:
		err = &fetch.Error{Class: fetch.Decode, Op: "decode", Err: err}
	}
	return n, err
}

// seen is a function as an io.Writer.
type seen func(p []byte)

// Write never fails: whoever owns the function knows.
func (s seen) Write(p []byte) (int, error) {
	s(p)
	return len(p), nil
}

// giveUp ends a part whose request has its record. When the archive cannot have it, it stays for whoever runs the batch
// again.
func (a *attempt) giveUp(ctx context.Context, r *store.Record) error {
	reason := "unspecified"
	if r.Error != nil {
		reason = cutReason(fetch.Class(r.Error.Class))
	}
	if err := a.archivePart(context.WithoutCancel(ctx), reason); err != nil && !errors.Is(err, store.ErrRecord) {
		return errors.Join(err, a.part.Release())
	}
	return a.part.Drop()
}
