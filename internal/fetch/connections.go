package fetch

import (
	"cmp"
	"context"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/discover"
	"github.com/fetchfleet/fetchfleet/internal/fetch/names"
	"github.com/fetchfleet/fetchfleet/internal/fetch/proxies"
)

// Connections say how hosts are reached and how many connections there may be. The zero value works.
type Connections struct {
	// DNSTTL is the longest that an answer of DNS is used; 0 means 5 min, less than 0 that each connection asks anew.
	DNSTTL time.Duration
	// Family says which addresses are dialled; "" means FamilyAuto.
	Family Family
	// Sources are the addresses to dial from, in turn; none means that the system chooses. With sources of one family
	// alone only addresses of that family are dialled.
	Sources []netip.Addr
	// Servers say where the servers of some hosts are. They do not apply behind a proxy.
	Servers []discover.Rule
	// ConsulToken is sent to Consul; "" means none.
	ConsulToken string
	// Proxies say which hosts are reached through which proxy; nil means none. Where a proxy looks names up (http, https,
	// socks5h), only the proxy's own address is guarded, besides hosts that are written as private addresses.
	Proxies *proxies.Rules

	// MaxConns bounds the open connections; 0 means no limit. Idle ones are closed to make room.
	MaxConns int
	// MaxConnsPerHost bounds those to one host and port; 0 means no limit.
	MaxConnsPerHost int
	// MaxWaiting bounds the requests that wait for one of those; 0 means no limit.
	MaxWaiting int
	// ConnLifetime is the age at which a connection that is idle is not used again; 0 means no limit.
	ConnLifetime time.Duration
	// KeepAlive is the interval of TCP's probes of idle connections; 0 means 15 s, less than 0 none.
	KeepAlive time.Duration
	// PingInterval is how long an HTTP/2 connection with requests may be silent before it is pinged; 0 means 30 s.
	PingInterval time.Duration
}

func (c *Connections) setDefaults() {
	setDefault(&c.Family, FamilyAuto)
	setDefault(&c.PingInterval, 30*time.Second)
}

func (c *Connections) limits() limits {
	return limits{conns: c.MaxConns, perHost: c.MaxConnsPerHost, waiting: c.MaxWaiting, lifetime: c.ConnLifetime}
}

func newReacher(o Options) *reacher {
	g := newGuard(o.AllowPrivate)
	r := &reacher{
		net:     net.Dialer{ControlContext: g.control, KeepAlive: o.KeepAlive},
		guard:   g,
		names:   names.New(names.Options{Resolver: o.Resolver, MaxTTL: o.DNSTTL, Timeout: o.ConnectTimeout}),
		family:  o.Family,
		sources: newSources(o.Sources),
	}
	r.services = newServices(o, r)
	return r
}

// services are where the servers of hosts are, and how Consul is asked: through the dial guard, like all else.
type services struct {
	*discover.Directory
	transport *http.Transport
}

func newServices(o Options, r *reacher) *services {
	config := laneTLS(o.TLSConfig, lane{}, nil)
	config.NextProtos = nil
	s := &services{transport: &http.Transport{
		TLSClientConfig:     config,
		TLSHandshakeTimeout: o.TLSTimeout,
		IdleConnTimeout:     o.IdleConnTimeout,
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			ctx, cancel := context.WithTimeout(ctx, cmp.Or(o.ConnectTimeout, 10*time.Second))
			defer cancel()
			host, port, err := splitAddr(addr)
			if err != nil {
				return nil, err
			}
			l, err := r.name(ctx, host, port)
			if err != nil {
				return nil, dialError(addr, err)
			}
			return l.Conn, nil
		},
	}}
	client := &http.Client{Transport: s.transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	s.Directory = discover.New(discover.Options{Rules: o.Servers, SRV: r.names.SRV, Client: client, Token: o.ConsulToken})
	return s
}

// close ends the watches over Consul.
func (s *services) close() {
	s.Directory.Close()
	s.transport.CloseIdleConnections()
}
