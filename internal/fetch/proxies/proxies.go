// Package proxies says through which proxy a host is reached: rules for hosts, a rotating list for the rest, or what the
// environment says.
//
// It opens nothing, and no credentials show in its errors or in a Proxy's name.
package proxies

import (
	"errors"
	"fmt"
	"net/url"
	"regexp"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/fetchfleet/fetchfleet/internal/fetch/balance"
)

// Env is the rule that honours HTTP_PROXY, HTTPS_PROXY and NO_PROXY.
const Env = "env"

// Direct is the rule of hosts that are reached without a proxy.
const Direct = "direct"

// Proxy is one proxy and what is known of it.
type Proxy struct {
	URL    *url.URL // http, https, socks5 or socks5h, with credentials
	member *balance.Member
}

// String is the proxy without its credentials.
func (p *Proxy) String() string { return p.URL.Scheme + "://" + p.URL.Host }

// Failed has the proxy left alone for a while, where there are others.
func (p *Proxy) Failed() {
	if p.member != nil {
		p.member.Failed()
	}
}

// Use counts a connection through the proxy until release is called.
func (p *Proxy) Use() (release func()) {
	if p.member == nil {
		return func() {}
	}
	return p.member.Use()
}

// Forwards reports whether requests of http URLs are handed to the proxy as they are (RFC 9112, section 3.2.2), instead of
// through a tunnel.
func (p *Proxy) Forwards() bool { return p.URL.Scheme == "http" || p.URL.Scheme == "https" }

// Rules say which proxy a host has. A nil *Rules has none for any.
type Rules struct {
	exact, suffix map[string]*list
	rest          *list // of all other hosts
	env           func(*url.URL) (*url.URL, error)
}

// list are the proxies of one pattern, none for direct.
type list struct {
	set     balance.Set
	proxies map[string]*url.URL
}

// Parse reads rules: URL, HOST=URL, *.SUFFIX=URL, HOST=direct or env. References (${env:NAME}, ${file:PATH}) in a URL are
// replaced by what resolve makes of "env:NAME" or "file:PATH"; nil means that there may be none.
func Parse(texts []string, resolve func(reference string) (string, error)) (*Rules, error) {
	r := &Rules{exact: map[string]*list{}, suffix: map[string]*list{}}
	found := map[*list][]balance.Endpoint{}
	for _, text := range texts {
		pattern, value := split(strings.TrimSpace(text))
		if value == Env && pattern == "" {
			r.env = httpproxy.FromEnvironment().ProxyFunc()
			continue
		}
		l, err := r.list(pattern)
		if err != nil {
			return nil, err
		}
		if value == Direct {
			continue
		}
		u, err := parseURL(value, resolve)
		if err != nil {
			return nil, err
		}
		l.proxies[u.String()] = u
		found[l] = append(found[l], balance.Endpoint{Host: u.String()})
	}
	for l, endpoints := range found {
		l.set.Update(endpoints)
	}
	return r, nil
}

// split takes a rule apart. What stands before = is a pattern only if it is no URL's beginning.
func split(text string) (pattern, value string) {
	head, rest, ok := strings.Cut(text, "=")
	if inner, isAddr := strings.CutPrefix(head, "["); ok && isAddr && strings.HasSuffix(inner, "]") {
		return strings.TrimSuffix(inner, "]"), rest // an IPv6 address
	}
	if !ok || strings.ContainsAny(head, ":/$") {
		return "", text
	}
	return head, rest
}

var errPattern = errors.New("a proxy's rule begins with HOST= or *.SUFFIX=")

func (r *Rules) list(pattern string) (*list, error) {
	if pattern == "" {
		return ensure(&r.rest), nil
	}
	in, name := r.exact, strings.ToLower(strings.TrimSuffix(pattern, "."))
	if suffix, ok := strings.CutPrefix(name, "*."); ok {
		in, name = r.suffix, suffix
	}
	if name == "" || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c == '*' }) {
		return nil, fmt.Errorf("%w: %q is neither", errPattern, pattern)
	}
	l := in[name]
	in[name] = ensure(&l)
	return l, nil
}

