package fetch

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"golang.org/x/net/http/httpguts"
)

// Request is one exchange to make.
type Request struct {
	Method string // "" means GET
	// URL is absolute, http or https. Credentials in it are sent as Basic
	// authorization unless Header has its own; a fragment is not sent.
	URL string
	// Header is sent as it is, with these exceptions: a Host replaces the URL's,
	// and what belongs to the connection (Connection, Content-Length, Upgrade
	// and the like) is left out. A caller that sets Accept-Encoding or Range
	// gets the body as it was sent, not decoded.
	Header    http.Header
	Body      []byte
	UserAgent string // "" means that of the Fetcher; a User-Agent in Header wins
	// Timeout bounds the wait for the response headers once there is a
	// connection, and each wait for more of the body unless Limits has another
	// for that; 0 means 30 s.
	Timeout time.Duration
	// MaxTime bounds the whole exchange, body included; 0 means 1 h.
	MaxTime time.Duration
	// HTTP is the version to speak; Auto, the zero value, is what the server prefers. A server that does not speak another
	// ends the exchange in class Protocol.
	HTTP Version
	// Insecure takes any certificate of the server's. Its connections are never used for requests that do not say so.
	Insecure bool
	// Certificate is shown to servers that ask for one (mutual TLS); nil means none. Connections are shared by the requests
	// with the same leaf.
	Certificate *tls.Certificate
	// MaxBody limits the body in bytes, as sent and as decoded; 0 means 1 GiB.
	MaxBody int64
	Limits
}

func (r *Request) method() string {
	if r.Method == "" {
		return http.MethodGet
	}
	return r.Method
}

// AcceptEncoding is the field of that name in requests whose body is decoded.
const AcceptEncoding = "gzip, deflate, br, zstd"

// The values sent with every request; net/http does not change them.
var (
	acceptAny      = []string{"*/*"}
	acceptEncoding = []string{AcceptEncoding}
)

// connectionHeaders belong to the connection, not to the caller (RFC 9110
// section 7.6.1). net/http decides about them.
var connectionHeaders = map[string]bool{
	"Connection": true, "Proxy-Connection": true, "Keep-Alive": true, "Te": true,
	"Trailer": true, "Transfer-Encoding": true, "Upgrade": true, "Content-Length": true,
}

// build turns r into what net/http sends. The error, if any, is an *Error.
func (f *Fetcher) build(x *exchange, r *Request) (*http.Request, error) {
	target, err := parseTarget(r.URL)
	if err != nil {
		return nil, err
	}
	if err := f.ports.check(target); err != nil {
		return nil, err
	}
	x.secure = target.Scheme == "https"
	method := r.method()
	if method == http.MethodConnect {
		return nil, fail(RequestInvalid, "request", "method CONNECT is not supported")
	}
	if !httpguts.ValidHeaderFieldName(method) { // a method is a token as well
		return nil, fail(RequestInvalid, "request", "invalid method %q", method)
	}
	if _, err := ParseVersion(string(r.HTTP)); err != nil {
		return nil, fail(RequestInvalid, "request", "%w", err)
	}
	req := (&http.Request{
		Method: method,
		URL:    target,
		Proto:  "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Host: target.Host,
	}).WithContext(x.traced())
	if x.decode, err = f.setHeader(req, r); err != nil {
		return nil, err
	}
	setBody(req, r.Body)
	return req, nil
}

func setBody(req *http.Request, body []byte) {
	if len(body) == 0 {
		return
	}
	get := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }
	req.ContentLength = int64(len(body))
	req.GetBody = get
	req.Body, _ = get()
}

// setHeader reports whether the coding of the answer is our affair.
func (f *Fetcher) setHeader(req *http.Request, r *Request) (decode bool, err error) {
	h := make(http.Header, len(r.Header)+4)
	req.Header = h
	for name, values := range r.Header {
		if err := checkHeader(name, values); err != nil {
			return false, err
		}
		name = http.CanonicalHeaderKey(name)
		if name == "Host" && len(values) > 0 {
			req.Host = values[0]
			continue
		}
		if !connectionHeaders[name] {
			h[name] = values
		}
	}
	if !httpguts.ValidHostHeader(req.Host) {
		return false, fail(RequestInvalid, "request", "invalid Host header %q", req.Host)
	}
	if !httpguts.ValidHeaderFieldValue(r.UserAgent) {
		return false, fail(RequestInvalid, "request", "invalid user agent %q", r.UserAgent)
	}
	f.setDefaults(h, r)
	if h["Accept-Encoding"] == nil && h["Range"] == nil {
		h["Accept-Encoding"], decode = acceptEncoding, true
	}
	if user := req.URL.User; user != nil {
		req.URL.User = nil
		if h["Authorization"] == nil {
			h["Authorization"] = []string{basicAuth(user)}
		}
	}
	return decode, nil
}

