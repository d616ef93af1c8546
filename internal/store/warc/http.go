package warc

import (
	"net/netip"
	"net/textproto"
	"slices"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// AppendResponseHead appends status line and fields of an answer, in the form of HTTP/1.1 (RFC 9112) whatever was spoken,
// with the empty line that ends them. Field names are canonical and sorted. Transfer-Encoding is left out, since the body
// that follows has none any more.
func AppendResponseHead(b []byte, e *store.Exchange) []byte {
	b = append(b, version(e.Protocol)...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(min(max(e.Status, 0), 999)+1000), 10)
	b = slices.Delete(b, len(b)-4, len(b)-3) // three digits
	b = append(b, ' ')
	b = appendText(b, e.Reason)
	return appendFields(append(b, "\r\n"...), e.Response)
}

// AppendRequestHead appends request line and fields of a request, in the same form.
func AppendRequestHead(b []byte, e *store.Exchange) []byte {
	method, target := e.Method, e.Target
	if !isToken(method) {
		method = "GET"
	}
	if target == "" {
		target = "/"
	}
	b = append(append(b, method...), ' ')
	b = append(appendURI(b, target), ' ')
	b = append(b, version(e.Protocol)...)
	return appendFields(append(b, "\r\n"...), e.Request)
}

func version(protocol string) string {
	if protocol == "HTTP/1.0" {
		return protocol
	}
	return "HTTP/1.1"
}

// appendFields drops fields whose names are none, such as the pseudo-fields of HTTP/2.
func appendFields(b []byte, fields map[string][]string) []byte {
	type named struct {
		name   string
		values []string
	}
	var few [40]named
	list := few[:0]
	for name, values := range fields {
		if isToken(name) && !strings.EqualFold(name, "Transfer-Encoding") {
			list = append(list, named{textproto.CanonicalMIMEHeaderKey(name), values})
		}
	}
	slices.SortFunc(list, func(a, b named) int { return strings.Compare(a.name, b.name) })
	for _, f := range list {
		for _, v := range f.values {
			b = append(append(b, f.name...), ": "...)
			b = append(appendText(b, strings.Trim(v, " \t\r\n")), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// isToken reports whether s is a token (RFC 9110, section 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		alnum := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// Protocol returns the WARC-Protocol of an exchange, "" when it is not known: a field that the WARC community has agreed
// on beside the standard, with the names of ALPN (RFC 7301).
func Protocol(e *store.Exchange) string {
	switch e.Protocol {
	case "HTTP/1.0":
		return "http/1.0"
	case "HTTP/1.1":
		return "http/1.1"
	case "HTTP/2.0", "HTTP/2":
		return "h2"
	case "HTTP/3.0", "HTTP/3":
		return "h3"
	}
	return ""
}

// IP returns the WARC-IP-Address of an exchange, "" when it is not known.
func IP(e *store.Exchange) string {
	ap, err := netip.ParseAddrPort(e.RemoteAddr)
	if err != nil {
		return ""
	}
	return ap.Addr().Unmap().WithZone("").String()
}