func ensure(l **list) *list {
	if *l == nil {
		*l = &list{proxies: map[string]*url.URL{}}
	}
	return *l
}

// reference is one of the forms ${env:NAME} and ${file:PATH}.
var reference = regexp.MustCompile(`\$\{((?:env|file):[^}]+)\}`)

// parseURL reads a proxy's URL. Its errors do not show the text, which may hold a password.
func parseURL(text string, resolve func(string) (string, error)) (*url.URL, error) {
	var failed error
	plain := reference.ReplaceAllStringFunc(text, func(match string) string {
		if resolve == nil {
			failed = errors.New("a proxy's URL may hold no references here")
			return ""
		}
		value, err := resolve(match[2 : len(match)-1])
		if err != nil {
			failed = fmt.Errorf("resolve %s of a proxy: %w", match, err)
		}
		return escape(value)
	})
	if failed != nil {
		return nil, failed
	}
	u, err := url.Parse(plain)
	if err != nil {
		return nil, errors.New("a proxy is no URL: write http://HOST:PORT, https://…, socks5://… or socks5h://…, with characters of a password that URLs reserve escaped")
	}
	switch u.Scheme {
	case "http", "https", "socks5", "socks5h":
	default:
		return nil, fmt.Errorf("scheme %q of a proxy is not http, https, socks5 or socks5h", u.Scheme)
	}
	if u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" {
		return nil, fmt.Errorf("a proxy's URL is a scheme, a host and a port: %s://HOST:PORT", u.Scheme)
	}
	u.Path = ""
	return u, nil
}

// escape writes a value as it may stand in a URL's user name and password.
func escape(value string) string {
	return strings.ReplaceAll(url.QueryEscape(value), "+", "%20")
}

// For returns the proxies of u's host in the order in which to try them, none for a direct connection.
func (r *Rules) For(u *url.URL) ([]*Proxy, error) {
	if r == nil {
		return nil, nil
	}
	if l := r.find(strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))); l != nil {
		return l.order(), nil
	}
	if r.env == nil {
		return nil, nil
	}
	proxy, err := r.env(u)
	if err != nil || proxy == nil {
		if err != nil { // it may quote the URL, password and all
			err = errors.New("what HTTP_PROXY or HTTPS_PROXY says is no URL of a proxy")
		}
		return nil, err
	}
	return []*Proxy{{URL: proxy}}, nil
}

// Any reports whether u's host has a proxy, or a rule that says nothing sensible about one.
func (r *Rules) Any(u *url.URL) bool {
	if r == nil {
		return false
	}
	if l := r.find(strings.ToLower(strings.TrimSuffix(u.Hostname(), "."))); l != nil {
		return len(l.proxies) > 0
	}
	if r.env == nil {
		return false
	}
	proxy, err := r.env(u)
	return proxy != nil || err != nil
}

// find returns the list of the most precise pattern that fits host, nil if none does.
func (r *Rules) find(host string) *list {
	if l := r.exact[host]; l != nil {
		return l
	}
	for rest := host; ; {
		_, after, ok := strings.Cut(rest, ".")
		if !ok {
			return r.rest
		}
		if l := r.suffix[after]; l != nil {
			return l
		}
		rest = after
	}
}

func (l *list) order() []*Proxy {
	members := l.set.Order()
	out := make([]*Proxy, len(members))
	for i, m := range members {
		out[i] = &Proxy{URL: l.proxies[m.Host], member: m}
	}
	return out
}

// Out returns how many proxies are left alone at the moment, as they failed.
func (r *Rules) Out() (n int) {
	if r == nil {
		return 0
	}
	for _, in := range []map[string]*list{r.exact, r.suffix} {
		for _, l := range in {
			n += l.set.Down()
		}
	}
	if r.rest != nil {
		n += r.rest.set.Down()
	}
	return n
}
