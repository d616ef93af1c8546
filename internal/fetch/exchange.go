package fetch

import (
	"cmp"
	"context"
	"crypto/tls"
	"math"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/proxies"
)

// exchange is the life of one request: its clock, its limits and what was seen
// of it. One allocation holds all of it, answer and body included, because
// there is one per URL.
type exchange struct {
	// ctx lives as long as the exchange, which outlasts Do: it ends with the
	// body. Cancelling it is how net/http is told to give up.
	ctx    context.Context
	cancel context.CancelCauseFunc

	start            time.Time
	timeout, maxTime time.Duration
	idle             time.Duration // between bytes of the body
	patience         time.Duration // the shortest of its waits
	limits           Limits
	speed            speed
	maxBody          int64
	decode           bool

	// timer looks after all limits of time. It is not moved for every read:
	// readers only say in deadline when their patience ends, as nanoseconds
	// since start and 0 when nobody waits, and the timer looks there when it fires.
	timer    *time.Timer
	deadline atomic.Int64
	inBody   atomic.Bool
	slow     atomic.Bool // what ends at deadline is a span of speed
	done     atomic.Bool

	conn      *conn // nil until there is one
	reused    bool
	firstByte atomic.Int64 // nanoseconds since start; written by net/http's reader
	early     atomic.Bool  // over HTTP/1.1: the answer was there before the request
	total     time.Duration

	track    *track
	register *register
	secure   bool        // https
	refused  bool        // the connection got last was about to be closed: nothing was sent on it
	holds    *conn       // under the register's lock, as the next
	waitsAt  *hostConns  // where it waits for a connection, nil when it does not
	queued   *slotWaiter // the dial made for it, while that waits for a slot

	forward *proxies.Proxy // the proxy that the request is handed to, nil without one

	trace    httptrace.ClientTrace
	request  *http.Request // once there is an answer
	tls      *tls.ConnectionState
	response Response
	body     body
}

func newExchange(ctx context.Context, r *Request, conns *register) *exchange {
	x := &exchange{
		start:    time.Now(),
		timeout:  cmp.Or(r.Timeout, 30*time.Second),
		maxTime:  cmp.Or(r.MaxTime, time.Hour),
		maxBody:  cmp.Or(r.MaxBody, 1<<30),
		limits:   r.Limits,
		speed:    newSpeed(&r.Limits),
		register: conns,
	}
	x.idle = cmp.Or(r.IdleTimeout, x.timeout)
	if x.patience = min(x.timeout, x.idle); x.speed.quota > 0 {
		x.patience = min(x.patience, x.speed.span)
	}
	x.ctx, x.cancel = context.WithCancelCause(ctx)
	x.timer = time.AfterFunc(math.MaxInt64, x.look) // started when x.timer is set
	x.timer.Reset(min(x.patience, x.maxTime))
	return x
}

// traced returns the exchange's context with the hooks that watch net/http.
func (x *exchange) traced() context.Context {
	x.trace.GetConn = x.getConn
	x.trace.GotConn = x.gotConn
	x.trace.GotFirstResponseByte = x.gotFirstByte
	return httptrace.WithClientTrace(x.limits.withLimits(x.ctx), &x.trace)
}

// getConn: dialling has limits of its own, so the wait for headers is off. It
// is called again when net/http repeats a request on a fresh connection.
func (x *exchange) getConn(addr string) {
	x.rest()
	hangUp(x.register.wait(x, place{x.secure, addr}))
}

func (x *exchange) gotConn(info httptrace.GotConnInfo) {
	x.conn, x.reused = connOf(info.Conn), info.Reused
	if x.refused = !x.register.take(x, x.conn); x.refused {
		x.conn.Conn.Close() // whoever doomed it may not have come to it: not a byte may be written from here on
	} else if x.conn != nil {
		x.conn.talk.Store(ready)
	}
	x.early.Store(false)
	x.await()
}

