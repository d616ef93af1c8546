package fetch

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"syscall"
)

// tripMessages classifies errors that net/http keeps to itself: they can be
// told apart only by their text. Each has a test, so that a new Go release
// that words one differently is noticed.
var tripMessages = []struct {
	part  string
	class Class
}{
	{"server response headers exceeded", HeaderTooLarge},
	{"response header list larger than advertised limit", HeaderTooLarge},
	{"http3: headers too large", HeaderTooLarge},
	{"http3: HEADERS frame too large", HeaderTooLarge},
	{"server closed idle connection", Reset},
	{"client connection lost", Reset},
	{"client connection force closed", Reset},
	{"client conn is closed", Reset},
	{"client conn not usable", Reset},
	{"client conn could not be established", Reset},
	{"server sent GOAWAY and closed the connection", Reset},
}

// streamError has the shape of net/http's HTTP/2 stream error, which lets
// errors.As copy into any struct with the same fields.
type streamError struct {
	StreamID uint32
	Code     uint32
	Cause    error
}

// Error is there because an error needs one; nobody reads it.
func (e streamError) Error() string { return "http2 stream error" }

// brokenOff reports whether the code is what a server sends when it gives an
// answer up, not when we broke the protocol (RFC 9113 section 7).
func (e streamError) brokenOff() bool {
	switch e.Code {
	case 0x0, 0x2, 0x7, 0x8, 0xb: // NO_ERROR, INTERNAL_ERROR, REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM
		return true
	}
	return false
}

// classifyDial classifies what came of resolving and connecting.
func classifyDial(err error) Class {
	if e, ok := errors.AsType[*net.DNSError](err); ok {
		if e.IsNotFound {
			return DNSNotFound
		}
		return DNSTemporary
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok {
		if class, ok := errnoClasses[errno]; ok {
			return class
		}
	}
	if isTimeout(err) {
		return ConnectTimeout
	}
	return Other
}

// classifyTLS classifies what came of a TLS handshake.
func classifyTLS(err error) Class {
	if isCertificate(err) {
		return TLSCertificate
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errnoClasses[errno] == Reset {
		return Reset
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Reset
	}
	if isTimeout(err) {
		return TLSTimeout
	}
	if strings.Contains(err.Error(), "tls: no application protocol") { // an alert, whose type crypto/tls keeps to itself
		return Protocol
	}
	return TLS
}

func isCertificate(err error) bool {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		return true
	}
	if _, ok := errors.AsType[x509.HostnameError](err); ok {
		return true
	}
	// A certificate that does not even parse never reaches verification.
	return strings.Contains(err.Error(), "failed to parse certificate")
}

// classifyTrip classifies an error between request and response headers.
func classifyTrip(err error) Class {
	if isCertificate(err) { // behind a proxy net/http shakes hands itself
		return TLSCertificate
	}
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Reset
	}
	return classifyBroken(err, Reset)
}

// classifyPrior classifies an error where HTTP/2 was begun without knowing that the server speaks it.
func classifyPrior(err error) Class {
	if strings.Contains(err.Error(), "client conn could not be established") || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return Protocol // nobody said a word of HTTP/2
	}
	return classifyTrip(err)
}

// classifyBody classifies an error in the middle of a body.
func classifyBody(err error) Class {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return BodyCut
	}
	if errors.Is(err, http.ErrBodyReadAfterClose) {
		return Other
	}
	return classifyBroken(err, BodyCut)
}

// classifyBroken is what trip and body have in common; cut is the class of an
// HTTP/2 stream that the server gave up.
func classifyBroken(err error, cut Class) Class {
	msg := err.Error()
	for _, m := range tripMessages {
		if strings.Contains(msg, m.part) {
			return m.class
		}
	}
	if class, ok := classifyQUIC(err, cut); ok {
		return class
	}
	if e, ok := errors.AsType[streamError](err); ok {
		if e.brokenOff() {
			return cut
		}
		return Protocol
	}
	op, ok := errors.AsType[*net.OpError](err)
	if ok && op.Op == "remote error" { // a TLS alert: in TLS 1.3 a server refuses us after the handshake
		return TLS
	}
	if ok || errors.Is(err, net.ErrClosed) {
		return Reset
	}
	if errno, ok := errors.AsType[syscall.Errno](err); ok && errnoClasses[errno] == Reset {
		return Reset
	}
	return Protocol
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}
