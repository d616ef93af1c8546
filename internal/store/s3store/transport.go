package s3store

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/minio/minio-go/v7"
)

// How long the other end may take. A server that is gone is found out in at most about ten seconds.
const (
	dialTimeout   = 5 * time.Second
	stallTimeout  = 10 * time.Second // without a byte in either direction
	patientStall  = 3 * time.Minute  // for calls over which a server may think: it copies gigabytes meanwhile
	metadataLimit = 3 * time.Second  // for an answer of the cloud's credential service
)

// sendBuffer is what the system may hold of what was sent. On a line of 1 Mbit/s it is gone in less than stallTimeout;
// with more, an upload would be taken for stalled while its end is still on its way.
const sendBuffer = 512 << 10

// lines are the connections to a server: the ordinary ones, and those for calls that may take minutes to answer.
type lines struct{ quick, patient *http.Transport }

func newLines() (*lines, error) {
	quick, err := newTransport(stallTimeout)
	if err != nil {
		return nil, err
	}
	patient, err := newTransport(patientStall)
	return &lines{quick: quick, patient: patient}, err
}

// close ends the connections that nobody uses.
func (l *lines) close() {
	l.quick.CloseIdleConnections()
	l.patient.CloseIdleConnections()
}

// newTransport makes a transport whose connections break when nothing moves on them for stall. A limit on the whole
// exchange would have to know how long a body takes, and a limit on the answer's header says nothing about a body that
// stops in its middle.
func newTransport(stall time.Duration) (*http.Transport, error) {
	t, err := minio.DefaultTransport(true) // with the system's certificates, or those of SSL_CERT_FILE
	if err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		if tcp, ok := conn.(*net.TCPConn); ok {
			_ = tcp.SetWriteBuffer(sendBuffer)
		}
		return watch(conn, stall), nil
	}
	t.ResponseHeaderTimeout = 0 // the connection's own limit holds
	t.TLSHandshakeTimeout = dialTimeout
	t.MaxIdleConnsPerHost = 64
	t.IdleConnTimeout = stall / 2 // an idle one must not be broken just as it is taken again
	t.WriteBufferSize, t.ReadBufferSize = 32<<10, 32<<10
	return t, nil
}

// metadataClient asks the cloud's credential service. It is not there on most machines, so it gets little time.
func metadataClient() *http.Client { return &http.Client{Timeout: metadataLimit} }

// watched is a connection that breaks when nothing moves on it in either direction for a while.
type watched struct {
	net.Conn
	stall time.Duration
	moved atomic.Int64 // when the deadline was last put off, in nanoseconds since epoch
	epoch time.Time
}

func watch(conn net.Conn, stall time.Duration) *watched {
	w := &watched{Conn: conn, stall: stall, epoch: time.Now()}
	_ = conn.SetDeadline(w.epoch.Add(stall)) // a connection that takes no deadline is broken, which its use will show
	return w
}

// touch puts the deadline off. To do so at every call would cost more than it is worth.
func (w *watched) touch() {
	now := time.Since(w.epoch)
	if last := w.moved.Load(); now-time.Duration(last) > w.stall/16 && w.moved.CompareAndSwap(last, int64(now)) {
		_ = w.SetDeadline(w.epoch.Add(now + w.stall))
	}
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if n > 0 {
		w.touch()
	}
	return n, err
}

// Write implements io.Writer.
func (w *watched) Write(p []byte) (int, error) {
	w.touch()
	n, err := w.Conn.Write(p)
	if n > 0 {
		w.touch()
	}
	return n, err
}
