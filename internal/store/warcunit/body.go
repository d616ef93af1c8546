package warcunit

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"strconv"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/coding"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// decodedField is a named field of our own: how many bytes a payload has when its content codings are undone. Where it is
// missing they were not undone when it was stored, whatever its head says, and are not when it is read.
const decodedField = "Fetchfleet-Decoded-Length"

// encodingField is the content codings of such a payload, so that two payloads that differ in them alone are told apart
// without their heads.
const encodingField = "Fetchfleet-Content-Encoding"

// body writes the records of one answer. It is used by one goroutine.
type body struct {
	u    *Unit
	meta store.BodyMeta
	at   time.Time

	block   spool // the block of the record: head and payload as sent
	head    int64 // bytes of the head
	coded   bool
	plain   hash.Hash // of the decoded bytes, where coded
	size    int64     // of the decoded bytes
	decoded *spool    // the decoded bytes, where a copy is asked for
	adopted int64     // bytes of a payload that lies in a part and not in block

	blockSum, payloadSum hash.Hash // of what was flushed, once something was
	unhashed             int64     // bytes of the head that payloadSum has still to pass over

	ended bool
	err   error // the first one; every later call returns it
}

// errBodyEnded is returned by a body that was finished, cut or aborted.
var errBodyEnded = errors.New("the body has ended")

func newBody(u *Unit, n int, meta store.BodyMeta) (*body, error) {
	stem := u.stem + "~" + strconv.Itoa(n)
	b := &body{u: u, meta: meta, at: time.Now()}
	b.block = spool{s: u.s, path: u.s.Tmp(u.job, stem+tmpBody), unnamed: true, flushed: b.digest}
	e := meta.Exchange
	if e == nil {
		return b, nil
	}
	if !e.At.IsZero() {
		b.at = e.At
	}
	if b.coded = e.Coded; b.coded {
		b.plain = sha256.New()
		if u.s.Decoded {
			b.decoded = &spool{s: u.s, path: u.s.Tmp(u.job, stem+"~2"+tmpBody), unnamed: true}
		}
	}
	w := works.Get().(*work)
	defer w.release()
	w.block = warc.AppendResponseHead(w.block[:0], e)
	b.head, b.unhashed = int64(len(w.block)), int64(len(w.block))
	if _, err := b.block.Write(w.block); err != nil {
		b.drop()
		return nil, err
	}
	return b, nil
}

// digest takes what the spool moves out of memory.
func (b *body) digest(p []byte) {
	if b.blockSum == nil {
		b.blockSum, b.payloadSum = sha256.New(), sha256.New()
	}
	b.blockSum.Write(p)
	skip := min(b.unhashed, int64(len(p)))
	b.unhashed -= skip
	b.payloadSum.Write(p[skip:])
}

// digests returns those of the block and of its payload.
func (b *body) digests() (block, payload warc.Digest) {
	if b.blockSum == nil {
		payload = sha256.Sum256(b.block.mem[b.head:])
		if b.head == 0 {
			return payload, payload
		}
		return sha256.Sum256(b.block.mem), payload
	}
	b.digest(b.block.mem)
	return warc.Digest(b.blockSum.Sum(nil)), warc.Digest(b.payloadSum.Sum(nil))
}

// Write takes decoded bytes. After an error every call returns that error.
func (b *body) Write(p []byte) (int, error) {
	if err := b.open(); err != nil {
		return 0, err
	}
	if !b.coded {
		if b.err = b.keep(&b.block, p); b.err != nil {
			return 0, b.err
		}
		b.size += int64(len(p))
		return len(p), nil
	}
	if b.decoded != nil {
		if b.err = b.keep(b.decoded, p); b.err != nil {
			return 0, b.err
		}
	}
	b.plain.Write(p)
	b.size += int64(len(p))
	return len(p), nil
}

// Sent takes bytes of a coded body as they were sent.
func (b *body) Sent(p []byte) (int, error) {
	if err := b.open(); err != nil {
		return 0, err
	}
	if !b.coded {
		return len(p), nil // Write gets them
	}
	if b.err = b.keep(&b.block, p); b.err != nil {
		return 0, b.err
	}
	return len(p), nil
}

func (b *body) open() error {
	if b.err == nil && b.ended {
		return errBodyEnded
	}
	return b.err
}

// keep writes to a spool in pieces, so that one large write does not make a large buffer.
func (b *body) keep(sp *spool, p []byte) error {
	for len(p) > 0 {
		n, err := sp.Write(p[:min(len(p), freeSize)])
		if err != nil {
			return fmt.Errorf("write body in unit %s: %w", b.u.name, err)
		}
		p = p[n:]
	}
	return nil
}