// gotFirstByte comes before net/http may give the connection to the next exchange, which an answer without a body can do
// before it is handed over.
func (x *exchange) gotFirstByte() {
	x.firstByte.Store(int64(x.elapsed()))
	x.early.Store(x.reused && x.conn != nil && x.conn.talk.Load() != heard)
}

func (x *exchange) elapsed() time.Duration { return time.Since(x.start) }

// await starts a wait for headers, rest ends any wait.
func (x *exchange) await() { x.deadline.Store(int64(x.elapsed() + x.timeout)) }
func (x *exchange) rest()  { x.deadline.Store(0) }

// awaitBody starts a wait for more of the body.
func (x *exchange) awaitBody() {
	now, wait := x.elapsed(), x.idle
	if x.speed.quota > 0 {
		left := x.speed.left(now)
		x.slow.Store(left < wait)
		wait = min(wait, left)
	}
	x.deadline.Store(int64(now + wait))
}

// restBody ends it, with so many bytes, and reports whether they came fast enough.
func (x *exchange) restBody(n int) bool {
	x.rest()
	return x.speed.quota == 0 || x.speed.took(n, x.elapsed())
}

// tooSlow is the error of a body that comes slower than it may.
func (x *exchange) tooSlow() *Error {
	return fail(TooSlow, "body", "less than %d bytes/s over %v", x.limits.MinSpeed, x.speed.span)
}

// expiry is the cause with which an exchange is cancelled when time is up. It
// is a type of its own so that a cause from the caller is never taken for it.
type expiry struct{ reason *Error }

// Error says which limit was reached.
func (e expiry) Error() string { return e.reason.Error() }

// look is the timer's function: it ends the exchange or comes back when the
// next limit could be reached.
func (x *exchange) look() {
	if x.done.Load() {
		return
	}
	now, deadline := x.elapsed(), time.Duration(x.deadline.Load())
	switch {
	case now >= x.maxTime:
		x.cancel(expiry{fail(TotalTimeout, x.step(), "not finished within %v", x.maxTime)})
	case deadline == 0: // a wait that starts from now on ends later than this
		x.timer.Reset(min(x.patience, x.maxTime-now))
	case now < deadline:
		x.timer.Reset(min(deadline-now, x.patience, x.maxTime-now)) // the next wait may be a shorter one
	case x.inBody.Load() && x.slow.Load():
		x.cancel(expiry{x.tooSlow()})
	case x.inBody.Load():
		x.cancel(expiry{fail(IdleTimeout, "body", "no byte for %v", x.idle)})
	default:
		x.cancel(expiry{fail(HeaderTimeout, "headers", "no response headers within %v", x.timeout)})
	}
}

// pause waits for so long, and reports whether the exchange is still to go on.
func (x *exchange) pause(d time.Duration) bool {
	if d == 0 {
		return x.ctx.Err() == nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-x.ctx.Done():
		return false
	}
}

func (x *exchange) step() string {
	if x.inBody.Load() {
		return "body"
	}
	return "headers"
}

// explain turns what net/http reported into an *Error. The reasons that ended
// the context come first, because net/http's report is then only their echo.
func (x *exchange) explain(op string, classify func(error) Class, err error) *Error {
	switch cause := context.Cause(x.ctx).(type) {
	case nil:
	case expiry:
		return cause.reason
	default:
		return &Error{Class: Canceled, Op: op, Err: cause}
	}
	if e, ok := asError(err); ok { // from the dialer, already classified
		return e
	}
	return &Error{Class: classify(err), Op: op, Err: err}
}

// finish ends the exchange's clock and frees what watched it. Only the first
// call does anything.
func (x *exchange) finish() {
	if x.done.Swap(true) {
		return
	}
	x.total = x.elapsed()
	x.timer.Stop()
	x.cancel(nil)
	hangUp(x.register.leave(x))
	x.track.leave()
}

// hangUp closes an idle connection that is to go, if it is not nil.
func hangUp(c net.Conn) {
	if c != nil {
		_ = c.Close() // nobody is there to whom its error would matter
	}
}
