package fetch

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/proxy"

	"github.com/fetchfleet/fetchfleet/internal/fetch/proxies"
)

// Requests of http URLs are handed to an HTTP proxy by net/http, which then has connections to the proxy. Everything else,
// that is https and whatever goes through SOCKS, is a tunnel that the dialer makes: to net/http and to the register such a
// connection leads to its target, like a direct one.

// trip is what the dialer has to know about the exchange for which it dials.
type trip struct {
	x       *exchange
	forward *proxies.Proxy   // the connection is to lead to this proxy itself
	via     []*proxies.Proxy // chosen for a plain http URL; nil when the dialer is to choose
}

type tripKey struct{}

// tripOf returns what is known of whoever dials, never nil.
func tripOf(ctx context.Context) *trip {
	if t, ok := ctx.Value(tripKey{}).(*trip); ok {
		return t
	}
	return &trip{}
}

// forwardOf is the Proxy of the Transports.
func forwardOf(req *http.Request) (*url.URL, error) {
	if p := tripOf(req.Context()).forward; p != nil {
		return p.URL, nil
	}
	return nil, nil
}

// prepare has req's dials know about x where they need to: to choose a proxy, or to wait for a slot.
func (f *Fetcher) prepare(x *exchange, req *http.Request) (*http.Request, error) {
	if f.proxies == nil && !f.register.limited() {
		return req, nil
	}
	t := &trip{x: x}
	if req.URL.Scheme == "http" {
		chosen, err := f.proxies.For(req.URL)
		if err != nil {
			return nil, &Error{Class: Proxy, Op: "dial", Err: err}
		}
		if t.via = chosen; len(chosen) > 0 && chosen[0].Forwards() {
			t.forward, x.forward = chosen[0], chosen[0]
			if err := f.guard.checkName(req.URL.Hostname()); err != nil {
				return nil, dialError(req.URL.Host, err)
			}
			req.URL = absolute(req.URL)
		}
	}
	return req.WithContext(context.WithValue(req.Context(), tripKey{}, t)), nil
}

// absolute returns u so that net/http asks a proxy for what the guard has judged. By itself it would put the Host field in
// the place of the URL's host, and leave a path with a stray percent sign without one (RFC 9112, section 3.2.2).
func absolute(u *url.URL) *url.URL {
	if strings.HasPrefix(u.Opaque, "//") {
		return u
	}
	to := *u
	path := cmp.Or(u.Opaque, u.EscapedPath(), "/")
	to.Opaque = "//" + u.Host + path
	return &to
}

// blame turns what went wrong on the way to a proxy into the proxy's error.
func (x *exchange) blame(e *Error) *Error {
	if x.forward == nil || e.Op != "dial" && e.Op != "tls" {
		return e
	}
	switch e.Class {
	case AddressRefused, PoolTimeout, Canceled, Proxy:
		return e
	}
	x.forward.Failed()
	return &Error{Class: Proxy, Op: "dial", Err: fmt.Errorf("proxy %s: %w", x.forward, e)}
}

// refusedByProxy is the error of an answer that is the proxy's own: it wants other credentials (RFC 9110, section 15.5.8).
func (x *exchange) refusedByProxy(answer *http.Response) *Error {
	if x.forward == nil || answer.StatusCode != http.StatusProxyAuthRequired {
		return nil
	}
	answer.Body.Close()
	x.forward.Failed()
	return fail(Proxy, "headers", "proxy %s wants credentials: it answered %s", x.forward, answer.Status)
}

// route opens the way to p, direct or through a proxy.
func (d *dialer) route(ctx context.Context, p place, t *trip) (*link, error) {
	host, port, err := splitAddr(p.addr)
	if err != nil {
		return nil, err
	}
	if t.forward != nil {
		l, err := d.reach.name(ctx, host, port)
		if err == nil {
			l.release = t.forward.Use()
		}
		return l, err
	}
	via := t.via
	if p.tls {
		if via, err = d.proxies.For(&url.URL{Scheme: "https", Host: p.addr}); err != nil {
			return nil, &Error{Class: Proxy, Op: "dial", Err: err}
		}
	}
	if len(via) == 0 {
		return d.reach.host(ctx, host, port)
	}
	return d.tunnel(ctx, via, p.addr)
}

// deadError means that a proxy cannot be used by anybody just now, unlike one that refuses a target.
type deadError struct{ error }

// Unwrap returns what is wrong with it.
func (e deadError) Unwrap() error { return e.error }

// tunnel goes through the first proxy that is alive.
func (d *dialer) tunnel(ctx context.Context, via []*proxies.Proxy, addr string) (*link, error) {
	var last error
	for _, p := range via {
		l, err := d.through(ctx, p, addr)
		if err == nil {
			l.release = p.Use()
			return l, nil
		}
		if dialError(addr, err).Class == AddressRefused {
			return nil, err
		}
		last = &Error{Class: Proxy, Op: "dial", Err: fmt.Errorf("proxy %s: %w", p, err)}
		if _, dead := errors.AsType[deadError](err); !dead {
			return nil, last
		}
		p.Failed()
		if ctx.Err() != nil {
			break
		}
	}
	return nil, last
}

