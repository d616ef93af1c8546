// Package canon brings http and https URLs into the one spelling that the WHATWG URL standard gives them.
//
// It promises that two spellings of one URL yield the same Href, that a canonical URL is its own canonical form
// (Parse(u.Href) is u), and that no error message repeats credentials. It does not resolve names, does not strip
// tracking parameters or sort queries, and knows no scheme but http and https.
package canon

import (
	"errors"
	"fmt"
)

// MaxLength is the longest URL accepted, in bytes, as given and in canonical form: 8 KiB, which is where common
// servers and proxies stop reading a request line.
const MaxLength = 8 << 10

// URL is one canonical http or https URL.
type URL struct {
	// Href is the whole URL without fragment; it never holds credentials.
	Href string
	// Host is the hostname, with ":port" only when it is not the scheme's default; IPv6 stands in brackets.
	Host string
	// Scheme is "http" or "https".
	Scheme string
}

// What can be wrong with a URL. Every error of this package is one of these under errors.Is.
var (
	// ErrScheme says that the scheme is neither http nor https.
	ErrScheme = errors.New("is not fetched: only http and https")
	// ErrNoScheme says that the text does not begin with a scheme.
	ErrNoScheme = errors.New("has no scheme")
	// ErrNoHost says that the URL names no host.
	ErrNoHost = errors.New("the URL has no host")
	// ErrInvalid says that the URL standard, or UTF-8, does not allow the text; the message says which rule.
	ErrInvalid = errors.New("invalid URL")
	// ErrTooLong says that the URL is longer than MaxLength.
	ErrTooLong = fmt.Errorf("the URL is longer than %d KiB", MaxLength>>10)
	// ErrCredentials says that the URL carries a user name or password.
	ErrCredentials = errors.New("credentials in a URL are not supported: use --header")
)

// Parse gives the canonical form of raw (WHATWG URL standard, basic URL parser and serializer). A URL that is
// canonical already costs one scan and no allocation: its Href and Host are substrings of raw.
//
// Text that is not UTF-8 before the fragment is refused with ErrInvalid rather than fetched as something else.
func Parse(raw string) (URL, error) {
	if len(raw) > MaxLength {
		return URL{}, ErrTooLong
	}
	if u, ok := parseCanonical(raw); ok {
		return u, nil
	}
	return parseAny(raw)
}

// Resolve gives the canonical form of ref as seen from base, the way a Location header is read (RFC 9110
// section 10.2.2). Errors are those of Parse; ErrNoScheme cannot occur.
func Resolve(base URL, ref string) (URL, error) {
	if len(ref) > MaxLength {
		return URL{}, ErrTooLong
	}
	if u, ok := parseCanonical(ref); ok {
		return u, nil
	}
	if err := checkUTF8(ref); err != nil {
		return URL{}, err
	}
	u, err := standard.ParseRef(base.Href, ref)
	if err != nil {
		return URL{}, explain(err)
	}
	return settle(u)
}
