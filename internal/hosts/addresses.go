package hosts

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/sync/singleflight"
)

const (
	agreement   = time.Hour        // for so long the fleet keeps to an address
	remembered  = 10 * time.Minute // for so long a worker does not ask again, at most
	nowhere     = 30 * time.Second // until a name is looked up again that did not resolve
	lookup      = 10 * time.Second // that finding an address may take
	addressKept = 50_000           // hosts whose address a worker keeps in memory
)

// Addresses finds the site of a host by its address: "@" and the address, without a port. Where a name has several, it is the
// smallest, and one for the whole fleet: who looks a name up first says what it is for an hour. A host that does not
// resolve is its own site, and its requests will say why.
type Addresses struct {
	rdb     redis.UniversalClient
	resolve func(ctx context.Context, name string) ([]netip.Addr, error)
	asking  singleflight.Group

	mu    sync.Mutex
	known map[string]dwelling // by host
}

// dwelling is the site of a host, and until when that holds.
type dwelling struct {
	site  string
	until time.Time
}

// NewAddresses returns the addresses of the fleet that shares rdb. A nil resolve is the system's resolver.
func NewAddresses(rdb redis.UniversalClient, resolve func(ctx context.Context, name string) ([]netip.Addr, error)) *Addresses {
	if resolve == nil {
		resolve = func(ctx context.Context, name string) ([]netip.Addr, error) {
			return net.DefaultResolver.LookupNetIP(ctx, "ip", name)
		}
	}
	return &Addresses{rdb: rdb, resolve: resolve, known: map[string]dwelling{}}
}

// Site is the site of a host, which may have a port. An error is that of Redis.
func (a *Addresses) Site(ctx context.Context, host string) (string, error) {
	name := (&url.URL{Host: host}).Hostname()
	if ip, err := netip.ParseAddr(name); err == nil {
		return siteOf(ip), nil
	}
	if site, ok := a.recall(host); ok {
		return site, nil
	}
	found, err, _ := a.asking.Do(host, func() (any, error) {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lookup) // others wait for it, too
		defer cancel()
		return a.find(ctx, host, name)
	})
	if err != nil {
		return "", fmt.Errorf("find the address of host %s: %w", host, err)
	}
	return found.(string), nil
}

// siteOf an address does not tell how it is written: IPv4 within IPv6, or with a zone.
func siteOf(ip netip.Addr) string { return "@" + ip.Unmap().WithZone("").String() }

// find asks the fleet, then the resolver, and then the fleet again: another worker may have been quicker.
func (a *Addresses) find(ctx context.Context, host, name string) (string, error) {
	if site, err := a.agreed(ctx, host); site != "" || err != nil {
		return site, err
	}
	if ips, err := a.resolve(ctx, name); err == nil && len(ips) > 0 {
		for i := range ips {
			ips[i] = ips[i].Unmap()
		}
		if err := a.rdb.SetNX(ctx, addressKey(host), siteOf(slices.MinFunc(ips, netip.Addr.Compare)), agreement).Err(); err != nil {
			return "", err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), step) // the resolver may have used up its time
	defer cancel()
	if site, err := a.agreed(ctx, host); site != "" || err != nil {
		return site, err
	}
	a.remember(host, host, nowhere)
	return host, nil
}

func addressKey(host string) string { return StateKey(host) + ":address" }

// agreed is the site that the fleet has for a host, "" for none. It is remembered for no longer than it holds, so that all
// workers turn to another address at the same time.
func (a *Addresses) agreed(ctx context.Context, host string) (string, error) {
	pipe := a.rdb.Pipeline()
	get, left := pipe.Get(ctx, addressKey(host)), pipe.PTTL(ctx, addressKey(host))
	if _, err := pipe.Exec(ctx); errors.Is(err, redis.Nil) {
		return "", nil
	} else if err != nil {
		return "", err
	}
	a.remember(host, get.Val(), min(left.Val(), remembered))
	return get.Val(), nil
}

func (a *Addresses) recall(host string) (string, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	d, ok := a.known[host]
	return d.site, ok && time.Now().Before(d.until)
}

func (a *Addresses) remember(host, site string, lasts time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for other, d := range a.known { // mostly stops at once
		if len(a.known) < addressKept && time.Now().Before(d.until) {
			break
		}
		delete(a.known, other)
	}
	a.known[host] = dwelling{site, time.Now().Add(lasts)}
}