// through opens a tunnel to addr.
func (d *dialer) through(ctx context.Context, p *proxies.Proxy, addr string) (*link, error) {
	target, err := d.target(ctx, p, addr)
	if err != nil {
		return nil, err
	}
	l, err := d.reach.name(ctx, p.URL.Hostname(), portOf(p.URL))
	if err != nil {
		return nil, deadError{err}
	}
	if d := deadlineOf(ctx); !d.IsZero() {
		_ = l.SetDeadline(d) // a connection that refuses it fails at the next step
	}
	stop := context.AfterFunc(ctx, func() { _ = l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	switch p.URL.Scheme {
	case "socks5", "socks5h":
		err = socks(ctx, l, p.URL, target)
	case "https":
		if err = d.secure(ctx, l, p.URL.Hostname()); err == nil {
			err = connect(l, p.URL, target)
		}
	default:
		err = connect(l, p.URL, target)
	}
	if err == nil && !stop() { // the deadline is about to be that of ctx, which has ended
		err = context.Cause(ctx)
	}
	if err == nil {
		err = l.SetDeadline(time.Time{})
	}
	if err != nil {
		_ = l.Close() // it is of no use
		return nil, err
	}
	return l, nil
}

func deadlineOf(ctx context.Context) time.Time {
	d, _ := ctx.Deadline()
	return d
}

// portOf is the port of a proxy: that of its URL, or the usual one of its scheme.
func portOf(u *url.URL) uint16 {
	usual := map[string]string{"http": "80", "https": "443", "socks5": "1080", "socks5h": "1080"}
	n, err := strconv.ParseUint(cmp.Or(u.Port(), usual[u.Scheme]), 10, 16)
	if err != nil {
		return 0
	}
	return uint16(n)
}

// target is what the proxy is asked for. Where it looks the name up itself the guard can judge only how it is written.
func (d *dialer) target(ctx context.Context, p *proxies.Proxy, addr string) (string, error) {
	host, port, err := splitAddr(addr)
	if err != nil {
		return "", err
	}
	if p.URL.Scheme != "socks5" {
		return addr, d.reach.guard.checkName(host)
	}
	addrs, err := d.reach.addresses(ctx, host)
	if err != nil {
		return "", err
	}
	return netip.AddrPortFrom(addrs[0], port).String(), d.reach.guard.check(addrs[0])
}

// secure shakes hands with a proxy that is spoken to over TLS.
func (d *dialer) secure(ctx context.Context, l *link, host string) error {
	config := d.proxyTLS.Clone()
	config.ServerName = host
	t := tls.Client(l.Conn, config)
	if err := t.HandshakeContext(ctx); err != nil {
		return deadError{err}
	}
	l.Conn = t
	return nil
}

// maxConnectAnswer bounds the headers of an answer to CONNECT.
const maxConnectAnswer = 64 << 10

// connect asks an HTTP proxy for a tunnel (RFC 9110, section 9.3.6).
func connect(l *link, u *url.URL, target string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: target}, Host: target, Header: http.Header{"User-Agent": {""}}}
	if u.User != nil {
		req.Header.Set("Proxy-Authorization", basicAuth(u.User))
	}
	if err := req.Write(l.Conn); err != nil {
		return deadError{err}
	}
	from := bufio.NewReader(io.LimitReader(l.Conn, maxConnectAnswer))
	answer, err := http.ReadResponse(from, req) //nolint:bodyclose // its body is the tunnel
	if err != nil {
		return deadError{fmt.Errorf("read the answer to CONNECT: %w", err)}
	}
	switch {
	case answer.StatusCode == http.StatusProxyAuthRequired:
		return deadError{fmt.Errorf("it wants credentials: it answered %s", answer.Status)}
	case answer.StatusCode/100 != 2:
		return fmt.Errorf("CONNECT %s: it answered %s", target, answer.Status)
	case from.Buffered() > 0: // in TLS the client speaks first
		return fmt.Errorf("CONNECT %s: it sent more than an answer", target)
	}
	return nil
}

// socks asks a SOCKS proxy for a tunnel (RFC 1928, RFC 1929).
func socks(ctx context.Context, l *link, u *url.URL, target string) error {
	var auth *proxy.Auth
	if u.User != nil {
		password, _ := u.User.Password()
		auth = &proxy.Auth{User: u.User.Username(), Password: password}
	}
	made, err := proxy.SOCKS5("tcp", u.Host, auth, nil)
	if err != nil {
		return err
	}
	over, ok := made.(interface {
		DialWithConn(ctx context.Context, c net.Conn, network, address string) (net.Addr, error)
	})
	if !ok {
		return errors.New("this build speaks no SOCKS")
	}
	_, err = over.DialWithConn(ctx, l.Conn, "tcp", target)
	if err != nil && strings.HasPrefix(err.Error(), "unknown error ") { // the proxy's reply about the target
		return fmt.Errorf("CONNECT %s: %s", target, strings.TrimPrefix(err.Error(), "unknown error "))
	}
	if err != nil {
		return deadError{err}
	}
	return nil
}

// checkName judges a host whose address only a proxy will know: an address like any other, the names of this machine, and
// what some resolvers take for an address although Go does not ("0x7f.1", "2130706433").
func (g guard) checkName(host string) error {
	plain := strings.ToLower(strings.TrimSuffix(host, "."))
	if addr, err := netip.ParseAddr(plain); err == nil {
		return g.check(addr)
	}
	if plain == "localhost" || strings.HasSuffix(plain, ".localhost") {
		return g.check(netip.AddrFrom4([4]byte{127, 0, 0, 1}))
	}
	last := plain[strings.LastIndexByte(plain, '.')+1:]
	if _, err := strconv.ParseUint(last, 0, 64); err == nil || last != "" && strings.Trim(last, "0123456789") == "" {
		return fail(AddressRefused, "dial", "%s is a number that a proxy may take for a private address: write it as an address", host)
	}
	return nil
}
