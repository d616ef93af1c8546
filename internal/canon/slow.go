package canon

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	whatwgerrors "github.com/nlnwa/whatwg-url/errors"
	whatwg "github.com/nlnwa/whatwg-url/url"
)

// standard is the URL standard's parser. The standard has since added '^' to what a path encodes.
var standard = whatwg.NewParser(whatwg.WithPathPercentEncodeSet(whatwg.PathPercentEncodeSet.Set('^')))

// shown is how much of a bad URL an error message repeats, in bytes.
const shown = 100

// parseAny is the long way: everything that is not plainly canonical.
func parseAny(raw string) (URL, error) {
	text := tidy(raw)
	if text == "" {
		return URL{}, fmt.Errorf("%w: it is empty", ErrInvalid)
	}
	if err := checkStart(text); err != nil {
		return URL{}, err
	}
	if err := checkUTF8(text); err != nil {
		return URL{}, err
	}
	u, err := standard.Parse(text)
	if err != nil {
		return URL{}, explain(err)
	}
	return settle(u)
}

// settle makes sure that what the parser made of a URL is one that this package stands by: the right scheme, no
// credentials, not too long, and canonical, which costs a second parse unless the fast path can see it.
func settle(u *whatwg.Url) (URL, error) {
	if s := u.Scheme(); s != "http" && s != "https" {
		return URL{}, fmt.Errorf("scheme %q %w", clip(s), ErrScheme)
	}
	if u.Username() != "" || u.Password() != "" {
		return URL{}, ErrCredentials
	}
	if u.Hostname() == "" {
		return URL{}, ErrNoHost
	}
	href := u.Href(true)
	if len(href) > MaxLength {
		return URL{}, ErrTooLong
	}
	if c, ok := parseCanonical(href); ok {
		return c, nil
	}
	again, err := standard.Parse(href)
	if err != nil || again.Href(true) != href || again.Host() != u.Host() {
		return URL{}, fmt.Errorf("%w: it has no stable canonical form", ErrInvalid)
	}
	return URL{Href: href, Host: u.Host(), Scheme: u.Scheme()}, nil
}

// tidy drops what the standard drops before it looks: control characters and spaces around, tabs and newlines inside.
func tidy(raw string) string {
	s := strings.TrimFunc(raw, func(r rune) bool { return r <= ' ' })
	if !strings.ContainsAny(s, "\t\n\r") {
		return s
	}
	return strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(s)
}

// checkStart refuses a wrong or missing scheme and credentials, with messages for people: the parser would take
// "localhost:8080" for a URL of the scheme "localhost", and would repeat a password in its errors.
func checkStart(s string) error {
	scheme, rest, ok := cutScheme(s)
	switch {
	case !ok:
		return noScheme(s)
	case scheme == "http" || scheme == "https":
		if strings.Contains(authority(rest), "@") {
			return ErrCredentials
		}
		return nil
	case startsWithPort(rest):
		return noScheme(s)
	case scheme != "mailto" && !strings.HasPrefix(rest, "/") && strings.Contains(authority(rest), "@"):
		return ErrCredentials // user:password@host, its scheme forgotten
	}
	return fmt.Errorf("scheme %q %w", clip(scheme), ErrScheme)
}

// cutScheme splits off a scheme (RFC 3986 section 3.1), in lower case.
func cutScheme(s string) (scheme, rest string, ok bool) {
	scheme, rest, ok = strings.Cut(s, ":")
	if !ok || scheme == "" {
		return "", "", false
	}
	scheme = strings.ToLower(scheme)
	for i := range len(scheme) {
		c := scheme[i]
		letter := c >= 'a' && c <= 'z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", rune(c))) {
			return "", "", false
		}
	}
	return scheme, rest, true
}

// authority is what stands between the slashes and the path in rest, the text after "http:".
func authority(rest string) string {
	rest = strings.TrimLeft(rest, `/\`)
	if i := strings.IndexAny(rest, `/\?#`); i >= 0 {
		rest = rest[:i]
	}
	return rest
}

func startsWithPort(rest string) bool {
	digits := strings.TrimLeft(rest, "0123456789")
	return len(digits) < len(rest) && (digits == "" || strings.ContainsRune("/?#", rune(digits[0])))
}

func noScheme(s string) error {
	if strings.Contains(s, "@") {
		return fmt.Errorf("the URL %w: write https:// and the host", ErrNoScheme)
	}
	host := strings.TrimPrefix(s, "//")
	if host == "" || strings.ContainsRune("/?#.", rune(host[0])) {
		return fmt.Errorf("%s %w and no host: write the whole URL, https://…", clip(s), ErrNoScheme)
	}
	return fmt.Errorf("%s %w: write https://%s", clip(s), ErrNoScheme, clip(host))
}

// clip makes s fit for a message: short, on one line, quoted when it holds anything unprintable.
func clip(s string) string {
	more := ""
	if len(s) > shown {
		s, more = s[:shown], "…"
		for len(s) > shown-utf8.UTFMax && !utf8.ValidString(s[len(s)-1:]) {
			s = s[:len(s)-1]
		}
	}
	if q := strconv.Quote(s); q[1:len(q)-1] != s {
		return q + more
	}
	return s + more
}

// checkUTF8 looks at what comes before the fragment, which is not sent.
func checkUTF8(s string) error {
	sent, _, _ := strings.Cut(s, "#")
	if !utf8.ValidString(sent) {
		return fmt.Errorf("%w: it is not UTF-8: percent-encode the bytes above 0x7f", ErrInvalid)
	}
	return nil
}

// explain keeps the rule that was broken and leaves out the URL, which the parser's own message repeats in full.
func explain(err error) error {
	switch t := whatwgerrors.Type(err); t {
	case "":
		return fmt.Errorf("%w: it cannot be parsed", ErrInvalid)
	case whatwgerrors.HostMissing:
		return ErrNoHost
	default:
		var v *whatwgerrors.ValidationError
		if errors.As(err, &v) && v.Unwrap() != nil {
			return fmt.Errorf("%w: %s (%s)", ErrInvalid, lower(string(t)), clip(v.Unwrap().Error()))
		}
		return fmt.Errorf("%w: %s", ErrInvalid, lower(string(t)))
	}
}

// lower makes a sentence the continuation of another.
func lower(s string) string {
	s = strings.TrimPrefix(s, "The ")
	if len(s) > 1 && s[1] >= 'a' && s[1] <= 'z' || strings.HasPrefix(s, "A") && len(s) > 1 && s[1] == ' ' {
		return strings.ToLower(s[:1]) + s[1:]
	}
	return s
}
