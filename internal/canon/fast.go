package canon

import "strings"

// What a byte may be part of in a URL that is canonical already. Bytes that need a look at their neighbours
// ('.' and '%' in a path) are in none of the path's class.
const (
	inName  = 1 << iota // of a hostname that IDNA leaves alone
	inPath              // of a path
	inQuery             // of a query (special-query percent-encode set)
)

// The longest name and label that parseCanonical judges (RFC 1035 section 2.3.4); longer ones take the long way.
const (
	maxName  = 253
	maxLabel = 63
)

var classes = classify()

func classify() (t [256]uint8) {
	for c := byte('a'); c <= 'z'; c++ {
		t[c] |= inName
	}
	for c := byte('0'); c <= '9'; c++ {
		t[c] |= inName
	}
	for _, c := range []byte("-._") {
		t[c] |= inName
	}
	for c := byte('!'); c <= '~'; c++ {
		if !strings.ContainsRune("\"#<>?`{}\\^.%", rune(c)) {
			t[c] |= inPath
		}
		if !strings.ContainsRune("\"#<>'", rune(c)) {
			t[c] |= inQuery
		}
	}
	return t
}

// parseCanonical recognises, in one scan, a URL that the standard's parser would give back unchanged (but for its
// fragment, and for the slash that "http://host" lacks). It answers false whenever it is not sure; the long way
// then decides. The fuzz test holds it to what the long way says.
func parseCanonical(s string) (URL, bool) {
	var scheme, ownPort string
	var host int
	switch {
	case strings.HasPrefix(s, "https://"):
		scheme, ownPort, host = "https", "443", len("https://")
	case strings.HasPrefix(s, "http://"):
		scheme, ownPort, host = "http", "80", len("http://")
	default:
		return URL{}, false
	}
	n, ok := scanAuthority(s[host:], ownPort)
	if !ok {
		return URL{}, false
	}
	end := host + n
	u := URL{Scheme: scheme, Host: s[host:end]}
	if end == len(s) && end < MaxLength {
		u.Href = s + "/"
		return u, true
	}
	if end == len(s) || s[end] != '/' {
		return URL{}, false
	}
	end, ok = scanPath(s, end)
	if ok && end < len(s) && s[end] == '?' {
		end, ok = scanQuery(s, end+1)
	}
	u.Href = s[:end]
	return u, ok
}

// scanAuthority returns the length of the name and port that s begins with.
func scanAuthority(s, ownPort string) (int, bool) {
	n, ok := scanName(s)
	if !ok || n == len(s) || s[n] != ':' {
		return n, ok
	}
	port := s[n+1:]
	d, value := 0, 0
	for d < len(port) && d < 6 && port[d]-'0' <= 9 {
		value = value*10 + int(port[d]-'0')
		d++
	}
	canonical := d > 0 && port[0] != '0' && value <= 65535 && port[:d] != ownPort
	return n + 1 + d, canonical
}

// scanName returns the length of the hostname that s begins with: lower-case labels that IDNA would not touch,
// or an IPv4 address in its usual form. A last label that begins like a number may be an IPv4 address in disguise.
func scanName(s string) (int, bool) {
	i, label := 0, 0
	for ; i < len(s) && classes[s[i]]&inName != 0; i++ {
		switch {
		case s[i] == '.':
			if i == label || i-label > maxLabel {
				return 0, false
			}
			label = i + 1
		case s[i] == 'x' && i == label && strings.HasPrefix(s[i:], "xn--"):
			return 0, false
		}
	}
	if i == label || i-label > maxLabel || i > maxName {
		return 0, false
	}
	first := s[label]
	if first >= 'a' && first <= 'z' || first == '_' {
		return i, true
	}
	return i, isDottedDecimal(s[:i])
}

// isDottedDecimal reports whether s is four decimal numbers up to 255, without leading zeros.
func isDottedDecimal(s string) bool {
	parts := 0
	for {
		d, value := 0, 0
		for d < len(s) && d < 4 && s[d]-'0' <= 9 {
			value = value*10 + int(s[d]-'0')
			d++
		}
		if d == 0 || value > 255 || d > 1 && s[0] == '0' {
			return false
		}
		parts++
		if d == len(s) {
			return parts == 4
		}
		if s[d] != '.' {
			return false
		}
		s = s[d+1:]
	}
}

// scanPath returns where the path that begins at s[i] ends: at a '?', a '#' or the end.
func scanPath(s string, i int) (int, bool) {
	for ; i < len(s); i++ {
		c := s[i]
		if classes[c]&inPath != 0 {
			continue
		}
		switch c {
		case '?', '#':
			return i, true
		case '.':
			if s[i-1] == '/' && mayBeDotSegment(s[i+1:]) {
				return i, false
			}
		case '%':
			if strings.HasPrefix(s[i:], "%2e") || strings.HasPrefix(s[i:], "%2E") {
				return i, false
			}
		default:
			return i, false
		}
	}
	return i, true
}

// mayBeDotSegment reports whether a segment that begins with a dot and goes on with rest may be "." or "..".
func mayBeDotSegment(rest string) bool {
	return rest == "" || rest[0] == '.' || rest[0] == '/' || rest[0] == '?' || rest[0] == '#'
}

// scanQuery returns where the query that begins at s[i] ends: at a '#' or the end.
func scanQuery(s string, i int) (int, bool) {
	for ; i < len(s); i++ {
		if classes[s[i]]&inQuery == 0 {
			return i, s[i] == '#'
		}
	}
	return i, true
}
