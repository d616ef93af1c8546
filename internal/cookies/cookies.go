// Package cookies decides which cookies an answer sets and which of them a request gets (RFC 6265), for jars that many
// workers share.
//
// It promises that a host sets cookies for itself and the domains above it only, never for a public suffix, that no
// cookie goes where its attributes do not allow, and that a jar stays small. Where jars rest between visits is not its
// affair, nor what browsers add for the sake of pages (SameSite, partitions).
package cookies

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/net/publicsuffix"
)

// The bounds of a jar. RFC 6265, section 6.1, asks for 50 cookies of 4 KiB a domain at least.
const (
	MaxCookies = 64      // of a domain
	MaxSize    = 4 << 10 // bytes of name, value and attributes
)

// Cookie is one cookie as a jar keeps it. Name, Domain and Path tell it from others (RFC 6265, section 5.3).
type Cookie struct {
	Name     string `json:"n"`
	Value    string `json:"v"`
	Domain   string `json:"d"`           // lower case, no leading dot
	HostOnly bool   `json:"h,omitempty"` // it is for Domain itself and not for names below it
	Path     string `json:"p"`
	Secure   bool   `json:"s,omitempty"`
	Expires  int64  `json:"e,omitempty"` // Unix milliseconds, 0 = it lasts as long as the jar
	At       int64  `json:"t"`           // when it was set, Unix milliseconds
	Created  int64  `json:"c"`           // when its name was first set
}

// Key tells a cookie from all others of its domain.
func (c *Cookie) Key() string { return c.Domain + ";" + c.Path + ";" + c.Name }

// gone reports whether the cookie has expired. One that was just removed is kept as such for a while, so that an
// older value that another worker brings later does not come back.
func (c *Cookie) gone(now time.Time) bool { return c.Expires != 0 && c.Expires <= now.UnixMilli() }

// Domains are those whose cookies a request to u may get: its host, and what is above it down to the registrable domain.
// An address, and a name that is a public suffix itself, stands alone.
func Domains(u *url.URL) []string {
	host := hostOf(u)
	domains := []string{host}
	if host == "" || net.ParseIP(host) != nil {
		return domains
	}
	top, err := publicsuffix.EffectiveTLDPlusOne(host)
	if err != nil {
		return domains
	}
	for host != top {
		_, host, _ = strings.Cut(host, ".")
		domains = append(domains, host)
	}
	return domains
}

func hostOf(u *url.URL) string { return strings.ToLower(strings.TrimSuffix(u.Hostname(), ".")) }

// Set are the cookies that an answer to a request to u sets. Those that may not be set are left out.
func Set(u *url.URL, answer http.Header, now time.Time) []Cookie {
	var set []Cookie
	for _, line := range answer["Set-Cookie"] {
		if len(line) > MaxSize {
			continue
		}
		parsed, err := http.ParseSetCookie(line)
		if err != nil {
			continue
		}
		if c, ok := accept(u, parsed, now); ok {
			set = append(set, c)
		}
	}
	return set
}

// accept is RFC 6265, section 5.3, and of its successor what guards secure cookies: a plain connection does not set
// them, and the prefixes of names hold.
func accept(u *url.URL, p *http.Cookie, now time.Time) (Cookie, bool) {
	secure := u.Scheme == "https"
	c := Cookie{Name: p.Name, Value: p.Value, Path: p.Path, Secure: p.Secure, At: now.UnixMilli(), Created: now.UnixMilli()}
	if p.Quoted {
		c.Value = `"` + p.Value + `"`
	}
	if p.Secure && !secure || p.Name == "" {
		return c, false
	}
	var ok bool
	if c.Domain, c.HostOnly, ok = domain(hostOf(u), p.Domain); !ok {
		return c, false
	}
	if !strings.HasPrefix(c.Path, "/") || strings.ContainsAny(c.Path, ";\x00") {
		c.Path = defaultPath(u.EscapedPath())
	}
	switch {
	case p.MaxAge < 0:
		c.Expires = now.UnixMilli()
	case p.MaxAge > 0:
		c.Expires = now.Add(min(time.Duration(p.MaxAge), forever/time.Second) * time.Second).UnixMilli()
	case !p.Expires.IsZero():
		c.Expires = max(1, min(p.Expires.UnixMilli(), now.Add(forever).UnixMilli()))
	}
	return c, prefixed(&c, p)
}

// forever is the longest life of a cookie: RFC 6265bis, section 5.5.
const forever = 400 * 24 * time.Hour

// prefixed reports whether a cookie keeps what the prefix of its name promises (RFC 6265bis, section 4.1.3).
func prefixed(c *Cookie, p *http.Cookie) bool {
	switch name := strings.ToLower(c.Name); {
	case strings.HasPrefix(name, "__host-"):
		return c.Secure && c.HostOnly && p.Path == "/"
	case strings.HasPrefix(name, "__secure-"):
		return c.Secure
	}
	return true
}

// domain reads a Domain attribute at a host. ok is false where the host may not set cookies for it.
func domain(host, attribute string) (domain string, hostOnly, ok bool) {
	attribute = strings.ToLower(strings.TrimSuffix(strings.TrimPrefix(attribute, "."), "."))
	if host == "" {
		return "", false, false
	}
	if attribute == "" {
		return host, true, true
	}
	if net.ParseIP(host) != nil {
		return host, true, attribute == host
	}
	suffix, _ := publicsuffix.PublicSuffix(attribute)
	if suffix == attribute { // a host that is a public suffix itself sets cookies for itself alone
		return host, true, attribute == host
	}
	return attribute, false, host == attribute || strings.HasSuffix(host, "."+attribute)
}

// defaultPath is the directory of a path (RFC 6265, section 5.1.4).
func defaultPath(path string) string {
	i := strings.LastIndexByte(path, '/')
	if i <= 0 || path[0] != '/' {
		return "/"
	}
	return path[:i]
}

// goesTo reports whether a request to u gets the cookie (RFC 6265, section 5.4).
func (c *Cookie) goesTo(u *url.URL, now time.Time) bool {
	host := hostOf(u)
	switch {
	case c.gone(now), c.Secure && u.Scheme != "https":
		return false
	case host != c.Domain && (c.HostOnly || net.ParseIP(host) != nil || !strings.HasSuffix(host, "."+c.Domain)):
		return false
	}
	path := cmp.Or(u.EscapedPath(), "/")
	rest, below := strings.CutPrefix(path, c.Path)
	return below && (rest == "" || strings.HasSuffix(c.Path, "/") || rest[0] == '/')
}

// inOrder sorts cookies as they are sent: longer paths first, then those that were there first (RFC 6265, section 5.4).
func inOrder(all []*Cookie) {
	slices.SortFunc(all, func(a, b *Cookie) int {
		return cmp.Or(cmp.Compare(len(b.Path), len(a.Path)), cmp.Compare(a.Created, b.Created), cmp.Compare(a.Key(), b.Key()))
	})
}
