package fetch

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"github.com/fetchfleet/fetchfleet/internal/fetch/discover"
)

// quicPool keeps a lane's connections of HTTP/3 (RFC 9114), one to each place: streams share it.
type quicPool struct {
	dialer   *dialer
	idleTime time.Duration
	client   http3.Transport // only makes its ClientConns

	mu    sync.Mutex
	conns map[string]*quicConn // by address as dialled, host:port
}

func newQUICPool(d *dialer, o Options) *quicPool {
	return &quicPool{
		dialer: d, idleTime: o.IdleConnTimeout, conns: map[string]*quicConn{},
		client: http3.Transport{MaxResponseHeaderBytes: int(o.MaxHeaderBytes), DisableCompression: true},
	}
}

// quicConn is a connection that is being made, or is there once ready is closed and err is nil.
type quicConn struct {
	conn
	pool  *quicPool
	addr  string
	ready chan struct{}
	err   error
	http  *http3.ClientConn
	idle  *time.Timer
	seen  int // how many exchanges it had served when its idle time was looked at last
}

// quicSocket stands in a conn for what it has no use for: QUIC is no stream of bytes. Only its Close is called.
type quicSocket struct {
	net.Conn
	close func()
}

// Close implements net.Conn.
func (s quicSocket) Close() error {
	s.close()
	return nil
}

// roundTrip makes an exchange over a connection to addr. Where that had ended before anything was sent, over another.
func (p *quicPool) roundTrip(x *exchange, r *Request, req *http.Request, addr string, limit time.Duration) (*http.Response, error) {
	for {
		x.getConn(addr)
		c, reused, err := p.get(x.ctx, addr, limit)
		if err != nil {
			return nil, err
		}
		x.conn, x.reused = &c.conn, reused
		if !x.register.take(x, &c.conn) {
			_ = c.Close()
			continue
		}
		x.await()
		answer, err := c.http.RoundTrip(req)
		if err == nil {
			return bodiless(req, answer), nil
		}
		// quic-go keeps the type of this error to itself. It has opened no stream.
		if !reused || x.ctx.Err() != nil || !strings.HasPrefix(err.Error(), "http3: conn unusable") {
			return nil, err
		}
		p.forget(c)
		again := *req
		setBody(&again, r.Body)
		req = &again
	}
}

// bodiless takes away the body of an answer that has none (RFC 9110, section 6.4.1), whatever length it names.
func bodiless(req *http.Request, answer *http.Response) *http.Response {
	s := answer.StatusCode
	if req.Method == http.MethodHead || s == http.StatusNoContent || s == http.StatusNotModified {
		_ = answer.Body.Close()
		answer.Body = http.NoBody
	}
	return answer
}

// get returns a connection to addr. The first to ask for one makes it, the others wait; a dial that nobody waits for any more
// ends by itself within the limit.
func (p *quicPool) get(ctx context.Context, addr string, limit time.Duration) (c *quicConn, reused bool, err error) {
	p.mu.Lock()
	c = p.conns[addr]
	reused = c != nil
	if c == nil {
		c = &quicConn{pool: p, addr: addr, ready: make(chan struct{})}
		p.conns[addr] = c
		go c.dial(context.WithoutCancel(ctx), limit)
	}
	p.mu.Unlock()
	select {
	case <-c.ready:
		return c, reused, c.err
	case <-ctx.Done():
		return nil, false, ctx.Err()
	}
}

// forget gives the connection to no further exchange.
func (p *quicPool) forget(c *quicConn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.conns[c.addr] == c {
		delete(p.conns, c.addr)
	}
}

// closeIdle closes the connections that no exchange uses.
func (p *quicPool) closeIdle() {
	p.mu.Lock()
	var all []*quicConn
	for _, c := range p.conns {
		select {
		case <-c.ready:
			all = append(all, c)
		default: // somebody waits for it
		}
	}
	p.mu.Unlock()
	for _, c := range all {
		if _, idle := p.dialer.register.retire(&c.conn, -1); idle {
			_ = c.Close()
		}
	}
}

// dial makes the connection and says so by closing ready.
func (c *quicConn) dial(ctx context.Context, limit time.Duration) {
	defer close(c.ready)
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	q, err := c.connect(ctx)
	if err != nil {
		c.err = err
		c.pool.forget(c)
		return
	}
	c.remote = q.RemoteAddr().String()
	c.http = c.pool.client.NewClientConn(q)
	c.register = c.pool.dialer.register
	c.Conn = quicSocket{close: func() {
		c.pool.forget(c)
		_ = q.CloseWithError(quic.ApplicationErrorCode(http3.ErrCodeNoError), "") // of one that has ended it is nothing new
	}}
	c.register.add(&c.conn, place{tls: true, addr: c.addr}, c)
	c.idle = time.AfterFunc(c.pool.idleTime, c.look)
	context.AfterFunc(q.Context(), func() {
		c.idle.Stop()
		_ = c.Close()
	})
}

// look closes a connection that has been of no use for the idle time; it comes again after as long.
func (c *quicConn) look() {
	<-c.ready // orders what dial has written before what is read here
	served, idle := c.register.retire(&c.conn, c.seen)
	if idle {
		_ = c.Close()
		return
	}
	c.seen = served
	c.idle.Reset(c.pool.idleTime)
}

