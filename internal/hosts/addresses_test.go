package hosts_test

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// names are what a resolver knows, and how often it was asked.
type names struct {
	known map[string][]string
	asked atomic.Int64
}

func (n *names) resolve(_ context.Context, name string) (ips []netip.Addr, err error) {
	n.asked.Add(1)
	for _, text := range n.known[name] {
		ips = append(ips, netip.MustParseAddr(text))
	}
	if ips == nil {
		return nil, errors.New("no such host")
	}
	return ips, nil
}

func siteOf(t *testing.T, a *hosts.Addresses, host string) string {
	t.Helper()
	site, err := a.Site(t.Context(), host)
	if err != nil {
		t.Fatal(err)
	}
	return site
}

func TestSiteOfAHostIsItsSmallestAddress(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		a := hosts.NewAddresses(rdb, (&names{known: map[string][]string{
			"one.example":    {"192.0.2.10", "192.0.2.9"},
			"both.example":   {"2001:db8::1", "192.0.2.200"},
			"mapped.example": {"::ffff:192.0.2.7"},
			"six.example":    {"2001:db8::2", "2001:db8::1"},
			"empty.example":  {},
		}}).resolve)
		for host, want := range map[string]string{
			"one.example":         "@192.0.2.9",
			"one.example:8080":    "@192.0.2.9",
			"both.example":        "@192.0.2.200",
			"mapped.example":      "@192.0.2.7",
			"six.example":         "@2001:db8::1",
			"empty.example":       "empty.example",
			"nowhere.example:81":  "nowhere.example:81",
			"192.0.2.1":           "@192.0.2.1",
			"192.0.2.1:8080":      "@192.0.2.1",
			"[2001:db8::1]":       "@2001:db8::1",
			"[2001:db8::1]:8443":  "@2001:db8::1",
			"[::ffff:c000:201]:9": "@192.0.2.1",
		} {
			if got := siteOf(t, a, host); got != want {
				t.Errorf("site of %s = %q, want %q", host, got, want)
			}
		}
	})
}

func TestSiteOfAHostIsOneForTheFleet(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const host = "one.example"
		near, far := &names{known: map[string][]string{host: {"192.0.2.1"}}}, &names{known: map[string][]string{host: {"192.0.2.2"}}}
		if got := siteOf(t, hosts.NewAddresses(rdb, near.resolve), host); got != "@192.0.2.1" {
			t.Errorf("site %q, want @192.0.2.1", got)
		}
		if got := siteOf(t, hosts.NewAddresses(rdb, far.resolve), host); got != "@192.0.2.1" || far.asked.Load() > 0 {
			t.Errorf("site %q for another worker, which asked its resolver %d times; want @192.0.2.1 of the first", got, far.asked.Load())
		}
		if got := rdb.TTL(t.Context(), "fetchfleet:host:"+host+":address").Val(); got != time.Hour && got.Round(time.Minute) != time.Hour {
			t.Errorf("it holds for %s, want an hour", got)
		}
	})
}

func TestSiteIsThatOfWhoWasQuicker(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const host = "one.example"
		for _, broken := range []error{nil, errors.New("no such host")} {
			slow := hosts.NewAddresses(rdb, func(ctx context.Context, _ string) ([]netip.Addr, error) {
				if err := rdb.Set(ctx, "fetchfleet:host:"+host+":address", "@192.0.2.5", time.Hour).Err(); err != nil {
					t.Error(err)
				}
				return []netip.Addr{netip.MustParseAddr("192.0.2.1")}, broken
			})
			if got := siteOf(t, slow, host); got != "@192.0.2.5" {
				t.Errorf("site %q with resolver's error %v, want @192.0.2.5", got, broken)
			}
		}
	})
}

func TestSiteHoldsNoLongerThanTheFleetKeepsToIt(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const host, key = "one.example", "fetchfleet:host:one.example:address"
		a := hosts.NewAddresses(rdb, (&names{}).resolve)
		if err := rdb.Set(t.Context(), key, "@192.0.2.1", 50*time.Millisecond).Err(); err != nil {
			t.Fatal(err)
		}
		if got := siteOf(t, a, host); got != "@192.0.2.1" {
			t.Fatalf("site %q, want @192.0.2.1", got)
		}
		if err := rdb.Set(t.Context(), key, "@192.0.2.2", time.Hour).Err(); err != nil {
			t.Fatal(err)
		}
		for end := time.Now().Add(10 * time.Second); siteOf(t, a, host) != "@192.0.2.2"; {
			if time.Now().After(end) {
				t.Fatal("an address is remembered for longer than it holds")
			}
		}
	})
}

func TestSiteIsLookedUpOnceForManyWhoAsk(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		n := &names{known: map[string][]string{"one.example": {"192.0.2.1"}}}
		a := hosts.NewAddresses(rdb, n.resolve)
		count := &trips{}
		var askers sync.WaitGroup
		for range 50 {
			askers.Go(func() {
				if site, err := a.Site(t.Context(), "one.example"); err != nil || site != "@192.0.2.1" {
					t.Errorf("site %q, %v; want @192.0.2.1", site, err)
				}
			})
		}
		askers.Wait()
		if got := n.asked.Load(); got != 1 {
			t.Errorf("the resolver was asked %d times, want once", got)
		}
		rdb.AddHook(count)
		siteOf(t, a, "one.example")
		siteOf(t, a, "192.0.2.1:80")
		siteOf(t, a, "nowhere.example")
		asked := n.asked.Load()
		before := count.single
		siteOf(t, a, "nowhere.example")
		if n.asked.Load() != asked || count.single != before {
			t.Error("a host that did not resolve is looked up again at once")
		}
	})
}

func TestSiteIsNotGuessedWhileRedisIsAway(t *testing.T) {
	rdb := redis.NewClient(&redis.Options{Addr: "127.0.0.1:1", MaxRetries: -1})
	defer func() { _ = rdb.Close() }()
	a := hosts.NewAddresses(rdb, (&names{known: map[string][]string{"one.example": {"192.0.2.1"}}}).resolve)
	if site, err := a.Site(t.Context(), "one.example"); err == nil {
		t.Errorf("site %q, want an error", site)
	}
	if got := siteOf(t, a, "192.0.2.1:8080"); got != "@192.0.2.1" {
		t.Errorf("site %q of an address, want @192.0.2.1 without Redis", got)
	}
}

func TestSiteIsFoundByTheSystemsResolver(t *testing.T) {
	a := hosts.NewAddresses(taskstest.Embedded(t), nil)
	if got := siteOf(t, a, "localhost:8080"); got != "@127.0.0.1" && got != "@::1" {
		t.Errorf("site of localhost = %q, want @127.0.0.1", got)
	}
}
