package payload

import (
	"bytes"
	"net/url"
	"strings"
)

// AddQuery returns a URL with parameters behind those that it has, percent-encoded (RFC 3986 section 2.1), and its
// fragment kept at its end. It does not judge the URL.
func AddQuery(target string, params []Pair) string {
	if len(params) == 0 {
		return target
	}
	target, fragment, hasFragment := strings.Cut(target, "#")
	b := make([]byte, 0, len(target)+32*len(params))
	b = append(b, target...)
	switch {
	case !strings.Contains(target, "?"):
		b = append(b, '?')
	case !strings.HasSuffix(target, "?") && !strings.HasSuffix(target, "&"):
		b = append(b, '&')
	}
	for i, p := range params {
		if i > 0 {
			b = append(b, '&')
		}
		b = AppendEscaped(b, p.Name)
		b = append(b, '=')
		b = AppendEscaped(b, p.Value)
	}
	if hasFragment {
		b = append(b, '#')
		b = append(b, fragment...)
	}
	return string(b)
}

// AppendEscaped appends s with every byte percent-encoded that RFC 3986 section 2.3 does not call unreserved.
func AppendEscaped(b []byte, s string) []byte {
	const hex = "0123456789ABCDEF"
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '.', c == '_', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return b
}

// Form encodes fields as application/x-www-form-urlencoded, in the order given.
func Form(fields []Pair) []byte {
	var b bytes.Buffer
	for i, f := range fields {
		if i > 0 {
			b.WriteByte('&')
		}
		b.WriteString(url.QueryEscape(f.Name))
		b.WriteByte('=')
		b.WriteString(url.QueryEscape(f.Value))
	}
	return b.Bytes()
}
