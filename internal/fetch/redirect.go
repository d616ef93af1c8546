package fetch

import (
	"net/http"
	"strings"

	whatwg "github.com/nlnwa/whatwg-url/url"
)

// Hop is a redirect that was followed.
type Hop struct {
	URL    string `json:"url"`    // the URL that answered with the redirect
	Status int    `json:"status"` // 301, 302, 303, 307 or 308
}

// Redirect returns the request that follows resp, the answer to r (RFC 9110
// section 15.4). ok is false when resp is no redirect or names no Location: it
// is then a final answer. The error has the class RedirectInvalid.
//
// Location is resolved against r.URL the way browsers do (WHATWG); its
// credentials and its fragment are dropped. 301 and 302 turn POST into GET, 303
// turns everything but HEAD into GET, and with the method goes the body. When
// the origin (scheme, host, port) changes, Authorization, Cookie,
// Proxy-Authorization, Host and the client certificate are dropped. r is
// not changed.
func Redirect(r *Request, resp *Response) (next *Request, ok bool, err error) {
	if !isRedirect(resp.Status) {
		return nil, false, nil
	}
	location := strings.Trim(resp.Header.Get("Location"), " \t")
	if location == "" {
		return nil, false, nil
	}
	base, target, err := resolve(r.URL, location)
	if err != nil {
		return nil, false, err
	}
	n := *r
	n.Header = r.Header.Clone()
	n.URL = target.Href(true)
	if n.Method = redirectMethod(r.method(), resp.Status); n.Method != r.method() {
		dropBody(&n)
	}
	if target.Scheme() != base.Scheme() || target.Host() != base.Host() {
		dropSecrets(n.Header)
		n.Certificate = nil
	} else {
		keepCredentials(&n, r.URL)
	}
	return &n, true, nil
}

func isRedirect(status int) bool {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// resolve returns the base URL and the one that location means there, of which
// it is certain that Do can send it. It does not quote the location in errors
// where it may hold credentials.
func resolve(from, location string) (base, target *whatwg.Url, err error) {
	base, err = whatwg.Parse(from)
	if err != nil {
		return nil, nil, fail(RedirectInvalid, "redirect", "the url before it cannot be parsed")
	}
	target, err = base.Parse(strings.ToValidUTF8(location, "\uFFFD"))
	if err != nil {
		return nil, nil, fail(RedirectInvalid, "redirect", "location is no url")
	}
	if s := target.Scheme(); s != "http" && s != "https" {
		return nil, nil, fail(RedirectInvalid, "redirect", "location has scheme %q, not http or https", s)
	}
	target.SetUsername("")
	target.SetPassword("")
	if _, err := parseTarget(target.Href(true)); err != nil {
		return nil, nil, fail(RedirectInvalid, "redirect", "location: %w", err)
	}
	return base, target, nil
}

func redirectMethod(method string, status int) string {
	switch status {
	case http.StatusMovedPermanently, http.StatusFound:
		if method == http.MethodPost {
			return http.MethodGet
		}
	case http.StatusSeeOther:
		if method != http.MethodHead {
			return http.MethodGet
		}
	}
	return method
}

// dropBody removes the body and the headers that describe it.
func dropBody(r *Request) {
	r.Body = nil
	deleteFold(r.Header, func(name string) bool {
		return strings.HasPrefix(name, "Content-")
	})
}

// dropSecrets removes what was meant for another origin only.
func dropSecrets(h http.Header) {
	deleteFold(h, func(name string) bool {
		switch name {
		case "Authorization", "Cookie", "Cookie2", "Proxy-Authorization", "Host":
			return true
		}
		return false
	})
}

// deleteFold deletes by canonical name, also where the map's keys are not canonical.
func deleteFold(h http.Header, match func(name string) bool) {
	for name := range h {
		if match(http.CanonicalHeaderKey(name)) {
			delete(h, name)
		}
	}
}

// keepCredentials sends the credentials of from along to the same origin, as a
// header because a Location's own never count.
func keepCredentials(next *Request, from string) {
	u, err := parseTarget(from)
	if err != nil || u.User == nil {
		return
	}
	if next.Header == nil {
		next.Header = http.Header{}
	}
	if next.Header.Get("Authorization") == "" {
		next.Header.Set("Authorization", basicAuth(u.User))
	}
}
