package fetch

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/balance"
	"github.com/fetchfleet/fetchfleet/internal/fetch/discover"
	"github.com/fetchfleet/fetchfleet/internal/fetch/happy"
	"github.com/fetchfleet/fetchfleet/internal/fetch/names"
)

// Family says which addresses of a host are dialled.
type Family string

// The families. The zero value is FamilyAuto.
const (
	FamilyAuto    Family = "auto"     // both, in the order of RFC 6724
	Family4       Family = "4"        // only IPv4
	Family6       Family = "6"        // only IPv6
	FamilyPrefer4 Family = "prefer-4" // both, IPv4 first
	FamilyPrefer6 Family = "prefer-6" // both, IPv6 first
)

// mostAddresses is how many addresses of a name are tried: at one each happy.Delay this takes 4 s.
const mostAddresses = 16

// pick returns the addresses of the family, in the order in which to try them.
func (f Family) pick(addrs []netip.Addr) []netip.Addr {
	addrs = slices.Clone(addrs)
	six := f == Family6 || f == FamilyPrefer6
	switch f {
	case Family4, Family6:
		addrs = slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is4() == six })
	case FamilyPrefer4, FamilyPrefer6:
		slices.SortStableFunc(addrs, func(a, b netip.Addr) int {
			switch {
			case a.Is4() == b.Is4():
				return 0
			case a.Is4() == six:
				return 1
			}
			return -1
		})
	}
	if len(addrs) == 0 {
		return nil
	}
	return happy.Interleave(addrs)
}

// sources are the addresses to dial from, taken in turn; none means that the system chooses.
type sources struct {
	four, six    []netip.Addr
	turn4, turn6 atomic.Uint32
}

func newSources(addrs []netip.Addr) *sources {
	s := &sources{}
	for _, a := range addrs {
		if a = a.Unmap(); a.Is4() {
			s.four = append(s.four, a)
		} else {
			s.six = append(s.six, a)
		}
	}
	return s
}

// next returns the address to dial to from, invalid when the system chooses.
func (s *sources) next(to netip.Addr) netip.Addr {
	of, turn := s.four, &s.turn4
	if !to.Is4() {
		of, turn = s.six, &s.turn6
	}
	if len(of) == 0 {
		return netip.Addr{}
	}
	return of[int(turn.Add(1)-1)%len(of)]
}

// reachable leaves those addresses that can be dialled from one of the sources.
func (s *sources) reachable(addrs []netip.Addr) []netip.Addr {
	if len(s.four)+len(s.six) == 0 {
		return addrs
	}
	return slices.DeleteFunc(addrs, func(a netip.Addr) bool { return a.Is4() && len(s.four) == 0 || !a.Is4() && len(s.six) == 0 })
}

// reacher opens connections to hosts: it knows names, services, families and sources, and asks the guard about each address.
type reacher struct {
	net      net.Dialer // Resolver is not used: what it dials are addresses
	guard    guard
	names    *names.Cache
	services *services
	family   Family
	sources  *sources
}

// link is a new connection and what is known of how it was made.
type link struct {
	net.Conn
	dns     time.Duration
	release func() // no longer in use; nil when nobody counts
}

// Close implements net.Conn.
func (l *link) Close() error {
	if l.release != nil {
		l.release()
	}
	return l.Conn.Close()
}

// host connects to one of the servers of host: those that a rule names, or the addresses of the name.
func (r *reacher) host(ctx context.Context, host string, port uint16) (*link, error) {
	set, err := r.services.Find(ctx, host, port)
	if err != nil {
		return nil, &Error{Class: DNSTemporary, Op: "dial", Err: err}
	}
	if set == nil {
		return r.name(ctx, host, port)
	}
	members := set.Order()
	if len(members) == 0 {
		return nil, fail(DNSTemporary, "dial", "find servers of %s: %w", host, discover.ErrNone)
	}
	c, err := happy.Dial(ctx, len(members), happy.Delay, func(ctx context.Context, i int) (net.Conn, error) {
		return r.member(ctx, members[i], port)
	})
	if err != nil {
		return nil, err
	}
	return c.(*link), nil
}

// member connects to one server. One that failed, or was slower than the next although it began earlier, is left alone.
func (r *reacher) member(ctx context.Context, m *balance.Member, port uint16) (net.Conn, error) {
	if m.Port != 0 {
		port = m.Port
	}
	began := time.Now()
	l, err := r.name(ctx, m.Host, port)
	if err != nil {
		if ctx.Err() == nil || time.Since(began) >= happy.Delay {
			m.Failed()
		}
		return nil, err // not l: a nil *link is no nil net.Conn
	}
	l.release = m.Use()
	return l, nil
}

// name connects to one of the addresses of a name.
func (r *reacher) name(ctx context.Context, host string, port uint16) (*link, error) {
	began := time.Now()
	addrs, err := r.addresses(ctx, host)
	if err != nil {
		return nil, err
	}
	l := &link{dns: lookupTime(host, began)}
	l.Conn, err = happy.Dial(ctx, len(addrs), happy.Delay, func(ctx context.Context, i int) (net.Conn, error) {
		return r.address(ctx, netip.AddrPortFrom(addrs[i], port))
	})
	if err != nil {
		if ctx.Err() != context.Canceled {
			r.names.Forget(host)
		}
		if no := refusal(host, err); no != nil {
			return nil, no
		}
		return nil, err
	}
	return l, nil
}

// lookupTime is how long a look-up took that began then: none was needed for an address.
func lookupTime(host string, began time.Time) time.Duration {
	if _, err := netip.ParseAddr(host); err == nil {
		return 0
	}
	return time.Since(began)
}

// addresses looks host up and returns what may be tried of it, in order, at least one.
func (r *reacher) addresses(ctx context.Context, host string) ([]netip.Addr, error) {
	found, err := r.names.Lookup(ctx, host)
	if err != nil {
		return nil, err
	}
	addrs := r.sources.reachable(r.family.pick(found))
	if len(addrs) == 0 {
		return nil, fail(ConnectUnreachable, "dial", "%s has no address that --ip and --source-address allow", host)
	}
	return addrs[:min(len(addrs), mostAddresses)], nil
}

func (r *reacher) address(ctx context.Context, to netip.AddrPort) (net.Conn, error) {
	d := r.net
	if from := r.sources.next(to.Addr()); from.IsValid() {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.AddrPortFrom(from, 0))
	}
	return d.DialContext(ctx, "tcp", to.String())
}

// splitAddr splits what net/http dials.
func splitAddr(addr string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("port %q is no number", text)
	}
	return host, uint16(n), nil
}
