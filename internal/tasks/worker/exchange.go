package worker

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"slices"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// hop is a request that a redirect sends to another host.
type hop struct {
	host    string
	request tasks.Request
}

// attempt is one request of the batch on its way.
type attempt struct {
	*visitRun
	request *tasks.Request
	id      tasks.RequestID
	url     string // as enqueued
	method  string // as enqueued
	hops    []tasks.Hop
	at      time.Time
	sent    []byte // the body of the exchange under way
	part    partial
	charset string // of the body, once there is one
	worn    worn
}

// attempt begins an attempt at request i of the batch.
func (v *visitRun) attempt(i int) *attempt {
	a := &attempt{visitRun: v, request: &v.batch.Requests[i], at: time.Now()}
	a.id, a.url, a.method = a.request.Identity(v.batch.Job, &v.spec)
	a.hops = slices.Clone(a.request.Redirects)
	return a
}

// request fetches one request of the batch, with its redirects at the same host. start ends waits for a turn.
func (v *visitRun) request(ctx, start context.Context, i int) (out result) {
	a := v.attempt(i)
	next, err := a.first(ctx)
	if err == nil {
		err = a.readJar(ctx)
	}
	if errors.Is(err, ledger.ErrNoBody) {
		return a.end(nil, happening{class: classBodyLost, message: err.Error()}, store.BodyRef{})
	}
	if err != nil { // Redis is away
		return result{begun: true, verdict: verdict{step: stepBack}}
	}
	if err := a.takePart(ctx); err != nil {
		return a.unkept(nil, err)
	}
	defer func() { a.endPart(ctx, &out) }()
	for {
		asked := a.ranged(next)
		if !a.part.asked {
			asked = a.conditional(next)
		}
		a.sent = next.Body
		dressed, err := a.dress(ctx, asked)
		if err != nil {
			return a.failed(nil, err)
		}
		resp, err := v.fetcher.Do(ctx, dressed)
		if err != nil {
			return a.unanswered(ctx, err)
		}
		a.teach(ctx, v.visit, resp)
		a.learnCookies(asked, resp)
		if a.challenged(ctx, asked, resp) {
			a.passBy(ctx, resp)
			if v.visit.Turn(start) != nil {
				return result{begun: true, verdict: verdict{step: stepBack}}
			}
			continue
		}
		if asked != next && !a.part.asked && resp.Status == http.StatusNotModified {
			return a.unchanged(ctx, resp)
		}
		follow, redirected, err := a.redirect(next, resp)
		if err != nil {
			_ = resp.Body.Close()
			return a.failed(resp, err)
		}
		if a.misfits(resp) {
			_ = resp.Body.Close()
			if err := a.dropPart(); err != nil {
				return a.unkept(resp, err)
			}
			if v.visit.Turn(start) != nil {
				return result{begun: true, verdict: verdict{step: stepBack}}
			}
			continue
		}
		if !redirected {
			return a.answered(ctx, resp)
		}
		a.passBy(ctx, resp)
		target, err := a.follow(resp, follow)
		if err != nil {
			return a.failed(resp, err)
		}
		goesOn := result{begun: true, hop: &hop{host: target.Host, request: a.hopped(next, follow)}}
		if target.Host != v.batch.Host {
			return goesOn
		}
		if why, refused := v.refusal(follow.URL); refused {
			return a.end(resp, why, store.BodyRef{})
		}
		if err := v.visit.Turn(start); err != nil { // too far away to wait for: what it has come through is not lost
			return goesOn
		}
		next = follow
	}
}

// first builds the exchange that the request begins with.
func (a *attempt) first(ctx context.Context) (*fetch.Request, error) {
	r, spec := a.request, &a.spec
	out := &fetch.Request{
		Method: r.EffectiveMethod(spec), URL: r.URL, Body: r.Body, UserAgent: a.userAgent(),
		Timeout: r.HeaderTimeout(spec), MaxTime: r.WholeTime(spec), MaxBody: spec.MaxBody, Limits: limits(r, spec),
		Header: http.Header(r.Header), HTTP: fetch.Version(spec.HTTP), Insecure: spec.Insecure,
	}
	if r.BodyKey != "" {
		body, err := a.ledger.Body(ctx, a.batch.Job, r.BodyKey)
		if err != nil {
			return nil, err
		}
		out.Body = body
	}
	if r.Origin != "" { // its headers and body are those of the hop, whole
		return out, nil
	}
	if out.Body == nil {
		out.Body = spec.Data
	}
	if len(spec.Header) > 0 {
		out.Header = maps.Clone(http.Header(spec.Header))
		maps.Copy(out.Header, http.Header(r.Header))
	}
	wanted(out, &spec.Wants)
	return out, nil
}

// follow checks the next hop of a redirect and notes the one that led there.
func (a *attempt) follow(resp *fetch.Response, next *fetch.Request) (canon.URL, error) {
	if most := a.spec.Redirects(); len(a.hops) >= most {
		return canon.URL{}, &fetch.Error{Class: fetch.TooManyRedirects, Op: "redirect", Err: fmt.Errorf("more than %d redirects", most)}
	}
	target, err := canon.Parse(next.URL)
	if err != nil {
		return target, &fetch.Error{Class: fetch.RedirectInvalid, Op: "redirect", Err: err}
	}
	if most := a.spec.URLLimit(); len(target.Href) > most {
		return target, &fetch.Error{Class: fetch.RedirectInvalid, Op: "redirect", Err: fmt.Errorf("the URL is longer than %d bytes", most)}
	}
	a.hops = append(a.hops, tasks.Hop{URL: resp.URL, Status: resp.Status})
	next.URL = target.Href
	return target, nil
}

