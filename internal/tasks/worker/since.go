package worker

import (
	"context"
	"maps"
	"net/http"
	"net/url"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// ownConditions are the header fields by which a request that has them says itself what it wants (RFC 9110, sections
// 13.1 and 14.2): it is sent as it is.
var ownConditions = map[string]bool{
	"If-None-Match": true, "If-Modified-Since": true, "If-Match": true, "If-Unmodified-Since": true,
	"If-Range": true, "Range": true,
}

// conditional returns the exchange as it is to be sent: with the validators of an earlier job's answer if it goes to
// the URL that gave them, else as it is. Redirects go on from the exchange without them.
func (a *attempt) conditional(next *fetch.Request) *fetch.Request {
	since := a.request.Since
	if since == nil || a.spec.SinceStore != a.identity || len(next.Body) > 0 {
		return next // with another store the earlier body would be out of reach
	}
	if next.Method != http.MethodGet && next.Method != http.MethodHead || next.Method != a.method {
		return next // the earlier answer was to the method enqueued
	}
	if hasConditions(next.Header) || !sameURL(next.URL, a.answeredBy()) {
		return next
	}
	out := *next
	out.Header = maps.Clone(next.Header)
	if out.Header == nil {
		out.Header = http.Header{}
	}
	if since.ETag != "" { // as it was, weak ones too: the comparison is a weak one (RFC 9110, section 13.1.2)
		out.Header["If-None-Match"] = []string{since.ETag}
	}
	if since.LastModified != "" { // as it was: the server knows its own date best (RFC 9110, section 13.1.3)
		out.Header["If-Modified-Since"] = []string{since.LastModified}
	}
	return &out
}

func hasConditions(h http.Header) bool {
	for name := range h {
		if ownConditions[http.CanonicalHeaderKey(name)] {
			return true
		}
	}
	return false
}

// sameURL compares a URL about to be asked with one that answered, which is told as the fetcher sends it.
func sameURL(canonical, answered string) bool {
	if canonical == answered {
		return true
	}
	c, err := url.Parse(canonical)
	if err != nil {
		return false
	}
	b, err := url.Parse(answered)
	return err == nil && c.String() == b.String()
}

// unchanged ends an attempt whose conditional exchange was answered by 304 (RFC 9110, section 15.4.5): the record refers
// to the earlier body.
func (a *attempt) unchanged(ctx context.Context, resp *fetch.Response) result {
	_ = resp.Body.Close() // there is none; this ends the exchange
	if err := a.keepRevisit(ctx, resp); err != nil {
		return a.unkept(resp, err)
	}
	since := a.request.Since
	out := a.end(resp, happening{status: resp.Status, unchanged: true},
		store.BodyRef{Bytes: since.Bytes, SHA256: since.SHA256, Body: since.Body})
	if r := out.record; r != nil {
		r.Unchanged, r.ContentType = true, since.ContentType
		if holds := since.HoldsBody(a.spec.Since); holds != a.batch.Job {
			r.BodyJob = string(holds)
		}
		r.Headers = confirmed(resp.Header, since)
	}
	return out
}

// keepRevisit hands the exchange to a store that archives exchanges. The record does not refer to it: its body is the
// earlier one.
func (a *attempt) keepRevisit(ctx context.Context, resp *fetch.Response) error {
	if !a.archives {
		return nil
	}
	since := a.request.Since
	meta := store.BodyMeta{URL: resp.URL, ContentType: since.ContentType, Hop: true, Exchange: a.exchangeOf(resp, nil),
		Refers: &store.Capture{URL: a.answeredBy(), At: since.FetchedAt}} // the digest of what was sent is not known
	w, err := a.unit.Body(ctx, meta)
	if err != nil {
		return err
	}
	defer w.Abort()
	_, err = w.Finish()
	return err
}

// answeredBy is the URL that gave the earlier answer.
func (a *attempt) answeredBy() string {
	if answered := a.request.Since.URL; answered != "" {
		return answered
	}
	return a.url
}

// confirmed are the header fields of a 304 with the validators that it confirmed and does not repeat: servers leave out
// Last-Modified beside an ETag. What is stored keeps them (RFC 9111, section 3.2), and a later job asks by them again.
func confirmed(h http.Header, since *tasks.Since) http.Header {
	out := maps.Clone(h)
	if out == nil {
		out = http.Header{}
	}
	if since.ETag != "" && out["Etag"] == nil {
		out["Etag"] = []string{since.ETag}
	}
	if since.LastModified != "" && out["Last-Modified"] == nil {
		out["Last-Modified"] = []string{since.LastModified}
	}
	return out
}
