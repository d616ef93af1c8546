// Package names looks host names up and remembers the answers.
//
// It promises that an answer is never given out after the TTL that came with it or after Options.MaxTTL, whichever is
// shorter; that look-ups of one name at one moment are one look-up; and that the memory is bounded. It judges no address:
// whoever dials must do so each time, because a name may lead elsewhere the second time it is looked up.
package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"time"
)

// Options configure a Cache. The zero value works.
type Options struct {
	// Resolver asks; nil means that of the system. Its Dial, if any, is used.
	Resolver *net.Resolver
	// MaxTTL is the longest that an answer is remembered; 0 means 5 min, less than 0 that nothing is.
	MaxTTL time.Duration
	// NegativeTTL is the longest that the absence of a name is remembered; 0 means 5 s, so that an attempt made again
	// after the usual backoff mostly asks again. It never exceeds MaxTTL.
	NegativeTTL time.Duration
	// MaxNames bounds the memory; 0 means 16,384 names, about 4 MiB.
	MaxNames int
	// Timeout bounds a look-up, which may outlast whoever asked for it; 0 means 10 s.
	Timeout time.Duration
	// Now is the clock; nil means time.Now.
	Now func() time.Time
}

// hostsFileTTL is for what came without asking a name server, from the hosts file: an edit is seen soon.
const hostsFileTTL = 5 * time.Second

// Cache looks names up. It is safe for concurrent use.
type Cache struct {
	o       Options
	watched bool // TTLs can be seen

	mu      sync.Mutex
	entries map[string]*entry
	stats   Stats
}

// Stats count what became of look-ups since the start.
type Stats struct {
	Hits, Misses, Negative uint64 // from memory, asked for, and those from memory or asked whose name is not there
}

// entry is one name: a look-up under way until done is closed, then its answer.
type entry struct {
	done    chan struct{}
	addrs   []netip.Addr
	err     error
	expires time.Time
}

// New returns an empty Cache.
func New(o Options) *Cache {
	if o.Resolver == nil {
		o.Resolver = &net.Resolver{PreferGo: goResolver(runtime.GOOS)}
	}
	if o.MaxTTL == 0 {
		o.MaxTTL = 5 * time.Minute
	}
	if o.NegativeTTL == 0 {
		o.NegativeTTL = 5 * time.Second
	}
	o.NegativeTTL = min(o.NegativeTTL, o.MaxTTL)
	if o.MaxNames == 0 {
		o.MaxNames = 1 << 14
	}
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Cache{o: o, watched: o.Resolver.PreferGo, entries: map[string]*entry{}}
}

// goResolver reports whether Go's own resolver knows what the system's knows. On macOS and Windows it does not: there
// networks bring resolvers of their own for some names.
func goResolver(system string) bool {
	return system != "darwin" && system != "ios" && system != "windows"
}

// Lookup returns the addresses of host, at least one, in the order of preference of RFC 6724; an address is its own.
// The error is a *net.DNSError, and the slice must not be changed.
func (c *Cache) Lookup(ctx context.Context, host string) ([]netip.Addr, error) {
	if addr, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{addr}, nil
	}
	e := c.entry(strings.ToLower(host))
	select {
	case <-e.done:
	case <-ctx.Done():
		return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true, IsTemporary: true}
	}
	c.countNegative(e.err)
	return e.addrs, e.err
}

// entry returns what is known about key, or the look-up of it that is under way, which it begins if need be.
func (c *Cache) entry(key string) *entry {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && (!e.ended() || c.o.Now().Before(e.expires)) {
		c.stats.Hits++
		return e
	}
	c.stats.Misses++
	e := &entry{done: make(chan struct{})}
	c.makeRoom()
	c.entries[key] = e
	go c.fill(key, e) // ends by itself within Options.Timeout
	return e
}

func (e *entry) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

func (c *Cache) countNegative(err error) {
	if !notFound(err) {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stats.Negative++
}

func notFound(err error) bool {
	e, ok := errors.AsType[*net.DNSError](err)
	return ok && e.IsNotFound
}

// fill asks for key and answers those who wait at e.
func (c *Cache) fill(key string, e *entry) {
	ctx, cancel := context.WithTimeout(context.Background(), c.o.Timeout)
	defer cancel()
	resolver, seen := c.resolver()
	began := c.o.Now()
	addrs, err := resolver.LookupNetIP(ctx, "ip", key)
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	if err == nil && len(addrs) == 0 {
		err = &net.DNSError{Err: "no address", Name: key, IsNotFound: true}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	e.addrs, e.err = addrs, err
	e.expires = began.Add(c.ttl(seen, err))
	if !c.o.Now().Before(e.expires) && c.entries[key] == e {
		delete(c.entries, key)
	}
	close(e.done)
}

// resolver returns one for a single look-up, and what will have been seen of its answers; nil where nothing can be.
func (c *Cache) resolver() (*net.Resolver, *sight) {
	if !c.watched {
		return c.o.Resolver, nil
	}
	seen := &sight{}
	return seen.resolver(c.o.Resolver), seen
}

// ttl is how long the answer may be remembered. Trouble other than a name that is not there is not remembered at all.
func (c *Cache) ttl(seen *sight, err error) time.Duration {
	if err != nil {
		if !notFound(err) {
			return 0
		}
		return seen.negative(c.o.NegativeTTL)
	}
	return seen.positive(c.o.MaxTTL)
}

// makeRoom drops a few of what is there when there is no room for one more; c.mu is held. It looks at some names only,
// those of them that have expired go, else the one that would be first to.
func (c *Cache) makeRoom() {
	if len(c.entries) < c.o.MaxNames {
		return
	}
	const looks = 16
	var soonest string
	var at time.Time
	n, dropped := 0, false
	for key, e := range c.entries {
		if n++; n > looks && (dropped || soonest != "") {
			break
		}
		switch {
		case !e.ended():
		case !c.o.Now().Before(e.expires):
			delete(c.entries, key)
			dropped = true
		case soonest == "" || e.expires.Before(at):
			soonest, at = key, e.expires
		}
	}
	if !dropped && soonest != "" {
		delete(c.entries, soonest)
	}
}

// Forget drops what is remembered of host, because none of its addresses could be reached.
func (c *Cache) Forget(host string) {
	key := strings.ToLower(host)
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.entries[key]; e != nil && e.ended() {
		delete(c.entries, key)
	}
}

// Stats returns the counts so far.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.stats
}

// SRV returns the service records (RFC 2782) of name, which is looked up each time, and how long they hold: at least a
// second, so that nobody asks in a tight loop, and at most Options.MaxTTL, or 5 min without one.
func (c *Cache) SRV(ctx context.Context, name string) ([]*net.SRV, time.Duration, error) {
	resolver, seen := c.resolver()
	_, records, err := resolver.LookupSRV(ctx, "", "", name)
	if len(records) == 0 && err == nil {
		err = &net.DNSError{Err: "no service record", Name: name, IsNotFound: true}
	}
	if len(records) == 0 {
		return nil, 0, err
	}
	limit := c.o.MaxTTL
	if limit < 0 {
		limit = 5 * time.Minute
	}
	return records, max(seen.positive(limit), time.Second), nil // some records may be unusable: the rest is
}
