// Package fetch gets bytes over HTTP/1.1, HTTP/2 and HTTP/3: one request, one answer.
//
// It promises that every wait and every size has a limit, that no private
// address is dialled unless allowed, that a body which ended early is never
// taken for a whole one, and that every error is an *Error with a Class.
//
// It follows no redirect by itself (Redirect says what the next request would
// be), keeps no cookies, retries nothing beyond what net/http repeats on a
// connection that died while idle, and knows nothing of queues or storage.
package fetch

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"runtime/debug"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/names"
	"github.com/fetchfleet/fetchfleet/internal/fetch/proxies"
)

// Options configure a Fetcher. The zero value works.
type Options struct {
	// AllowPrivate lists blocks whose addresses may be dialled although they are
	// private, loopback, link-local or otherwise special; nil allows none.
	AllowPrivate []netip.Prefix
	// Resolver looks names up; nil means net.DefaultResolver.
	Resolver *net.Resolver
	// Connections say how hosts are reached and how many connections there may be.
	Connections
	// UserAgent is sent unless the request has its own;
	// "" means fetchfleet/<version> with the project's address.
	UserAgent string
	// ConnectTimeout bounds name lookup and connecting together; 0 means 10 s.
	ConnectTimeout time.Duration
	// TLSTimeout bounds the TLS handshake; 0 means 10 s.
	TLSTimeout time.Duration
	// MaxIdleConns bounds the connections kept open for reuse; 0 means 1024.
	MaxIdleConns int
	// MaxIdleConnsPerHost bounds them per host; 0 means 64.
	MaxIdleConnsPerHost int
	// IdleConnTimeout closes a connection unused for so long; 0 means 90 s.
	IdleConnTimeout time.Duration
	// MaxHeaderBytes limits the response headers; 0 means 1 MiB.
	MaxHeaderBytes int64
	// Ports are those that may be asked; the zero value allows all but those of other protocols.
	Ports Ports
	// TLSConfig is the base of every handshake; nil means Go's defaults.
	TLSConfig *tls.Config
}

func (o Options) withDefaults() Options {
	setDefault(&o.UserAgent, defaultUserAgent())
	setDefault(&o.ConnectTimeout, 10*time.Second)
	setDefault(&o.TLSTimeout, 10*time.Second)
	setDefault(&o.MaxIdleConns, 1024)
	setDefault(&o.MaxIdleConnsPerHost, 64)
	setDefault(&o.IdleConnTimeout, 90*time.Second)
	setDefault(&o.MaxHeaderBytes, 1<<20)
	o.Connections.setDefaults()
	return o
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// defaultUserAgent names the project and the version that this binary was built from.
var defaultUserAgent = sync.OnceValue(func() string {
	version := "dev"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		version = info.Main.Version
	}
	return "fetchfleet/" + version + " (+https://github.com/fetchfleet/fetchfleet)"
})

// Fetcher makes exchanges over a pool of connections. It is safe for
// concurrent use; one per process is enough.
type Fetcher struct {
	lanes        *lanes
	register     *register
	userAgent    string
	ports        Ports
	alternatives *alternatives

	names    *names.Cache
	services *services
	proxies  *proxies.Rules
	guard    guard
}

// New returns a Fetcher. It opens nothing before the first exchange.
func New(o Options) *Fetcher {
	o = o.withDefaults()
	ls := newLanes(o)
	d := ls.dialer
	return &Fetcher{
		userAgent:    o.UserAgent,
		ports:        o.Ports,
		register:     d.register,
		names:        d.reach.names,
		services:     d.reach.services,
		proxies:      d.proxies,
		guard:        d.reach.guard,
		lanes:        ls,
		alternatives: newAlternatives(),
	}
}

// Close closes the idle connections and ends what is done in the background. Exchanges under way go on, and the
// Fetcher stays usable.
func (f *Fetcher) Close() {
	f.lanes.closeIdle()
	f.services.close()
}

// Do sends r and returns once the response headers are there. The error is
// always an *Error. Without an error the caller must read the Body to its end
// or close it; reading to io.EOF, and closing when little is left, keep the
// connection for the next exchange.
//
// A redirect is an answer like any other. ctx ends the whole exchange, body
// included. r is not changed and may be used again.
func (f *Fetcher) Do(ctx context.Context, r *Request) (*Response, error) {
	x := newExchange(ctx, r, f.register)
	x.track = f.lanes.take(r)
	req, err := f.build(x, r)
	if err == nil {
		req, err = f.prepare(x, req)
	}
	if err != nil {
		x.finish()
		return nil, err
	}
	answer, tripErr := f.trip(x, r, req)
	if tripErr != nil {
		classify := classifyTrip
		if x.track.lane.version == HTTP2 && !x.secure {
			classify = classifyPrior
		}
		err := x.blame(x.explain("headers", classify, tripErr))
		x.finish()
		return nil, err
	}
	if err := x.refusedByProxy(answer); err != nil {
		x.finish()
		return nil, err
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		answer.Body.Close()
		x.finish()
		return nil, fail(Protocol, "headers", "the server switched protocols unasked")
	}
	return x.accept(req, answer), nil
}
