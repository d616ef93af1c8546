package fetch

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// alternatives remembers which origins have said that they speak HTTP/3 as well (Alt-Svc, RFC 7838).
//
// Only alternatives on the origin's own host are used, at whatever port: another host would be asked without anybody having
// named it, past the limits of the one that was.
type alternatives struct {
	mu    sync.Mutex
	known map[origin]alternative
}

// origin is whom an alternative stands for. Lanes do not learn from one another: what an unverified server says is not for
// the others.
type origin struct {
	lane lane
	addr string // host:port
}

// alternative is where an origin speaks HTTP/3.
type alternative struct {
	addr    string // host:port
	expires time.Time
	shunned time.Time // not to be used before this
}

const (
	maxAlternatives = 4096
	// defaultMaxAge is how long an alternative holds that does not say so (RFC 7838, section 3.1).
	defaultMaxAge = 24 * time.Hour
	// maxMaxAge bounds what an origin may ask for.
	maxMaxAge = 30 * 24 * time.Hour
	// shunTime is how long an alternative that failed is left alone.
	shunTime = 5 * time.Minute
	// altDialTime bounds the attempt to reach an alternative. Where UDP is filtered nothing ever answers, and TCP waits.
	altDialTime = 2 * time.Second
)

func newAlternatives() *alternatives { return &alternatives{known: map[origin]alternative{}} }

func originOf(l lane, u *url.URL) origin { return origin{lane: l, addr: addrOf(u)} }

// addrOf is where an https URL is dialled.
func addrOf(u *url.URL) string {
	if u.Port() != "" {
		return u.Host
	}
	return u.Host + ":443"
}

// of returns where o speaks HTTP/3, "" if that is unknown, or has lately failed.
func (a *alternatives) of(o origin, now time.Time) string {
	a.mu.Lock()
	defer a.mu.Unlock()
	known, ok := a.known[o]
	if !ok || now.Before(known.shunned) {
		return ""
	}
	if now.After(known.expires) {
		delete(a.known, o)
		return ""
	}
	return known.addr
}

// learn takes an answer's Alt-Svc fields: they replace what was known. An alternative that is shunned stays so.
func (a *alternatives) learn(o origin, u *url.URL, fields []string, now time.Time) {
	if len(fields) == 0 {
		return
	}
	port, age := parseAltSvc(fields, u.Hostname())
	a.mu.Lock()
	defer a.mu.Unlock()
	old := a.known[o]
	if port == "" || age <= 0 {
		if !now.Before(old.shunned) {
			delete(a.known, o)
		}
		return
	}
	for other := range a.known { // any: which of thousands is asked next cannot be known
		if len(a.known) < maxAlternatives {
			break
		}
		delete(a.known, other)
	}
	host := strings.TrimSuffix(addrOf(u), ":"+addrPort(u))
	a.known[o] = alternative{addr: host + ":" + port, expires: now.Add(age), shunned: old.shunned}
}

func addrPort(u *url.URL) string {
	if p := u.Port(); p != "" {
		return p
	}
	return "443"
}

// shun leaves the alternative of o alone for a while.
func (a *alternatives) shun(o origin, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if known, ok := a.known[o]; ok {
		known.shunned = now.Add(shunTime)
		a.known[o] = known
	}
}

// parseAltSvc returns the port of the first alternative that is HTTP/3 on the host itself, and how long it holds; "" if
// there is none, as after clear.
func parseAltSvc(fields []string, host string) (port string, age time.Duration) {
	for _, value := range splitQuoted(strings.Join(fields, ","), ',') {
		parts := splitQuoted(value, ';')
		protocol, authority, ok := strings.Cut(strings.TrimSpace(parts[0]), "=")
		if !ok || protocol != "h3" {
			continue
		}
		name, p, ok := cutPort(unquote(authority))
		if !ok || name != "" && !strings.EqualFold(name, host) {
			continue
		}
		return p, maxAge(parts[1:])
	}
	return "", 0
}

// cutPort splits "host:port" or ":port"; IPv6 loses its brackets.
func cutPort(authority string) (host, port string, ok bool) {
	i := strings.LastIndexByte(authority, ':')
	if i < 0 {
		return "", "", false
	}
	n, err := strconv.ParseUint(authority[i+1:], 10, 16)
	if err != nil || n == 0 {
		return "", "", false
	}
	return strings.Trim(authority[:i], "[]"), strconv.FormatUint(n, 10), true
}

func maxAge(parameters []string) time.Duration {
	for _, p := range parameters {
		name, value, _ := strings.Cut(strings.TrimSpace(p), "=")
		if !strings.EqualFold(name, "ma") {
			continue
		}
		seconds, err := strconv.ParseUint(unquote(value), 10, 31)
		if err != nil {
			return 0
		}
		return min(time.Duration(seconds)*time.Second, maxMaxAge)
	}
	return defaultMaxAge
}

// splitQuoted splits s at sep where that stands in no quoted string (RFC 9110, section 5.6.4).
func splitQuoted(s string, sep byte) []string {
	var parts []string
	start, quoted := 0, false
	for i := 0; i < len(s); i++ {
		switch {
		case quoted && s[i] == '\\':
			i++
		case s[i] == '"':
			quoted = !quoted
		case s[i] == sep && !quoted:
			parts = append(parts, s[start:i])
			start = i + 1
		}
	}
	return append(parts, s[start:])
}

// unquote takes the quotes and backslashes off a quoted string; a token stays as it is.
func unquote(s string) string {
	s = strings.TrimSpace(s)
	if len(s) < 2 || s[0] != '"' || s[len(s)-1] != '"' {
		return s
	}
	var b strings.Builder
	for i := 1; i < len(s)-1; i++ {
		if s[i] == '\\' && i+1 < len(s)-1 {
			i++
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

// repeatable reports whether a request may go over TCP after it has perhaps gone over QUIC (RFC 9110, section 9.2.2).
func repeatable(req *http.Request) bool {
	switch req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions:
		return req.Body == nil || req.Body == http.NoBody
	}
	return false
}
