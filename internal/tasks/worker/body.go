package worker

import (
	"cmp"
	"context"
	"errors"
	"io"
	"slices"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/charset"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// keeper is a body on its way into the store.
type keeper struct {
	store.BodyWriter
	archive store.ExchangeWriter // the same, where it keeps exchanges
	coded   bool                 // it is to have the body as sent, too
	moves   *download            // where it is large
	text    charset.Sniffer      // of the decoded body
	err     error                // the first that Sent returned
}

// openBody begins to keep the body of an answer. hop says that the answer is a redirect on the way.
func (a *attempt) openBody(ctx context.Context, resp *fetch.Response, hop bool) (*keeper, error) {
	meta := store.BodyMeta{URL: resp.URL, ContentType: resp.ContentType, Hop: hop}
	if a.archives {
		meta.Exchange = a.exchangeOf(resp, a.sent)
	}
	k, err := a.keeper(ctx, meta)
	if err == nil && !hop {
		k.text = textOf(resp)
	}
	return k, err
}

// keeper begins a body of the unit.
func (a *attempt) keeper(ctx context.Context, meta store.BodyMeta) (*keeper, error) {
	w, err := a.unit.Body(ctx, meta)
	if err != nil {
		return nil, err
	}
	k := &keeper{BodyWriter: w}
	if a.archives {
		k.archive, _ = w.(store.ExchangeWriter)
		k.coded = k.archive != nil && meta.Exchange != nil && meta.Exchange.Coded
	}
	return k, nil
}

// secret are the fields of a request that are never archived. With them go those whose value was made of references.
var secret = []string{"Authorization", "Cookie", "Proxy-Authorization"}

// exchangeOf is what a store that archives exchanges is told of one. sent is the request's body.
func (a *attempt) exchangeOf(resp *fetch.Response, sent []byte) *store.Exchange {
	method, target, header := resp.Sent()
	for _, name := range slices.Concat(secret, a.worn.secret) {
		header.Del(name)
	}
	return &store.Exchange{
		Method: method, Target: target, Request: header, RequestBody: sent,
		Status: resp.Status, Reason: resp.Reason, Response: resp.Header,
		Protocol: resp.Protocol, RemoteAddr: resp.RemoteAddr, At: resp.Began().UTC(), Coded: resp.Coded(),
	}
}

var copyBuffers = sync.Pool{New: func() any { b := make([]byte, 32<<10); return &b }}

// take streams the body of an answer. An error of the server's is a *fetch.Error, any other is the store's.
func (k *keeper) take(resp *fetch.Response) error {
	if k.coded || k.moves != nil {
		resp.Watch(k.see)
	}
	return stream(resp.Body, k)
}

// see takes a piece of the body as it was sent.
func (k *keeper) see(p []byte) {
	if k.moves != nil {
		k.moves.have.Add(int64(len(p)))
	}
	if k.coded {
		k.sent(p)
	}
}

// stream copies a body into the store. An error of the server's is a *fetch.Error, any other is the store's.
func stream(body io.Reader, to io.Writer) error {
	buffer := copyBuffers.Get().(*[]byte)
	defer copyBuffers.Put(buffer)
	for {
		n, readErr := body.Read(*buffer)
		if n > 0 {
			if _, err := to.Write((*buffer)[:n]); err != nil {
				return err
			}
		}
		if errors.Is(readErr, io.EOF) {
			return nil
		}
		if readErr != nil {
			return readErr
		}
	}
}

// sent hands on a piece of the body as it was sent.
func (k *keeper) sent(p []byte) {
	if k.err == nil {
		_, k.err = k.archive.Sent(p)
	}
}

// Write takes decoded bytes. It also tells what became of those as sent.
func (k *keeper) Write(p []byte) (int, error) {
	if k.err != nil {
		return 0, k.err
	}
	k.text.See(p)
	return k.BodyWriter.Write(p)
}

// Finish ends the body.
func (k *keeper) Finish() (store.BodyRef, error) {
	if k.err != nil {
		return store.BodyRef{}, k.err
	}
	return k.BodyWriter.Finish()
}

// passBy ends a redirect on the way: nobody wants its body but an archive.
func (a *attempt) passBy(ctx context.Context, resp *fetch.Response) {
	defer func() { _ = resp.Body.Close() }()
	if !a.archives {
		return
	}
	w, err := a.openBody(ctx, resp, true)
	if err == nil {
		defer w.Abort()
		if err = w.take(resp); err == nil {
			_, err = w.Finish()
		}
	}
	var broken *fetch.Error
	switch {
	case err == nil, errors.Is(err, store.ErrRecord): // the redirect is good all the same
	case errors.As(err, &broken):
		a.keepCut(w, err)
	default:
		a.storeErr.CompareAndSwap(nil, &err)
	}
}

// keepCut keeps what there is of a body that did not come whole, where the store wants it.
func (a *attempt) keepCut(w *keeper, cause error) {
	var broken *fetch.Error
	if w.archive == nil || !errors.As(cause, &broken) || w.err != nil {
		return
	}
	err := w.archive.Cut(cutReason(broken.Class))
	if err != nil && !errors.Is(err, store.ErrRecord) {
		a.storeErr.CompareAndSwap(nil, &err)
	}
}

// cutReason says in the words of WARC 1.1, section 5.13, why a body is not whole.
func cutReason(class fetch.Class) string { return cmp.Or(cutReasons[class], "unspecified") }

var cutReasons = map[fetch.Class]string{
	fetch.BodyTooLarge: "length", fetch.DecodeTooLarge: "length", fetch.DecodeRatio: "length",
	fetch.IdleTimeout: "time", fetch.TooSlow: "time", fetch.TotalTimeout: "time",
	fetch.BodyCut: "disconnect", fetch.Reset: "disconnect",
}
