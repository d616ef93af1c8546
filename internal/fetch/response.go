package fetch

import (
	"crypto/tls"
	"io"
	"net/http"
	"strings"
	"time"
)

// Response is an answer whose headers have arrived.
type Response struct {
	URL      string // what was asked for, without credentials and fragment
	Status   int    // 200 and above
	Reason   string // the reason phrase, "" when there was none
	Header   http.Header
	Protocol string // "HTTP/1.1", "HTTP/2.0" or "HTTP/3.0"
	// RemoteAddr is the address and port that answered, "192.0.2.7:443".
	RemoteAddr  string
	ContentType string // the header of this name, "" without one
	// ContentLength is the length of the body as announced, before decoding, in
	// bytes; -1 when none was.
	ContentLength int64
	// Body is never nil. It is decoded unless the request asked otherwise or the
	// coding is unknown, while Header stays as it was sent. Its Read errors are
	// *Error, except io.EOF, which is returned only for a body that is complete.
	// Not for use by two goroutines at once; to interrupt a Read cancel the context.
	Body io.ReadCloser

	x *exchange
}

// Timings say how long the steps of an exchange took. Zero means that the step
// was not needed: a reused connection has no DNS, Connect and TLS.
type Timings struct {
	DNS     time.Duration // looking the name up
	Connect time.Duration // connecting, without DNS
	TLS     time.Duration // the handshake; over QUIC it connects as well
	TTFB    time.Duration // from the start of the exchange to the first byte of the answer
	Total   time.Duration // from the start to the end of the body
}

// Timings returns what is known so far. Total is complete once the body has
// ended, by io.EOF, an error or Close; before that it is the time until now.
func (r *Response) Timings() Timings {
	x := r.x
	if x == nil {
		return Timings{}
	}
	t := Timings{TTFB: time.Duration(x.firstByte.Load()), Total: x.total}
	if !x.done.Load() {
		t.Total = x.elapsed()
	}
	if x.conn != nil && !x.reused {
		t.DNS, t.Connect, t.TLS = x.conn.dns, x.conn.connect, x.conn.tls
	}
	return t
}

// WireBytes returns how many bytes of the body have been read as sent, before decoding.
func (r *Response) WireBytes() int64 {
	if r.x == nil {
		return 0
	}
	return r.x.body.wire.n
}

// Sent returns the method, the target of the request line and the header fields of the request as it went out. Header
// fields that net/http adds by itself (Content-Length, Connection) are not among them, Host is.
func (r *Response) Sent() (method, target string, header http.Header) {
	req := r.x.request
	header = req.Header.Clone()
	header.Set("Host", req.Host)
	return req.Method, req.URL.RequestURI(), header
}

// TLS returns what the connection's handshake came to, nil without TLS. It is not to be changed.
func (r *Response) TLS() *tls.ConnectionState { return r.x.tls }

// Began returns when the exchange began.
func (r *Response) Began() time.Time { return r.x.start }

// Coded reports whether Body gives out something else than what is sent, because it undoes a content coding.
func (r *Response) Coded() bool { return r.x.body.decoder != nil }

// AsSent makes Body give out what is sent, undecoded. It must come before the first Read.
func (r *Response) AsSent() {
	if b := &r.x.body; b.decoder != nil {
		b.decoder.Release()
		b.decoder, b.err = nil, nil
	}
}

// Watch has seen called with every piece of the body as it was sent, before Read returns what came of it. It must come
// before the first Read; seen must not keep the slice.
func (r *Response) Watch(seen func(p []byte)) { r.x.body.wire.seen = seen }

// reason is what follows the code in a status line (RFC 9112, section 4).
func reason(status string) string {
	_, text, _ := strings.Cut(status, " ")
	return text
}

// accept turns the answer to req into the exchange's Response.
func (x *exchange) accept(req *http.Request, answer *http.Response) *Response {
	x.rest()
	x.inBody.Store(true)
	x.request, x.tls = req, answer.TLS
	x.response = Response{
		URL:           plainURL(req.URL),
		Status:        answer.StatusCode,
		Reason:        reason(answer.Status),
		Header:        answer.Header,
		Protocol:      answer.Proto,
		ContentType:   answer.Header.Get("Content-Type"),
		ContentLength: answer.ContentLength,
		Body:          &x.body,
		x:             x,
	}
	if x.conn != nil {
		x.response.RemoteAddr = x.conn.remote
	}
	x.body.open(x, answer)
	return &x.response
}