func (f *Fetcher) setDefaults(h http.Header, r *Request) {
	if h["User-Agent"] == nil {
		agent := f.userAgent
		if r.UserAgent != "" {
			agent = r.UserAgent
		}
		h["User-Agent"] = []string{agent}
	}
	if h["Accept"] == nil {
		h["Accept"] = acceptAny
	}
}

// checkHeader refuses what could smuggle a second header or request.
// It does not quote the value, which may be a secret.
func checkHeader(name string, values []string) error {
	if !httpguts.ValidHeaderFieldName(name) {
		return fail(RequestInvalid, "request", "invalid header name %q", name)
	}
	for _, v := range values {
		if !httpguts.ValidHeaderFieldValue(v) {
			return fail(RequestInvalid, "request", "invalid value of header %s", name)
		}
	}
	return nil
}

func basicAuth(user *url.Userinfo) string {
	password, _ := user.Password()
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
}

// parseTarget reads an absolute http or https URL.
func parseTarget(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if escape, ok := errors.AsType[url.EscapeError](err); ok {
		u, err = parseUnescaped(text, escape)
	}
	if err != nil {
		return nil, fail(URLInvalid, "request", "parse url: %w", withoutURL(err))
	}
	if u.Scheme != "http" && u.Scheme != "https" {
		return nil, fail(URLInvalid, "request", "scheme %q is not http or https", u.Scheme)
	}
	if u.Hostname() == "" {
		return nil, fail(URLInvalid, "request", "url has no host")
	}
	if port := u.Port(); port != "" {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return nil, fail(URLInvalid, "request", "port %q is not between 1 and 65535", port)
		}
	}
	u.Fragment, u.RawFragment = "", ""
	u.RawQuery = escapeControls(u.RawQuery)
	return u, nil
}

// parseUnescaped reads a URL whose path has a percent sign that escapes
// nothing. The web has them and WHATWG allows them, so the path is sent as it
// stands; only what could end the request line is escaped.
func parseUnescaped(text string, cause error) (*url.URL, error) {
	scheme, rest, ok := strings.Cut(text, "://")
	if !ok {
		return nil, cause
	}
	rest, _, _ = strings.Cut(rest, "#")
	end := strings.IndexAny(rest, "/?")
	if end < 0 || rest[end] != '/' {
		return nil, cause
	}
	u, err := url.Parse(scheme + "://" + rest[:end])
	if err != nil {
		return nil, err
	}
	path, query, _ := strings.Cut(rest[end:], "?")
	u.Opaque, u.RawQuery = escapeControls(path), query
	if strings.HasPrefix(u.Opaque, "//") { // net/http would take it for a host: name the host
		u.Opaque = "//" + u.Host + u.Opaque
	}
	return u, nil
}

// plainURL is u as text, without credentials.
func plainURL(u *url.URL) string {
	if u.Opaque == "" {
		return u.String()
	}
	path := strings.TrimPrefix(u.Opaque, "//"+u.Host)
	if u.RawQuery != "" || u.ForceQuery {
		path += "?" + u.RawQuery
	}
	return u.Scheme + "://" + u.Host + path
}

// escapeControls escapes every byte that may not stand in a request line.
func escapeControls(path string) string {
	if strings.IndexFunc(path, func(r rune) bool { return r <= ' ' || r >= 0x7f }) < 0 {
		return path
	}
	var b strings.Builder
	for i := range len(path) {
		if c := path[i]; c <= ' ' || c >= 0x7f {
			b.WriteString("%" + strings.ToUpper(strconv.FormatUint(uint64(c)|0x100, 16)[1:]))
			continue
		}
		b.WriteByte(path[i])
	}
	return b.String()
}

// withoutURL strips the URL, which may hold credentials, from a parse error.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}
