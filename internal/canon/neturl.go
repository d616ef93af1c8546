package canon

import (
	"net/url"
	"strings"
)

// NetURL gives u in the form that net/http sends unchanged: the request line carries exactly what Href says. It is
// needed because net/url refuses some canonical URLs ("http://a/%zz") and would encode others again ("|").
// The result may be opaque, so u, and not the result, is what to Resolve a redirect against.
func (u URL) NetURL() *url.URL {
	target := strings.TrimPrefix(u.Href, u.Scheme+"://"+u.Host)
	if n, err := url.Parse(u.Href); err == nil && n.RequestURI() == target {
		return n
	}
	path, query, found := strings.Cut(target, "?")
	n := &url.URL{Scheme: u.Scheme, Host: u.Host, Opaque: path, RawQuery: query, ForceQuery: found && query == ""}
	if strings.HasPrefix(path, "//") { // else net/url would take the first segment for a host
		n.Opaque = "//" + u.Host + path
	}
	return n
}