// Finish writes the records of the answer to the unit and says how a record refers to the body.
func (b *body) Finish() (store.BodyRef, error) {
	if err := b.open(); err != nil {
		return store.BodyRef{}, err
	}
	name, err := b.finish("")
	ref := store.BodyRef{Bytes: b.size}
	if err != nil {
		b.err = fmt.Errorf("finish body in unit %s: %w", b.u.name, err)
		b.Abort()
		return store.BodyRef{}, b.err
	}
	ref.SHA256 = hex.EncodeToString(name.sum[:])
	if b.size > 0 {
		ref.Body = name.body
	}
	b.drop()
	return ref, nil
}

// Cut ends a body that did not come whole and keeps what there is.
func (b *body) Cut(reason string) error {
	if err := b.open(); err != nil {
		return err
	}
	if reason == "" {
		reason = "unspecified"
	}
	if b.meta.Exchange != nil {
		if _, err := b.finish(reason); err != nil {
			b.err = fmt.Errorf("keep the beginning of a body in unit %s: %w", b.u.name, err)
		}
	}
	b.drop()
	return b.err
}

// Abort drops the body.
func (b *body) Abort() {
	if !b.ended {
		b.drop()
	}
}

func (b *body) drop() {
	b.ended = true
	_ = b.block.drop() // what cannot be removed, Sweep will
	if b.decoded != nil {
		_ = b.decoded.drop()
	}
}

// named is where a body is and which digest its decoded bytes have.
type named struct {
	body string
	sum  warc.Digest
}

// finish writes the records. A body that was cut is neither compared with others nor found by them.
func (b *body) finish(cut string) (named, error) {
	block, payload := b.digests()
	n := named{sum: payload}
	if b.coded {
		n.sum = warc.Digest(b.plain.Sum(nil))
	}
	earlier := original{}
	if b.block.Size() > b.head && cut == "" {
		earlier = b.u.earlier(payload, b.encoding())
	}
	e := b.meta.Exchange
	switch {
	case e == nil && b.size == 0:
		return n, nil
	case e == nil && earlier.body != "":
		n.body = earlier.body
		return n, nil
	}
	h := b.header(block, payload, cut)
	keepPayload := true
	if e != nil && cut == "" {
		switch r := b.meta.Refers; {
		case e.Status == 304 && r != nil:
			h.Type, h.Profile = warc.Revisit, warc.ServerNotModified
			h.RefersToURI, h.RefersToDate = r.URL, r.At
			h.PayloadDigest = parseDigest(r.SHA256)
		case earlier.body != "":
			b.revisit(h, earlier)
			n.body, keepPayload = earlier.body, false
		}
	}
	offset, err := b.u.write(b, h, keepPayload)
	if err == nil && n.body == "" {
		n.body = BodyName(b.u.name, offset)
	}
	return n, err
}

// revisit makes the record of an answer one that had the payload of an earlier answer.
func (b *body) revisit(h *warc.Header, earlier original) {
	h.Type, h.Profile = warc.Revisit, warc.IdenticalPayload
	h.RefersTo, h.RefersToURI, h.RefersToDate = earlier.id, earlier.url, earlier.at
	h.BlockDigest = sha256.Sum256(b.headBytes())
}

// headBytes returns the head, written again: the one in the spool may be on disk.
func (b *body) headBytes() []byte { return warc.AppendResponseHead(nil, b.meta.Exchange) }

// encoding is what tells two payloads of the same bytes apart.
func (b *body) encoding() string {
	if !b.coded {
		return ""
	}
	for name, values := range b.meta.Exchange.Response {
		if strings.EqualFold(name, "Content-Encoding") {
			return strings.Join(coding.Names(values), ", ")
		}
	}
	return ""
}

func (b *body) header(block, payload warc.Digest, cut string) *warc.Header {
	h := &warc.Header{
		Type: warc.Resource, ID: warc.NewID(), Date: b.at, TargetURI: b.meta.URL, ContentType: b.meta.ContentType,
		BlockDigest: block, PayloadDigest: payload, Truncated: cut,
	}
	if e := b.meta.Exchange; e != nil {
		h.Type, h.ContentType = warc.Response, warc.HTTPResponse
		h.IP, h.Protocol = warc.IP(e), warc.Protocol(e)
	}
	if b.coded && cut == "" {
		h.Extra = append(h.Extra, warc.Field{Name: decodedField, Value: strconv.FormatInt(b.size, 10)},
			warc.Field{Name: encodingField, Value: b.encoding()})
	}
	if h.TargetURI == "" { // a resource must have one
		h.TargetURI = strings.Trim(h.ID.String(), "<>")
	}
	if h.ContentType == "" {
		h.ContentType = "application/octet-stream"
	}
	return h
}

func parseDigest(sha string) (d warc.Digest) {
	if raw, err := hex.DecodeString(sha); err == nil && len(raw) == len(d) {
		copy(d[:], raw)
	}
	return d
}
