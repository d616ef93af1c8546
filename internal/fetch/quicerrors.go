package fetch

import (
	"context"
	"errors"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// noApplicationProtocol is the TLS alert of a server that speaks nothing of what was offered, as QUIC carries it (RFC 9001,
// section 4.8).
const noApplicationProtocol quic.TransportErrorCode = 0x100 + 120

// classifyQUICDial classifies what came of a QUIC handshake.
func classifyQUICDial(err error) Class {
	if isCertificate(err) {
		return TLSCertificate
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return ConnectTimeout
	}
	if _, ok := errors.AsType[*quic.VersionNegotiationError](err); ok {
		return Protocol
	}
	e, ok := errors.AsType[*quic.TransportError](err)
	switch {
	case !ok:
		return classifyDial(err)
	case e.ErrorCode == noApplicationProtocol:
		return Protocol
	case e.ErrorCode.IsCryptoError():
		return TLS
	case e.ErrorCode == quic.ConnectionRefused:
		return ConnectRefused
	}
	return Protocol
}

// classifyQUIC classifies an error of an exchange over HTTP/3; ok is false for any other. cut is the class of a stream that
// the server gave up.
func classifyQUIC(err error, cut Class) (class Class, ok bool) {
	if e, ok := errors.AsType[*http3.Error](err); ok {
		if e.Remote && gaveUp(e.ErrorCode) {
			return cut, true
		}
		return Protocol, true
	}
	if e, ok := errors.AsType[*quic.TransportError](err); ok {
		if e.Remote && (e.ErrorCode == quic.NoError || e.ErrorCode == quic.InternalError) {
			return Reset, true
		}
		return Protocol, true
	}
	return "", false // what else ends a connection wraps net.ErrClosed: Reset
}

// gaveUp reports whether the code is what a server sends when it gives an answer up, not when we broke the protocol
// (RFC 9114, section 8.1).
func gaveUp(code http3.ErrCode) bool {
	switch code {
	case http3.ErrCodeNoError, http3.ErrCodeInternalError, http3.ErrCodeExcessiveLoad,
		http3.ErrCodeRequestRejected, http3.ErrCodeRequestCanceled:
		return true
	}
	return false
}