// connect looks the host up and tries its addresses one after the other, each with its share of the time.
func (c *quicConn) connect(ctx context.Context) (*quic.Conn, error) {
	d := c.pool.dialer
	host, port, err := splitAddr(c.addr)
	if err != nil {
		return nil, &Error{Class: Other, Op: "dial", Err: err}
	}
	start := time.Now()
	addrs, err := d.reach.servers(ctx, host, port)
	if err != nil {
		return nil, dialError(c.addr, err)
	}
	c.dns = lookupTime(host, start)
	var first error
	for i, addr := range addrs {
		q, err := c.shake(ctx, addr, host, len(addrs)-i)
		if err == nil {
			return q, nil
		}
		if first == nil {
			first = err
		}
		if class := ClassOf(err); class == TLS || class == TLSCertificate || ctx.Err() != nil {
			break
		}
	}
	return nil, first
}

// servers returns the addresses of the servers of host: those that a rule names, or those of the name.
func (r *reacher) servers(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	set, err := r.services.Find(ctx, host, port)
	if err != nil {
		return nil, &Error{Class: DNSTemporary, Op: "dial", Err: err}
	}
	if set == nil {
		return r.ports(ctx, host, port)
	}
	var all []netip.AddrPort
	for _, m := range set.Order() {
		found, lookup := r.ports(ctx, m.Host, cmp.Or(m.Port, port))
		all, err = append(all, found...), cmp.Or(err, lookup)
	}
	if len(all) > 0 {
		return all, nil
	}
	return nil, cmp.Or(err, error(fail(DNSTemporary, "dial", "find servers of %s: %w", host, discover.ErrNone)))
}

// ports returns the addresses of a name, with a port.
func (r *reacher) ports(ctx context.Context, host string, port uint16) ([]netip.AddrPort, error) {
	addrs, err := r.addresses(ctx, host)
	all := make([]netip.AddrPort, len(addrs))
	for i, a := range addrs {
		all[i] = netip.AddrPortFrom(a, port)
	}
	return all, err
}

// shake makes a connection to one address: the guard is asked, as for TCP, before a packet leaves. Connecting and the TLS
// handshake are one in QUIC.
func (c *quicConn) shake(ctx context.Context, to netip.AddrPort, host string, left int) (*quic.Conn, error) {
	d := c.pool.dialer
	if err := d.reach.guard.control(ctx, "udp", to.String(), nil); err != nil {
		return nil, dialError(c.addr, err)
	}
	if end, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Until(end)/time.Duration(left))
		defer cancel()
	}
	start := time.Now()
	q, err := dialQUIC(ctx, d.reach.sources.next(to.Addr()), to, d.quicTLS(host), c.pool.idleTime)
	if err != nil {
		return nil, &Error{Class: classifyQUICDial(err), Op: "dial", Err: quicError{to.String(), err}}
	}
	c.tls = time.Since(start)
	return q, nil
}

func (d *dialer) quicTLS(host string) *tls.Config {
	config := d.tls.Clone()
	config.NextProtos = []string{http3.NextProtoH3}
	config.MinVersion = tls.VersionTLS13
	if config.ServerName == "" {
		config.ServerName = host
	}
	return config
}

// keepQUIC is how often a quiet connection is shown to be alive: a server that thinks for long must not end it.
const keepQUIC = 15 * time.Second

// dialQUIC makes a connection on a socket of its own, which is closed when the connection has ended.
func dialQUIC(ctx context.Context, from netip.Addr, to netip.AddrPort, config *tls.Config, idle time.Duration) (*quic.Conn, error) {
	network := "udp4"
	if to.Addr().Is6() {
		network = "udp6"
	}
	var local *net.UDPAddr
	if from.IsValid() {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	socket, err := net.ListenUDP(network, local)
	if err != nil {
		return nil, err
	}
	transport := &quic.Transport{Conn: socket}
	end := func() {
		_ = transport.Close()
		_ = socket.Close()
	}
	q, err := transport.Dial(ctx, net.UDPAddrFromAddrPort(to), config, &quic.Config{
		HandshakeIdleTimeout: handshakeLimit(ctx), MaxIdleTimeout: max(idle, 2*keepQUIC), KeepAlivePeriod: keepQUIC,
		MaxIncomingStreams: -1, // a server has none to open (RFC 9114, section 6.1)
	})
	if err != nil {
		end()
		return nil, err
	}
	context.AfterFunc(q.Context(), end)
	return q, nil
}

// handshakeLimit is the time that ctx leaves, because quic-go's own limit of 5 s would come before a longer one.
func handshakeLimit(ctx context.Context) time.Duration {
	if end, ok := ctx.Deadline(); ok {
		return max(time.Until(end), time.Millisecond)
	}
	return 0
}

// quicError says to whom a connection could not be made.
type quicError struct {
	to  string
	err error
}

// Error names the address and what went wrong.
func (e quicError) Error() string {
	if errors.Is(e.err, context.DeadlineExceeded) {
		return "quic to " + e.to + ": nobody answers there over UDP"
	}
	return "quic to " + e.to + ": " + e.err.Error()
}

// Unwrap returns what went wrong.
func (e quicError) Unwrap() error { return e.err }
