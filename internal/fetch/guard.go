package fetch

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"syscall"
)

// special lists the blocks that no public web server lives in, from the IANA
// special-purpose registries (RFC 6890 and its updates). The translation blocks
// at the end are there because they carry an IPv4 address, which may be private.
var special = mustPrefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16",
	"172.16.0.0/12", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16",
	"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
	"::1/128", "::/96", "100::/64", "2001::/23", "2001:db8::/32", "3fff::/20", "5f00::/16",
	"fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
	"64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "::ffff:0:0:0/96",
)

func mustPrefixes(texts ...string) []netip.Prefix {
	prefixes := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		prefixes[i] = netip.MustParsePrefix(text)
	}
	return prefixes
}

// ParsePrefixes reads what --allow-private takes: CIDR blocks ("10.0.0.0/8"),
// single addresses ("127.0.0.1", "::1"), and "all" for every address. Surrounding
// space is ignored. The error names the text that is neither.
func ParsePrefixes(texts []string) ([]netip.Prefix, error) {
	var prefixes []netip.Prefix
	for _, text := range texts {
		text = strings.TrimSpace(text)
		if strings.EqualFold(text, "all") {
			prefixes = append(prefixes, mustPrefixes("0.0.0.0/0", "::/0")...)
			continue
		}
		prefix, err := parsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("parse address block %q: want a CIDR block, an address or \"all\"", text)
		}
		prefixes = append(prefixes, prefix)
	}
	return prefixes, nil
}

func parsePrefix(text string) (netip.Prefix, error) {
	if prefix, err := netip.ParsePrefix(text); err == nil {
		return plainPrefix(prefix), nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Prefix{}, err
	}
	addr = addr.WithZone("")
	return plainPrefix(netip.PrefixFrom(addr, addr.BitLen())), nil
}

// plainPrefix turns a block of IPv4-mapped IPv6 addresses into the IPv4 block,
// because the guard compares unmapped addresses.
func plainPrefix(p netip.Prefix) netip.Prefix {
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked()
}

// guard decides which addresses may be dialled. It is asked by the dialer about
// the final address, so neither a redirect nor a name that resolves differently
// the second time gets around it.
type guard struct{ allowed []netip.Prefix }

func newGuard(allowed []netip.Prefix) guard {
	plain := make([]netip.Prefix, len(allowed))
	for i, p := range allowed {
		plain[i] = plainPrefix(p)
	}
	return guard{allowed: plain}
}

// refusedError is the guard's no.
type refusedError struct {
	addr  netip.Addr
	block netip.Prefix
	host  string // filled in by the dialer, which knows the name
}

// Error names the address, its host where that is a name, and the flag that allows it.
func (e *refusedError) Error() string {
	of := ""
	if e.host != "" && e.host != e.addr.String() {
		of = " of " + e.host
	}
	return fmt.Sprintf("address %v%s is private: allow it with --allow-private %v", e.addr, of, e.block)
}

// control is a net.Dialer's ControlContext.
func (g guard) control(_ context.Context, _, address string, _ syscall.RawConn) error {
	ap, err := netip.ParseAddrPort(address)
	if err != nil {
		return fmt.Errorf("address %q cannot be judged: %w", address, err)
	}
	return g.check(ap.Addr())
}

// check returns nil or a *refusedError.
func (g guard) check(addr netip.Addr) error {
	addr = addr.Unmap().WithZone("")
	for _, p := range special {
		if !p.Contains(addr) {
			continue
		}
		if contains(g.allowed, addr) {
			return nil
		}
		return &refusedError{addr: addr, block: p}
	}
	return nil
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	for _, p := range prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
