package worker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// A large body is kept as sent in a part, which outlives the attempt: when the transfer is cut, whoever tries again asks
// for the rest of it (Range with If-Range, RFC 9110, sections 14.2 and 13.1.5). What differs by then starts over.

// movedOn is how many bytes an attempt has to add to what is kept of a body for not being counted. A body has an end, so
// this does, too: an attempt that began at the first byte again, though some were kept, counts.
const movedOn = 1 << 20

// partial is the part of a large body in the hands of an attempt. Its zero value holds nothing.
type partial struct {
	store.Part
	asked bool // the exchange under way asks for what is missing
	anew  bool // bytes that were kept turned out to be of another version
	moves *download
}

// takePart takes what an earlier attempt kept of the request's body. Without it the body is fetched from its beginning.
func (a *attempt) takePart(ctx context.Context) error {
	if a.parts == nil || !a.begun[a.id] && !a.allParts {
		return nil
	}
	kept, err := a.parts.HasPart(ctx, string(a.batch.Job), string(a.id))
	if err != nil || !kept {
		return err
	}
	part, err := a.parts.Part(ctx, string(a.batch.Job), string(a.id))
	if err != nil {
		return a.elsewhere(err)
	}
	a.part.Part = part
	return nil
}

// busyDelay is the wait for a part that somebody else has. He may be dead: then its store gives it away in the end.
const busyDelay = 8 * time.Second

// elsewhere is what an error of taking a part means. Without it the attempt would begin at the first byte, so it waits for
// a while; from then on it goes without, and nothing is kept of it.
func (a *attempt) elsewhere(err error) error {
	if errors.Is(err, store.ErrBusy) && a.past.waits >= freeWaits {
		return nil
	}
	return err
}

// later ends an attempt that waits for its part.
func (a *attempt) later() result {
	p := a.past
	if p.waits == 0 {
		p.waitSince = a.now().UnixMilli()
	}
	p.waits++
	return result{begun: true, verdict: verdict{step: stepWait, delay: busyDelay, past: p},
		err: "waits for the beginning of its body, which another attempt has in hand"}
}

// begunBodies are the requests of the batch of which the beginning of a body may be kept.
func (d *delivery) begunBodies(ctx context.Context) map[tasks.RequestID]bool {
	if d.parts == nil || !d.state.Large {
		return nil
	}
	ids := make([]tasks.RequestID, len(d.batch.Requests))
	for i := range d.batch.Requests {
		ids[i], _, _ = d.batch.Requests[i].Identity(d.batch.Job, &d.spec)
	}
	begun, err := d.ledger.LargeOf(ctx, d.batch.Job, ids)
	if err != nil { // then they start over
		d.log.Debug().Err(err).Msg("kept bodies not looked for")
	}
	return begun
}

// ranged is the next exchange: for the rest of the body, where its beginning is kept and this is where it came from.
func (a *attempt) ranged(next *fetch.Request) *fetch.Request {
	a.part.asked = false
	if a.part.Part == nil || a.part.Size() == 0 {
		return next
	}
	n := a.part.Note()
	if next.Method != http.MethodGet || !sameURL(next.URL, n.URL) || a.part.Size() >= n.Length || hasConditions(next.Header) {
		return next
	}
	rest := *next
	rest.Header = maps.Clone(next.Header)
	if rest.Header == nil {
		rest.Header = http.Header{}
	}
	rest.Header.Set("Range", fmt.Sprintf("bytes=%d-", a.part.Size()))
	rest.Header.Set("If-Range", n.ETag)
	if n.ETag == "" {
		rest.Header.Set("If-Range", n.LastModified)
	}
	if rest.Header.Get("Accept-Encoding") == "" {
		rest.Header.Set("Accept-Encoding", fetch.AcceptEncoding) // as at first: another coding has other bytes
	}
	a.part.asked = true
	return &rest
}

// misfits reports whether an answer to a ranged exchange is of no use: it is not the rest of what is kept.
func (a *attempt) misfits(resp *fetch.Response) bool {
	switch {
	case !a.part.asked:
		return false
	case resp.Status == http.StatusRequestedRangeNotSatisfiable:
		return true
	case resp.Status != http.StatusPartialContent:
		return false
	}
	n := a.part.Note()
	from, to, length, ok := contentRange(resp.Header.Get("Content-Range"))
	code := strings.Join(resp.Header["Content-Encoding"], ", ")
	return !ok || from != a.part.Size() || length != n.Length || !sameVersion(n, resp.Header) ||
		resp.ContentLength >= 0 && resp.ContentLength != to-from+1 || n.Coding != "" && code != "" && code != n.Coding
}

