// Package discover finds where a host's servers are when DNS does not say so: addresses given by hand, service records
// (RFC 2782), and the healthy instances that Consul knows.
//
// It promises that what it says is no older than the record's TTL, or than Consul's last answer, and that one Directory
// asks for each service only once at a time. It dials nothing but Consul, through the client it is given.
package discover

import (
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/idna"

	"github.com/fetchfleet/fetchfleet/internal/fetch/balance"
)

// Kind is how a rule finds servers.
type Kind string

// The kinds of rules.
const (
	Fixed  Kind = "fixed"  // addresses given by hand
	SRV    Kind = "srv"    // DNS service records
	Consul Kind = "consul" // Consul's healthy instances
)

// Rule says where the servers of a host are.
type Rule struct {
	Host    string // lower case, without a port
	Port    uint16 // of the URL; 0 means any
	Kind    Kind
	Servers []balance.Endpoint // of a Fixed rule
	Name    string             // of an SRV rule: the record's owner
	Base    *url.URL           // of a Consul rule: where its API is
	Service string             // of a Consul rule
}

// ParseResolve reads HOST[:PORT]=ADDR[,ADDR…]; each address may have a port of its own.
func ParseResolve(text string) (Rule, error) {
	rule, value, err := parseHead(text)
	if err != nil {
		return Rule{}, fmt.Errorf("%w: write HOST[:PORT]=ADDR[,ADDR]", err)
	}
	rule.Kind = Fixed
	for part := range strings.SplitSeq(value, ",") {
		server, err := parseServer(strings.TrimSpace(part))
		if err != nil {
			return Rule{}, err
		}
		rule.Servers = append(rule.Servers, server)
	}
	return rule, nil
}

// ParseDiscover reads HOST[:PORT]=srv:NAME and HOST[:PORT]=consul:http://HOST:PORT/SERVICE.
func ParseDiscover(text string) (Rule, error) {
	rule, value, err := parseHead(text)
	if err != nil {
		return Rule{}, fmt.Errorf("%w: write HOST=srv:NAME or HOST=consul:URL/SERVICE", err)
	}
	kind, source, _ := strings.Cut(value, ":")
	switch rule.Kind = Kind(kind); rule.Kind {
	case SRV:
		rule.Name = source
		return rule, checkName(source)
	case Consul:
		err := rule.parseConsul(source)
		return rule, err
	}
	return Rule{}, fmt.Errorf("service discovery %q is not known: write srv:NAME or consul:URL/SERVICE", kind)
}

func (r *Rule) parseConsul(text string) error {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("%s: no address of Consul: write consul:http://HOST:PORT/SERVICE; a token stands in CONSUL_HTTP_TOKEN", r.Host)
	}
	at := strings.LastIndexByte(u.Path, '/')
	if at < 0 || at == len(u.Path)-1 {
		return fmt.Errorf("%s: the address of Consul names no service: write consul:%s://%s/SERVICE", r.Host, u.Scheme, u.Host)
	}
	r.Service, r.Base = u.Path[at+1:], &url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path[:at]}
	return nil
}

// checkName accepts what may be asked of a name server: labels of 1 to 63 bytes that print, at most 253 in all.
func checkName(name string) error {
	plain := strings.TrimSuffix(name, ".")
	for label := range strings.SplitSeq(plain, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool { return r <= ' ' || r >= 0x7f }) {
			return fmt.Errorf("%q is no name of a service record: write _http._tcp.example.com", name)
		}
	}
	if len(plain) > 253 {
		return fmt.Errorf("the name of a service record has %d bytes, at most 253 are possible", len(plain))
	}
	return nil
}

// parseHead reads what both kinds of flags begin with.
func parseHead(text string) (Rule, string, error) {
	head, value, ok := strings.Cut(strings.TrimSpace(text), "=")
	if !ok || value == "" {
		return Rule{}, "", fmt.Errorf("%q says nothing about a host", text)
	}
	host, port, err := splitPort(head)
	if err != nil {
		return Rule{}, "", err
	}
	host, err = Canonical(host)
	return Rule{Host: host, Port: port}, value, err
}

// Canonical returns host as it is dialled: in lower case, and in ASCII where it is not.
func Canonical(host string) (string, error) {
	plain := strings.ToLower(strings.TrimSuffix(host, "."))
	if _, err := netip.ParseAddr(plain); err == nil {
		return plain, nil
	}
	ascii, err := idna.Lookup.ToASCII(plain)
	if err != nil && !strings.Contains(plain, "_") { // which names of hosts have all the same
		return "", fmt.Errorf("%q is no host", host)
	}
	if err != nil {
		ascii = plain
	}
	if ascii == "" || strings.ContainsFunc(ascii, func(r rune) bool { return r <= ' ' || r >= 0x7f || strings.ContainsRune("/:@[]?#,=", r) }) {
		return "", fmt.Errorf("%q is no host", host)
	}
	return ascii, nil
}

// splitPort splits HOST, HOST:PORT, [V6] and [V6]:PORT; a bare IPv6 address is a host.
func splitPort(text string) (host string, port uint16, err error) {
	if addr, err := netip.ParseAddr(text); err == nil {
		return addr.String(), 0, nil
	}
	host = text
	if at := strings.LastIndexByte(text, ':'); at > strings.LastIndexByte(text, ']') {
		n, err := strconv.ParseUint(text[at+1:], 10, 16)
		if err != nil || n == 0 {
			return "", 0, fmt.Errorf("port %q is not between 1 and 65535", text[at+1:])
		}
		host, port = text[:at], uint16(n)
	}
	if inner, ok := strings.CutPrefix(host, "["); ok {
		addr, err := netip.ParseAddr(strings.TrimSuffix(inner, "]"))
		if err != nil || !strings.HasSuffix(inner, "]") {
			return "", 0, fmt.Errorf("%q is no address", host)
		}
		return addr.String(), port, nil
	}
	return host, port, nil
}

func parseServer(text string) (balance.Endpoint, error) {
	host, port, err := splitPort(text)
	if err != nil {
		return balance.Endpoint{}, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return balance.Endpoint{}, fmt.Errorf("%q is no address: write an IPv4 or IPv6 address, with a port after it if need be", text)
	}
	return balance.Endpoint{Host: addr.Unmap().String(), Port: port, Weight: 1}, nil
}
