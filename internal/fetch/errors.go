package fetch

import (
	"errors"
	"fmt"
	"strings"
)

// Class says in one word why an exchange failed. The words are a public
// contract: they stand in records, metrics and flags.
type Class string

const (
	// DNSTemporary: the name could not be resolved just now (no answer, SERVFAIL).
	DNSTemporary Class = "dns_temporary"
	// DNSNotFound: the name servers say that there is no such host.
	DNSNotFound Class = "dns_not_found"
	// ConnectRefused: the host answered that nobody listens on the port.
	ConnectRefused Class = "connect_refused"
	// ConnectUnreachable: there is no route to the address, or it is forbidden.
	ConnectUnreachable Class = "connect_unreachable"
	// ConnectTimeout: no connection within Limits.ConnectTimeout.
	ConnectTimeout Class = "connect_timeout"
	// TLSTimeout: the TLS handshake took longer than Limits.TLSTimeout.
	TLSTimeout Class = "tls_timeout"
	// TLSCertificate: the server's certificate is not valid for the host.
	TLSCertificate Class = "tls_certificate"
	// TLS: the handshake failed for another reason (no TLS there, no common version).
	TLS Class = "tls"
	// HeaderTimeout: connected, but no response headers within Request.Timeout.
	HeaderTimeout Class = "header_timeout"
	// IdleTimeout: no byte of the body arrived for Limits.IdleTimeout.
	IdleTimeout Class = "idle_timeout"
	// TooSlow: the body came slower than Limits.MinSpeed.
	TooSlow Class = "min_speed"
	// TotalTimeout: the exchange, body included, took longer than Request.MaxTime.
	TotalTimeout Class = "total_timeout"
	// Reset: the server broke the connection off.
	Reset Class = "reset"
	// BodyCut: the body ended before its announced end.
	BodyCut Class = "body_cut"
	// Protocol: the answer does not follow HTTP.
	Protocol Class = "protocol"
	// HeaderTooLarge: the response headers exceed Options.MaxHeaderBytes.
	HeaderTooLarge Class = "header_too_large"
	// BodyTooLarge: the body as sent exceeds Request.MaxBody.
	BodyTooLarge Class = "body_too_large"
	// Decode: the body is not what its Content-Encoding says.
	Decode Class = "decode"
	// DecodeTooLarge: the decoded body exceeds Request.MaxBody.
	DecodeTooLarge Class = "decode_too_large"
	// DecodeRatio: the body decodes to more than Limits.MaxRatio times what was sent.
	DecodeRatio Class = "decode_ratio"
	// ContentType: for callers that want certain types only; this package takes any.
	ContentType Class = "content_type"
	// AddressRefused: the address is private and not among Options.AllowPrivate, or the port not among Options.Ports.
	AddressRefused Class = "address_refused"
	// RedirectInvalid: the Location of a redirect is no http or https URL.
	RedirectInvalid Class = "redirect_invalid"
	// TooManyRedirects: for callers that follow redirects; this package follows none.
	TooManyRedirects Class = "too_many_redirects"
	// URLInvalid: the request's URL is no absolute http or https URL.
	URLInvalid Class = "url_invalid"
	// RequestInvalid: the method or a header of the request cannot be sent.
	RequestInvalid Class = "request_invalid"
	// Proxy: the proxy cannot be reached, wants other credentials, or refused to connect to the host.
	Proxy Class = "proxy"
	// PoolTimeout: no connection came free within Options.ConnectTimeout, or too many requests waited for one.
	PoolTimeout Class = "pool_timeout"
	// Secret: for callers that resolve references to secrets; one cannot be.
	Secret Class = "secret"
	// Auth: for callers that ask for tokens; the token endpoint gives none.
	Auth Class = "auth"
	// Canceled: the caller's context ended.
	Canceled Class = "canceled"
	// Other: none of the above, usually something on our side (no file descriptors left).
	Other Class = "other"
)

// Classes lists every class once, in the order of an exchange.
func Classes() []Class {
	return []Class{
		URLInvalid, RequestInvalid, DNSTemporary, DNSNotFound, AddressRefused,
		ConnectRefused, ConnectUnreachable, ConnectTimeout, TLSTimeout, TLSCertificate, TLS,
		HeaderTimeout, IdleTimeout, TooSlow, TotalTimeout, Reset, BodyCut, Protocol,
		HeaderTooLarge, ContentType, BodyTooLarge, Decode, DecodeTooLarge, DecodeRatio,
		RedirectInvalid, TooManyRedirects, Proxy, PoolTimeout, Secret, Auth, Canceled, Other,
	}
}

// Error is every error of this package: what failed, classified where it arose.
type Error struct {
	Class Class
	Op    string // the step: "request", "dial", "tls", "headers", "body", "decode", "redirect"
	Err   error  // the cause, never nil
}

// Error names the step and the cause. It never holds credentials of a URL.
func (e *Error) Error() string {
	msg := e.Err.Error()
	if strings.HasPrefix(msg, e.Op+" ") { // net's own messages begin with their step
		return msg
	}
	return e.Op + ": " + msg
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// ClassOf returns the class of err: the empty class for nil, and Other for an
// error that did not come from this package.
func ClassOf(err error) Class {
	if err == nil {
		return ""
	}
	if e, ok := asError(err); ok {
		return e.Class
	}
	return Other
}

func asError(err error) (*Error, bool) { return errors.AsType[*Error](err) }

func fail(class Class, op, format string, args ...any) *Error {
	return &Error{Class: class, Op: op, Err: fmt.Errorf(format, args...)}
}