// sameVersion reports whether an answer names the version that a part is of. Not every server looks at If-Range, so what
// does not say is not believed (RFC 9110, section 15.3.7: a 206 has the validators of a 200).
func sameVersion(n store.PartNote, h http.Header) bool {
	if n.ETag != "" {
		return h.Get("Etag") == n.ETag
	}
	return h.Get("Last-Modified") == n.LastModified
}

// contentRange reads "bytes FROM-TO/LENGTH" (RFC 9110, section 14.4).
func contentRange(field string) (from, to, length int64, ok bool) {
	unit, rest, _ := strings.Cut(field, " ")
	span, total, _ := strings.Cut(rest, "/")
	first, last, _ := strings.Cut(span, "-")
	from, err1 := strconv.ParseInt(first, 10, 64)
	to, err2 := strconv.ParseInt(last, 10, 64)
	length, err3 := strconv.ParseInt(total, 10, 64)
	return from, to, length, strings.EqualFold(unit, "bytes") && errors.Join(err1, err2, err3) == nil && from >= 0 && to >= from && to < length
}

// resumable says what a part of this answer's body would be of; ok is false where it could not go on: the answer does
// not say how long it is, or nothing by which its body is known again for sure.
func (a *attempt) resumable(resp *fetch.Response) (n store.PartNote, ok bool) {
	n = store.PartNote{URL: resp.URL, ETag: resp.Header.Get("Etag"), Length: resp.ContentLength}
	if resp.Coded() { // else it is kept as it is sent, whatever it says of itself
		n.Coding = strings.Join(resp.Header["Content-Encoding"], ", ")
	}
	if strings.HasPrefix(n.ETag, "W/") { // weak: the same meaning, not the same bytes
		n.ETag = ""
	}
	if n.ETag == "" && settled(resp.Header) {
		n.LastModified = resp.Header.Get("Last-Modified")
	}
	method, _, _ := resp.Sent()
	return n, a.parts != nil && resp.Status == http.StatusOK && method == http.MethodGet &&
		n.ETag+n.LastModified != "" && a.spec.Range == "" && a.spec.Resumes(n.Length) && n.Length <= a.spec.MaxBody &&
		!strings.EqualFold(resp.Header.Get("Accept-Ranges"), "none")
}

// settled reports whether Last-Modified tells one version of a body from the next: it is a minute older than the answer
// (RFC 9110, section 8.8.2.2).
func settled(h http.Header) bool {
	modified, err1 := http.ParseTime(h.Get("Last-Modified"))
	date, err2 := http.ParseTime(h.Get("Date"))
	return err1 == nil && err2 == nil && date.Sub(modified) >= time.Minute
}

// openPart decides where the body of an answer goes: to a part, when it says true.
func (a *attempt) openPart(ctx context.Context, resp *fetch.Response) (bool, error) {
	stretch := store.Stretch{At: resp.Began().UTC()}
	if a.archives {
		stretch.Exchange = a.exchangeOf(resp, a.sent)
	}
	if a.part.asked && resp.Status == http.StatusPartialContent {
		stretch.From = a.part.Size()
		return true, a.part.Stretch(stretch)
	}
	note, ok := a.resumable(resp)
	if !ok {
		return false, a.dropPart()
	}
	if a.part.Part == nil {
		part, err := a.parts.Part(ctx, string(a.batch.Job), string(a.id))
		if err != nil {
			return false, a.elsewhere(err)
		}
		a.part.Part = part
	}
	a.part.anew = a.part.anew || a.part.Size() > 0
	note.Stretches = []store.Stretch{stretch}
	return true, a.part.Begin(note)
}

// dropPart forgets what is kept of a body that is not the body any more.
func (a *attempt) dropPart() error {
	if a.part.Part == nil {
		return nil
	}
	part := a.part.Part
	a.part = partial{anew: a.part.anew || part.Size() > 0, moves: a.part.moves}
	return part.Drop()
}

// endPart keeps what there is for another attempt, if there will be one, and else for the archive.
func (a *attempt) endPart(ctx context.Context, out *result) {
	if a.part.Part == nil {
		return
	}
	end := a.part.Release
	if out.record != nil {
		end = func() error { return a.giveUp(ctx, out.record) }
	}
	if err := end(); err != nil {
		a.storeErr.CompareAndSwap(nil, &err)
	}
}

