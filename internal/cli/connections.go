package cli

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/fetch/discover"
	"github.com/fetchfleet/fetchfleet/internal/fetch/proxies"
	"github.com/fetchfleet/fetchfleet/internal/metrics"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// ConnectionFlags are how a worker reaches hosts, and how many connections it keeps.
type ConnectionFlags struct {
	DNSTTL          tasks.Duration `group:"Worker" name:"dns-ttl" env:"FLEET_DNS_TTL" default:"5m" help:"The longest that an answer of DNS is used, if its own TTL is not shorter; 0s = ask for each connection (default: ${default})."`
	IP              string         `group:"Worker" name:"ip" env:"FLEET_IP" default:"auto" enum:"auto,4,6,prefer-4,prefer-6" help:"auto: IPv6 and IPv4, whichever answers first; 4 or 6: only that; prefer-4 or prefer-6: that first (default: ${default})."`
	SourceAddress   []string       `group:"Worker" env:"FLEET_SOURCE_ADDRESS" placeholder:"ADDR" help:"Addresses of this machine to connect from, in turn; given again, or after a comma, more (default: the system's choice). Hosts are then reached in the families of these alone."`
	Resolve         []string       `group:"Worker" env:"FLEET_RESOLVE" sep:"none" placeholder:"HOST[:PORT]=ADDR[,ADDR]" help:"Addresses, with ports if need be, of a host's servers instead of DNS. The one with the fewest connections is taken; one that fails is left alone for 10s. May be repeated; in the variable rules are separated by spaces."`
	Discover        []string       `group:"Worker" env:"FLEET_DISCOVER" sep:"none" placeholder:"HOST=SOURCE" help:"Where a host's servers are listed: srv:_http._tcp.NAME (service records of DNS) or consul:http://HOST:8500/SERVICE (healthy instances; a token is taken from CONSUL_HTTP_TOKEN). May be repeated; in the variable rules are separated by spaces."`
	Proxy           []string       `group:"Worker" env:"FLEET_PROXY" sep:"none" placeholder:"[HOST=]URL" help:"A proxy: http://, https://, socks5:// (names are looked up here) or socks5h:// (there); credentials are best ${env:NAME} or ${file:PATH}. Given again, a list that is used in turn and skips what fails. HOST=URL and *.SUFFIX=URL are for those hosts, HOST=direct is none, and env is what HTTP_PROXY, HTTPS_PROXY and NO_PROXY say, which are not heeded otherwise. In the variable rules are separated by spaces."`
	MaxConns        int            `group:"Worker" env:"FLEET_MAX_CONNS" default:"0" help:"Open connections at most, over all hosts; 0 = no limit (default: ${default})."`
	MaxConnsPerHost int            `group:"Worker" env:"FLEET_MAX_CONNS_PER_HOST" default:"0" help:"Open connections at most to one host and port, of this worker; 0 = no limit (default: ${default}). Over HTTP/2 one carries many requests. For the whole fleet there is --host-conns."`
	MaxWaiting      int            `group:"Worker" env:"FLEET_MAX_WAITING" default:"0" help:"Requests at most that wait for one of those, others end in class pool_timeout; 0 = no limit (default: ${default})."`
	MaxIdleConns    int            `group:"Worker" env:"FLEET_MAX_IDLE_CONNS" default:"0" help:"Connections kept for the next request, over all hosts; 0 = 16 times --concurrency (default: ${default})."`
	MaxIdlePerHost  int            `group:"Worker" env:"FLEET_MAX_IDLE_PER_HOST" default:"0" help:"Those of one host; 0 = --concurrency (default: ${default})."`
	IdleConnTimeout tasks.Duration `group:"Worker" env:"FLEET_IDLE_CONN_TIMEOUT" default:"90s" help:"How long a connection is kept without a request (default: ${default})."`
	ConnLifetime    tasks.Duration `group:"Worker" env:"FLEET_CONN_LIFETIME" default:"0s" help:"The age at which a connection is closed once no request uses it, so that changes of DNS are followed; 0s = no limit (default: ${default})."`
	TCPKeepalive    tasks.Duration `group:"Worker" name:"tcp-keepalive" env:"FLEET_TCP_KEEPALIVE" default:"15s" help:"Interval of TCP's probes of silent connections; 0s = none (default: ${default})."`
	HTTP2Ping       tasks.Duration `group:"Worker" name:"http2-ping" env:"FLEET_HTTP2_PING" default:"30s" help:"How long an HTTP/2 connection with requests may be silent before it is pinged; without an answer within 15s it is given up (default: ${default})."`
}

