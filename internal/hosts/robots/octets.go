package robots

import "strings"

// Classes of octets, as RFC 3986 2.2 and 2.3 divide them.
const (
	unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	reserved   = ":/?#[]@!$&'()*+,;="
	// inQuery is the reserved octets that mean nothing in a query, where RFC 9309 2.2.2 has them encoded. "?" is left out so
	// that the first of them stays where it is, and the sub-delimiters because "=" and "&" part a query's fields.
	inQuery = ":/@[]"
)

const upperHex = "0123456789ABCDEF"

// asIs says of each octet whether it stays as it is written. "*" and "$" do not: what RFC 9309 2.2.3 calls special
// is written %2A and %24 where it stands for itself, in a rule as in a target.
var asIs = func() (table [256]bool) {
	for _, c := range []byte(unreserved + reserved) {
		table[c] = c != '*' && c != '$'
	}
	return table
}()

// normalize gives all spellings of a path that RFC 9309 2.2.2 holds equal one form: unreserved octets are decoded, what cannot
// stand in an address is encoded, and the hex of what stays encoded is in upper case. Reserved octets stay as they are written, so
// that %2F is not "/". A "%" without two hex digits stays too. With stars, "*" is left for the pattern; otherwise it becomes %2A.
func normalize(s string, stars bool) string {
	i := 0
	for i < len(s) && (asIs[s[i]] || stars && s[i] == '*') {
		i++
	}
	if i == len(s) {
		return s
	}
	out := append(make([]byte, 0, len(s)+16), s[:i]...)
	for ; i < len(s); i++ {
		c := s[i]
		switch {
		case asIs[c] || stars && c == '*':
			out = append(out, c)
		case c != '%':
			out = appendEncoded(out, c)
		case i+2 < len(s) && isHex(s[i+1]) && isHex(s[i+2]):
			out = appendDecoded(out, unhex(s[i+1])<<4|unhex(s[i+2]))
			i += 2
		default:
			out = append(out, '%')
		}
	}
	return string(out)
}

// splitQuery encodes, in what follows the first "?" of a normalized path, the octets of inQuery. Two paths that were equal stay
// equal, and so does a match of octets between them, provided that their first "?" meet.
func splitQuery(path string) string {
	at := strings.IndexByte(path, '?')
	if at < 0 || !strings.ContainsAny(path[at:], inQuery) {
		return path
	}
	out := append(make([]byte, 0, len(path)+16), path[:at]...)
	for _, c := range []byte(path[at:]) {
		if strings.IndexByte(inQuery, c) >= 0 {
			out = appendEncoded(out, c)
			continue
		}
		out = append(out, c)
	}
	return string(out)
}

func appendEncoded(out []byte, c byte) []byte {
	return append(out, '%', upperHex[c>>4], upperHex[c&15])
}

// appendDecoded appends the octet that an escape stood for: itself where it is unreserved, else as an escape again.
func appendDecoded(out []byte, c byte) []byte {
	if strings.IndexByte(unreserved, c) >= 0 {
		return append(out, c)
	}
	return appendEncoded(out, c)
}

func isHex(c byte) bool { return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'f' }

// unhex returns the value of a hex digit.
func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}
