package enqueuer

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// Again is a request of an earlier job that is to be made once more.
type Again struct {
	Method string
	URL    string // canonical
	Meta   json.RawMessage
	Since  *tasks.Since // nil: the origin cannot be asked by it
}

// errSent ends a refetch whose sender has failed; what failed is the sender's to say.
var errSent = errors.New("the sender has failed")

// Refetch is Run for the requests of an earlier job instead of a list: each calls do with every one of them, in any
// order, and returns the error of do if there is one.
func (e *Enqueuer) Refetch(ctx context.Context, each func(ctx context.Context, do func(Again) error) error) error {
	return e.fill(ctx, func() error {
		err := each(ctx, func(a Again) error {
			if e.sender.failed() {
				return errSent
			}
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			e.again(a)
			return nil
		})
		switch {
		case errors.Is(err, errSent):
			return nil // wait returns why
		case ctx.Err() != nil:
			return context.Cause(ctx) // rather than what it did to each
		}
		return err
	})
}

// again puts one request into its host's batch.
func (e *Enqueuer) again(a Again) {
	n := e.lines.Add(1)
	u, err := canon.Parse(a.URL)
	if err != nil { // an earlier version took it
		e.bad.Add(1)
		if e.opts.OnBadLine != nil {
			e.opts.OnBadLine(lists.Line{Source: "job " + string(e.opts.Spec.Since), Number: n, Ordinal: n, Err: err})
		}
		return
	}
	p := pending{url: u.Href}
	if a.Method != e.opts.Spec.Method || a.Meta != nil || a.Since != nil {
		p.request = &tasks.Request{URL: u.Href, Meta: a.Meta, Since: a.Since}
		if a.Method != e.opts.Spec.Method {
			p.request.Method = a.Method
		}
	}
	e.put(u.Host, p)
}

// since adds to a request of the list what the earlier job has of it. Only GET and HEAD can be answered by 304
// (RFC 9110, section 15.4.5).
func (e *Enqueuer) since(p *pending) error {
	if e.opts.Earlier == nil {
		return nil
	}
	method, key := e.opts.Spec.Method, ""
	if r := p.request; r != nil {
		method, key = r.EffectiveMethod(&e.opts.Spec), r.Key
		if len(r.Body) > 0 || r.BodyKey != "" {
			return nil
		}
	}
	if method != "GET" && method != "HEAD" {
		return nil
	}
	s, err := e.opts.Earlier(method, p.url, key)
	if err != nil || s == nil {
		return err
	}
	if p.request == nil {
		p.request = &tasks.Request{URL: p.url}
	}
	p.request.Since = s
	return nil
}