// connections reads the flags. What is wrong with them is a usage error that names the flag.
func (f *ConnectionFlags) connections() (fetch.Connections, error) {
	c := fetch.Connections{
		DNSTTL: orNone(f.DNSTTL), Family: fetch.Family(f.IP), ConsulToken: os.Getenv("CONSUL_HTTP_TOKEN"),
		MaxConns: f.MaxConns, MaxConnsPerHost: f.MaxConnsPerHost, MaxWaiting: f.MaxWaiting,
		ConnLifetime: time.Duration(f.ConnLifetime), KeepAlive: orNone(f.TCPKeepalive), PingInterval: time.Duration(f.HTTP2Ping),
	}
	if err := f.checkNumbers(); err != nil {
		return c, err
	}
	if c.MaxWaiting > 0 && c.MaxConns == 0 && c.MaxConnsPerHost == 0 {
		return c, usage("--max-waiting %d: nobody waits without --max-conns or --max-conns-per-host", c.MaxWaiting)
	}
	var err error
	if c.Sources, err = f.sources(); err != nil {
		return c, err
	}
	if c.Servers, err = f.servers(); err != nil {
		return c, err
	}
	if rules := words(f.Proxy); len(rules) > 0 {
		if c.Proxies, err = proxies.Parse(rules, reference); err != nil {
			return c, usage("--proxy: %w", err)
		}
	}
	return c, nil
}

// orNone turns 0, which flags say for none, into what the options say for it.
func orNone(d tasks.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return time.Duration(d)
}

func (f *ConnectionFlags) checkNumbers() error {
	for _, n := range []struct {
		flag  string
		value int
	}{
		{"--max-conns", f.MaxConns}, {"--max-conns-per-host", f.MaxConnsPerHost}, {"--max-waiting", f.MaxWaiting},
		{"--max-idle-conns", f.MaxIdleConns}, {"--max-idle-per-host", f.MaxIdlePerHost},
	} {
		if n.value < 0 {
			return usage("%s %d: 0 or more", n.flag, n.value)
		}
	}
	for _, d := range []struct {
		flag  string
		value tasks.Duration
		least time.Duration
	}{
		{"--dns-ttl", f.DNSTTL, 0}, {"--conn-lifetime", f.ConnLifetime, 0}, {"--tcp-keepalive", f.TCPKeepalive, 0},
		{"--idle-conn-timeout", f.IdleConnTimeout, time.Millisecond}, {"--http2-ping", f.HTTP2Ping, time.Millisecond},
	} {
		if time.Duration(d.value) < d.least {
			return usage("%s %s: at least %s", d.flag, d.value, d.least)
		}
	}
	return nil
}

func (f *ConnectionFlags) sources() (addrs []netip.Addr, err error) {
	for _, text := range f.SourceAddress {
		if text = strings.TrimSpace(text); text == "" { // as an empty variable gives
			continue
		}
		addr, err := netip.ParseAddr(text)
		if err != nil || addr.IsUnspecified() || addr.IsMulticast() {
			return nil, usage("--source-address %q: write an address of this machine, like 192.0.2.7", text)
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func (f *ConnectionFlags) servers() (rules []discover.Rule, err error) {
	for _, text := range words(f.Resolve) {
		rule, err := discover.ParseResolve(text)
		if err != nil {
			return nil, usage("--resolve: %w", err)
		}
		rules = append(rules, rule)
	}
	for _, text := range words(f.Discover) {
		rule, err := discover.ParseDiscover(text)
		if err != nil {
			return nil, usage("--discover: %w", err)
		}
		rules = append(rules, rule)
	}
	seen := map[string]bool{}
	for _, rule := range rules {
		key := fmt.Sprintf("%s:%d", rule.Host, rule.Port)
		if seen[key] {
			return nil, usage("--resolve, --discover: there are two rules for %s: give one, with all its addresses", strings.TrimSuffix(key, ":0"))
		}
		seen[key] = true
	}
	return rules, nil
}

// words splits values at spaces, because a variable has one value only.
func words(values []string) (out []string) {
	for _, v := range values {
		out = append(out, strings.Fields(v)...)
	}
	return out
}

// reference resolves what ${env:NAME} and ${file:PATH} stand for in a flag of the operator's. Its errors show no value.
func reference(ref string) (string, error) {
	kind, name, _ := strings.Cut(ref, ":")
	if kind == "env" {
		value, ok := os.LookupEnv(name)
		if !ok {
			return "", fmt.Errorf("the variable %s is not set", name)
		}
		return value, nil
	}
	data, err := os.ReadFile(name)
	if err != nil {
		return "", err
	}
	return strings.TrimRight(string(data), "\r\n"), nil
}

// connectionFigures are the fetcher's figures as metrics know them.
func connectionFigures(f *fetch.Fetcher) metrics.Connections {
	s := f.Stats()
	return metrics.Connections{
		Open: float64(s.Open), Idle: float64(s.Idle), Waiting: float64(s.Waiting), ProxiesOut: float64(s.ProxiesOut),
		Opened: float64(s.Opened), Reused: float64(s.Reused), DialsFailed: float64(s.DialsFailed),
		HandshakesFull: float64(s.Handshakes), HandshakesResumed: float64(s.Resumed),
		Waits: float64(s.Waits), WaitSeconds: s.WaitTime.Seconds(),
		DNSHits: float64(s.DNSHits), DNSMisses: float64(s.DNSMisses), DNSNegative: float64(s.DNSNo),
	}
}
