package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/proxies"
)

// conn is a connection that remembers where it leads and what it cost to make,
// so that an exchange pays nothing for knowing.
type conn struct {
	net.Conn
	remote            string
	dns, connect, tls time.Duration
	talk              atomic.Int32 // how far question and answer are; meaningless over HTTP/2

	// What the register knows of it, under the register's lock.
	register *register
	outer    net.Conn   // what net/http holds: this conn, or TLS above it
	home     *hostConns // nil before it is added and after it is removed
	uses     int        // exchanges under way on it; HTTP/2 has several
	served   int        // exchanges that it was given to
	fresh    bool       // no exchange has had it yet
	doomed   bool       // about to be closed: not to be used
	lead     *lead      // others wait until it is in use

	slot      *hostConns // where it counts against the limits, nil when it does not
	born      time.Time  // when it was added
	idleSince time.Time  // when the last exchange left it
	release   func()     // tells whoever balances that it is closed; nil when nobody does
}

// The values of conn.talk. What is read before a question was begun is the answer to none: net/http notices it on an idle
// connection, but not before it may have given that connection to the next request.
const (
	ready int32 = 1 + iota // given to an exchange
	asked                  // its first byte is being written
	heard                  // something came after that
)

// Write implements net.Conn.
func (c *conn) Write(p []byte) (int, error) {
	c.talk.CompareAndSwap(ready, asked)
	return c.Conn.Write(p)
}

// Read implements net.Conn.
func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.talk.CompareAndSwap(asked, heard)
	}
	return n, err
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.register.remove(c)
	if c.release != nil {
		c.release() // which may be called again
	}
	return c.Conn.Close()
}

// connOf finds the conn below what net/http reports as the connection in use.
func connOf(c net.Conn) *conn {
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn()
	}
	own, _ := c.(*conn)
	return own
}

// dialer makes guarded connections and classifies what goes wrong.
type dialer struct {
	lane       lane
	gate       *gate
	reach      *reacher
	proxies    *proxies.Rules
	timeout    time.Duration // to wait for a slot, and to connect
	tls        *tls.Config
	proxyTLS   *tls.Config // for proxies: no job's certificate, and theirs is looked at whatever a job takes
	tlsTimeout time.Duration
	register   *register // of what was dialled
}

func newDialer(o Options) *dialer {
	return &dialer{
		register: newRegister(o.limits()),
		reach:    newReacher(o),
		proxies:  o.Proxies,
		timeout:  o.ConnectTimeout,

		proxyTLS:   laneTLS(o.TLSConfig, lane{version: HTTP1}, nil),
		tlsTimeout: o.TLSTimeout,
	}
}

// dial resolves and connects; it is a Transport's DialContext.
func (d *dialer) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	p := place{tls: false, addr: addr}
	if d.lane.version != HTTP2 { // without TLS a server is asked in HTTP/1.1, unless it is known to speak HTTP/2
		return d.open(ctx, p, nil)
	}
	lead, err := d.gate.enter(ctx, p, connectLimit(ctx, d.timeout))
	if err != nil {
		return nil, err
	}
	return d.open(ctx, p, lead)
}

func (d *dialer) open(ctx context.Context, p place, lead *lead) (net.Conn, error) {
	c, err := d.connect(ctx, p)
	if err != nil {
		lead.end()
		return nil, err
	}
	d.gate.connected(c, p, lead, d.lane.version == HTTP2)
	d.register.add(c, p, c)
	return c, nil
}

func (d *dialer) connect(ctx context.Context, p place) (*conn, error) {
	t := tripOf(ctx)
	timeout := connectLimit(ctx, d.timeout)
	slot, err := d.register.claim(ctx, p, t.x, timeout)
	if err != nil {
		return nil, dialError(p.addr, err)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	start := time.Now()
	l, err := d.route(ctx, p, t)
	if err != nil {
		d.register.vacate(slot)
		d.register.failed.Add(1)
		return nil, dialError(p.addr, err)
	}
	return &conn{
		Conn:    l.Conn,
		remote:  l.RemoteAddr().String(),
		dns:     l.dns,
		connect: time.Since(start) - l.dns,

		register: d.register,
		slot:     slot,
		release:  l.release,
	}, nil
}

// dialError classifies what came of a dial to addr. A refusal by the guard is one wherever it arose, on the way to a proxy or
// to Consul, too.
func dialError(addr string, err error) *Error {
	e, classified := asError(err)
	if _, refused := errors.AsType[*refusedError](err); refused {
		if classified {
			return &Error{Class: AddressRefused, Op: e.Op, Err: e.Err}
		}
		host, _, _ := net.SplitHostPort(addr)
		return refusal(host, err)
	}
	if classified {
		return e
	}
	return &Error{Class: classifyDial(err), Op: "dial", Err: err}
}

// refusal is the guard's no about an address of host; nil if err is something else.
func refusal(host string, err error) *Error {
	refused, ok := errors.AsType[*refusedError](err)
	if !ok {
		return nil
	}
	named := *refused
	named.host = host
	return &Error{Class: AddressRefused, Op: "dial", Err: &named}
}

// dialTLS connects and shakes hands; it is a Transport's DialTLSContext. The
// handshake is done here, not in the Transport, for its errors and its timing.
func (d *dialer) dialTLS(ctx context.Context, _, addr string) (net.Conn, error) {
	p := place{tls: true, addr: addr}
	forward := tripOf(ctx).forward != nil // the server is a proxy, to which net/http speaks HTTP/1.1
	var lead *lead
	if !forward {
		var err error
		if lead, err = d.gate.enter(ctx, p, min(connectLimit(ctx, d.timeout), tlsLimit(ctx, d.tlsTimeout))); err != nil {
			return nil, err
		}
	}
	c, t, err := d.shake(ctx, p, forward)
	if err != nil {
		lead.end()
		return nil, err
	}
	if !forward {
		d.gate.connected(c, p, lead, t.ConnectionState().NegotiatedProtocol == "h2")
	}
	d.register.shook(t.ConnectionState().DidResume)
	d.register.add(c, p, t)
	return t, nil
}

func (d *dialer) shake(ctx context.Context, p place, forward bool) (*conn, *tls.Conn, error) {
	c, err := d.connect(ctx, p)
	if err != nil {
		return nil, nil, err
	}
	config := d.tls.Clone()
	if forward {
		config = d.proxyTLS.Clone()
	}
	if config.ServerName == "" {
		config.ServerName, _, _ = net.SplitHostPort(p.addr)
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, tlsLimit(ctx, d.tlsTimeout))
	defer cancel()
	t := tls.Client(c, config)
	if err := t.HandshakeContext(ctx); err != nil {
		_ = c.Close() // the handshake's error is the one that matters
		return nil, nil, &Error{Class: classifyTLS(err), Op: "tls", Err: handshakeError{config.ServerName, err}}
	}
	if err := d.lane.wants(t.ConnectionState().NegotiatedProtocol); err != nil && !forward {
		_ = c.Close()
		return nil, nil, err
	}
	c.tls = time.Since(start)
	return c, t, nil
}

// handshakeError names the host whose handshake failed.
type handshakeError struct {
	host string
	err  error
}

// Error names the host and what went wrong.
func (e handshakeError) Error() string { return "handshake with " + e.host + ": " + e.err.Error() }

// Unwrap returns what went wrong.
func (e handshakeError) Unwrap() error { return e.err }