// download streams an answer's body into the part, and ends the attempt.
func (a *attempt) download(ctx context.Context, resp *fetch.Response) result {
	defer func() { _ = resp.Body.Close() }()
	from, length := a.part.Size(), a.part.Note().Length
	a.part.moves = a.noteDownload(ctx, resp.URL, from, length)
	resp.AsSent()
	err := stream(io.LimitReader(resp.Body, length-from), growing{a.part})
	if err == nil {
		err = ended(resp.Body)
	}
	a.downloads.remove(a.part.moves)
	if err == nil && a.part.Size() != length {
		err = &fetch.Error{Class: fetch.BodyCut, Op: "body",
			Err: fmt.Errorf("%d of %d bytes came", a.part.Size()-from, length-from)}
	}
	if err != nil {
		return a.cutOff(ctx, resp, err, a.part.Size()-from)
	}
	stretches := a.part.Note().Stretches
	ref, err := a.whole(ctx, resp)
	if err != nil {
		a.tellCut(ctx, a.part.moves, 0)
		return a.unkept(resp, err)
	}
	out := a.end(resp, happening{status: http.StatusOK}, ref)
	if len(stretches) > 1 {
		out.record.Resumed = len(stretches) - 1
		out.record.Headers = wholeHeader(resp.Header, length)
	}
	return out
}

// ended reports what follows a body that has all its bytes: nothing may.
func ended(body io.Reader) error {
	n, err := io.ReadFull(body, make([]byte, 1))
	switch {
	case n > 0:
		return &fetch.Error{Class: fetch.Protocol, Op: "body", Err: errors.New("more bytes than were announced")}
	case errors.Is(err, io.EOF):
		return nil
	}
	return err
}

// wholeHeader is what describes a body that came in pieces (RFC 9110, section 15.3.7.3).
func wholeHeader(last http.Header, length int64) http.Header {
	h := maps.Clone(last)
	h.Del("Content-Range")
	h.Set("Content-Length", strconv.FormatInt(length, 10))
	return h
}

// cutOff ends an attempt whose body was cut. One that has moved the body on was not in vain, and does not count.
func (a *attempt) cutOff(ctx context.Context, resp *fetch.Response, err error, moved int64) result {
	have, length := a.part.Size(), a.part.Note().Length
	var broken *fetch.Error
	if !errors.As(err, &broken) {
		a.tellCut(ctx, a.part.moves, have)
		return a.unkept(resp, err)
	}
	h := happening{class: string(broken.Class), canceled: broken.Class == fetch.Canceled, moved: moved >= movedOn && !a.part.anew,
		message: fmt.Sprintf("%v (%d of %d bytes were there)", err, have, length)}
	out := a.end(resp, h, store.BodyRef{})
	if out.record != nil { // nobody goes on
		have = 0
	}
	a.tellCut(ctx, a.part.moves, have)
	return out
}

// growing is a part that tells how far it is.
type growing struct{ partial }

// Write appends.
func (g growing) Write(p []byte) (int, error) {
	n, err := g.Part.Write(p)
	g.moves.have.Add(int64(n))
	return n, err
}

// noteDownload makes it known that a large body is on its way.
func (a *attempt) noteDownload(ctx context.Context, url string, have, length int64) *download {
	d := &download{job: a.batch.Job, batch: a.batch.ID, id: a.id, url: url, length: length}
	d.have.Store(have)
	a.downloads.add(d)
	a.tellLarge(ctx, d.large(a.name), a.id)
	return d
}

// tellCut notes that nobody moves a large body any more, of which so many bytes are kept.
func (a *attempt) tellCut(ctx context.Context, d *download, kept int64) {
	cut := d.large(a.name)
	cut.Have, cut.Cut = kept, true
	a.tellLarge(ctx, cut, a.id)
}

// tellLarge notes how far a large body is. Where Redis does not answer soon, the next look will tell.
func (d *delivery) tellLarge(ctx context.Context, l ledger.Large, id tasks.RequestID) {
	d.large.Store(true)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	if err := d.ledger.NoteLarge(ctx, d.batch.Job, map[tasks.RequestID]ledger.Large{id: l}); err != nil {
		d.log.Debug().Err(err).Msg("large body not noted")
	}
}

// forgetLarge drops the notes on bodies that are recorded.
func (d *delivery) forgetLarge(ctx context.Context, a *store.Account) {
	if !d.large.Load() && !d.state.Large {
		return
	}
	var ids []tasks.RequestID
	for _, e := range a.Entries {
		if e.Fate == store.Recorded {
			ids = append(ids, tasks.RequestID(e.ID))
		}
	}
	if len(ids) == 0 {
		return
	}
	if err := d.ledger.ForgetLarge(ctx, d.batch.Job, ids...); err != nil {
		d.log.Debug().Err(err).Msg("notes on large bodies left in Redis")
	}
}
