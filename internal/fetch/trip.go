package fetch

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"
)

// trip sends req over what its lane speaks: HTTP/3 where that is asked for, or where the server has said that it speaks it;
// otherwise, and when that fails, over TCP.
func (f *Fetcher) trip(x *exchange, r *Request, req *http.Request) (*http.Response, error) {
	l := x.track.lane
	if l.version == HTTP3 {
		return f.overQUIC(x, r, req)
	}
	if l.version != Auto || !x.secure || f.proxied(req) {
		return f.roundTrip(x, r, req)
	}
	who := originOf(l, req.URL)
	if addr := f.alternatives.of(who, time.Now()); addr != "" && f.ports.allowAddr(addr) {
		answer, err := x.track.quic.roundTrip(x, r, req, addr, min(altDialTime, f.connectTimeout(r)))
		if err == nil || x.ctx.Err() != nil {
			f.learn(who, req, answer)
			return answer, err
		}
		f.alternatives.shun(who, time.Now())
		if e, ok := asError(err); (!ok || e.Op != "dial") && !repeatable(req) { // it may have been sent
			return nil, err
		}
		again := *req
		setBody(&again, r.Body)
		req = &again
	}
	answer, err := f.roundTrip(x, r, req)
	f.learn(who, req, answer)
	return answer, err
}

// learn takes an answer's Alt-Svc; the answer may be nil.
func (f *Fetcher) learn(who origin, req *http.Request, answer *http.Response) {
	if answer != nil {
		f.alternatives.learn(who, req.URL, answer.Header["Alt-Svc"], time.Now())
	}
}

func (f *Fetcher) overQUIC(x *exchange, r *Request, req *http.Request) (*http.Response, error) {
	if !x.secure {
		return nil, fail(Protocol, "dial", "http URLs cannot be asked for over HTTP/3: it has no form without TLS")
	}
	if f.proxied(req) {
		return nil, fail(Protocol, "dial", "HTTP/3 does not go through a proxy")
	}
	return x.track.quic.roundTrip(x, r, req, addrOf(req.URL), f.connectTimeout(r))
}

// connectTimeout is the bound on connecting for r. Over QUIC it is that on the handshake as well.
func (f *Fetcher) connectTimeout(r *Request) time.Duration {
	return cmp.Or(r.ConnectTimeout, f.lanes.options.ConnectTimeout)
}

// proxied reports whether a request goes through a proxy. An error in saying so is for the dialer to find again.
func (f *Fetcher) proxied(req *http.Request) bool {
	return f.proxies.Any(req.URL)
}

// roundTrip hands req to net/http, and again where nothing was sent for want of a connection: the one it got was one that
// CloseIdle had chosen, or its dial was needless. In the first case net/http mostly repeats an HTTP/1.1 request by itself.
func (f *Fetcher) roundTrip(x *exchange, r *Request, req *http.Request) (*http.Response, error) {
	needless := 0
	for wait := time.Duration(0); ; wait = min(2*wait+repeatWait, maxRepeatWait) {
		answer, err := x.track.transport.RoundTrip(req)
		stray := err == nil && x.stray(answer)
		if stray {
			err = errStray
		}
		if err == nil {
			return answer, nil
		}
		unserved := errors.Is(err, errNeedless)
		if once := !x.refused && !unserved && (!stray || !repeatable(req)); once || !x.pause(wait) {
			return nil, err
		}
		again := *req // the old one may still be looked at
		setBody(&again, r.Body)
		req = &again
		x.refused = false
		if unserved {
			if needless++; needless == maxNeedless {
				req = req.WithContext(context.WithValue(req.Context(), pushy{}, true))
			}
		}
	}
}

// errStray is an answer that was there before its question: the server has sent more than it was asked for (response
// splitting). Whoever takes it for an answer takes the next request's answer for the one after it.
var errStray = fail(Reset, "headers", "the answer came before the request")

// stray reports whether the answer is one to nobody's question, and closes its connection.
func (x *exchange) stray(answer *http.Response) bool {
	if answer.ProtoMajor != 1 || !x.early.Load() {
		return false
	}
	_ = x.conn.Conn.Close() // before the body, so that net/http does not keep it
	_ = answer.Body.Close()
	return true
}

// Waits before a request is repeated, but for the first time: net/http's pool needs a moment to see that a connection is gone.
const (
	repeatWait    = 100 * time.Microsecond
	maxRepeatWait = 20 * time.Millisecond
)