// hopped is the request as it leaves for another host: the same id, and what the hop is made of.
func (a *attempt) hopped(last, next *fetch.Request) tasks.Request {
	r := *a.request
	r.ID, r.Origin, r.OriginMethod = a.id, a.url, a.method
	r.URL, r.Method, r.Redirects = next.URL, next.Method, a.hops
	r.Header = tasks.Header(next.Header)
	switch {
	case len(next.Body) == 0:
		r.Body, r.BodyKey = nil, ""
	case r.BodyKey == "":
		r.Body = last.Body
	}
	return r
}

// unanswered ends an attempt to which no answer came. When the host was in trouble already and this was to find out
// whether it is back, it was no attempt.
func (a *attempt) unanswered(ctx context.Context, err error) result {
	class := fetch.ClassOf(err)
	if l := lesson(class); l != hosts.Nothing {
		a.visit.Learn(ctx, l, 0)
	}
	if silent[class] && a.visit.Probe() {
		return result{begun: true, verdict: verdict{step: stepBack}}
	}
	return a.failed(nil, err)
}

// failed ends an attempt that brought no whole answer. resp is that of the last exchange, if there was one.
func (a *attempt) failed(resp *fetch.Response, err error) result {
	class := fetch.ClassOf(err)
	h := happening{class: string(class), message: err.Error(), canceled: class == fetch.Canceled, lasting: lasting(err)}
	return a.end(resp, h, store.BodyRef{})
}

// answered takes an answer: its body goes into the store if it is final.
func (a *attempt) answered(ctx context.Context, resp *fetch.Response) result {
	h := happening{status: resp.Status}
	if !h.ok() {
		h.retryAfter, h.asked = fetch.RetryAfter(resp.Header, time.Now())
	}
	if v := a.decide(h); v.step != stepRecord {
		_ = resp.Body.Close()
		return result{begun: true, verdict: v, err: h.text()}
	}
	if why, refused := a.unwanted(resp); refused {
		_ = resp.Body.Close()
		return a.end(resp, why, store.BodyRef{})
	}
	large, err := a.openPart(ctx, resp)
	if large && err == nil {
		return a.download(ctx, resp)
	}
	var w *keeper
	if err == nil {
		w, err = a.openBody(ctx, resp, false)
	}
	if err != nil {
		_ = resp.Body.Close()
		return a.unkept(resp, err)
	}
	defer w.Abort()
	if a.spec.Resumes(resp.ContentLength) && a.method != http.MethodHead { // it cannot go on from where it is, but people want to see it
		w.moves = a.noteDownload(ctx, resp.URL, 0, resp.ContentLength)
	}
	var ref store.BodyRef
	if err = w.take(resp); err == nil {
		ref, err = w.Finish()
		a.charset = w.text.Charset()
	}
	a.downloads.remove(w.moves)
	_ = resp.Body.Close() // after its end this frees the connection and nothing else
	if err == nil {
		return a.end(resp, h, ref)
	}
	if w.moves != nil { // nothing of it is kept
		a.tellCut(ctx, w.moves, 0)
	}
	out := a.unkept(resp, err)
	if out.record != nil {
		a.keepCut(w, err)
	}
	return out
}

// unkept ends an attempt whose body did not come to rest: by an error of the server's, which is a *fetch.Error, or else
// of the store's.
func (a *attempt) unkept(resp *fetch.Response, err error) result {
	var broken *fetch.Error
	switch {
	case errors.Is(err, store.ErrBusy):
		return a.later()
	case errors.As(err, &broken):
		return a.failed(resp, err)
	case errors.Is(err, store.ErrRecord):
		return a.end(resp, happening{class: classStore, message: err.Error()}, store.BodyRef{})
	}
	a.storeErr.CompareAndSwap(nil, &err)
	return result{begun: true, verdict: verdict{step: stepBack}}
}

func (a *attempt) decide(h happening) verdict {
	return decide(h, a.past, a.request, &a.spec, a.rule, a.now(), rand.Float64())
}

// end asks the outcome table what follows, and writes the record if the happening is final.
func (a *attempt) end(resp *fetch.Response, h happening, ref store.BodyRef) result {
	h.message = a.secrets.Redact(h.message) // what fails may quote what it was given
	v := a.decide(h)
	out := result{begun: true, verdict: v}
	if v.step != stepRecord {
		out.err = h.text()
		return out
	}
	r := &store.Record{
		ID: string(a.id), Job: string(a.batch.Job), Batch: string(a.batch.ID), Generation: a.generation,
		URL: a.url, FinalURL: a.request.URL, Method: a.method, Outcome: v.final.outcome(), Status: v.final.status,
		Attempts: v.past.attempts, Charset: a.charset, Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body,
		Insecure: a.spec.Insecure, FetchedAt: a.at.UTC(), ElapsedMS: ms(time.Since(a.at)), Worker: a.name, Meta: a.request.Meta,
	}
	for _, hop := range a.hops {
		r.Redirects = append(r.Redirects, store.Redirect(hop))
	}
	if resp != nil {
		describe(r, resp)
	}
	if !v.final.ok() {
		r.Error = &store.RecordError{Class: v.final.errorClass(), Message: v.final.text()}
	}
	out.record = r
	return out
}

// describe adds what is known of the answer.
func describe(r *store.Record, resp *fetch.Response) {
	t := resp.Timings()
	r.FinalURL, r.Headers, r.ContentType = resp.URL, resp.Header, resp.ContentType
	r.Protocol, r.RemoteAddr, r.ElapsedMS = resp.Protocol, resp.RemoteAddr, ms(t.Total)
	r.Timings = &store.Timings{DNS: ms(t.DNS), Connect: ms(t.Connect), TLS: ms(t.TLS), TTFB: ms(t.TTFB), Total: ms(t.Total)}
}

// ms is a duration in milliseconds, to the microsecond.
func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
