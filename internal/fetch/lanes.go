package fetch

import (
	"cmp"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"net/http"
	"sync"
	"time"
)

// Version is which version of HTTP an exchange is to be made over.
type Version string

// The versions.
const (
	Auto  Version = ""    // what the server prefers; HTTP/3 once it has said that it speaks it (Alt-Svc)
	HTTP1 Version = "1.1" // HTTP/1.1 and nothing else
	HTTP2 Version = "2"   // HTTP/2: over TLS by ALPN, over plain TCP with prior knowledge (RFC 9113, section 3.3)
	HTTP3 Version = "3"   // HTTP/3, for https URLs
)

// ParseVersion reads "auto", "1.1", "2" or "3"; "" is auto.
func ParseVersion(text string) (Version, error) {
	switch v := Version(text); v {
	case Auto, "auto":
		return Auto, nil
	case HTTP1, HTTP2, HTTP3:
		return v, nil
	}
	return Auto, fmt.Errorf("%q is no version of HTTP: auto, 1.1, 2 or 3", text)
}

// lane is what exchanges must have in common to share connections.
type lane struct {
	version     Version
	insecure    bool
	certificate [sha256.Size]byte // digest of the client certificate's leaf; zero without one
}

// laneOf returns the lane of an exchange.
func laneOf(r *Request) lane {
	l := lane{version: r.HTTP, insecure: r.Insecure}
	if r.Certificate != nil && len(r.Certificate.Certificate) > 0 {
		l.certificate = sha256.Sum256(r.Certificate.Certificate[0])
	}
	return l
}

// offers lists what a lane's handshakes offer (RFC 7301).
func (l lane) offers() []string {
	switch l.version {
	case HTTP1:
		return []string{"http/1.1"}
	case HTTP2:
		return []string{"h2"}
	}
	return []string{"h2", "http/1.1"}
}

func (l lane) protocols() *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(l.version != HTTP2)
	p.SetHTTP2(l.version != HTTP1)
	p.SetUnencryptedHTTP2(l.version == HTTP2)
	return p
}

// track is a lane that is open: a pool of connections of its own.
type track struct {
	lane      lane
	lanes     *lanes
	transport *http.Transport
	gate      *gate
	quic      *quicPool

	// Under the lanes' lock.
	uses int    // exchanges under way
	last uint64 // when it was taken last, by the lanes' count
}

// maxLanes is how many lanes stay open when no exchange uses them. Client certificates make lanes, one each.
const maxLanes = 64

// lanes are the open lanes of a Fetcher. Most have but one, the plain lane, which is never closed and costs no lock.
type lanes struct {
	options Options
	dialer  *dialer // what all of them share: guard, resolver, register
	plain   *track

	mu    sync.Mutex
	open  map[lane]*track // without plain
	taken uint64          // counts take
}

func newLanes(o Options) *lanes {
	ls := &lanes{options: o, dialer: newDialer(o), open: map[lane]*track{}}
	ls.plain = ls.newTrack(lane{}, nil)
	return ls
}

// take returns the lane of r and notes that an exchange uses it, until leave.
func (ls *lanes) take(r *Request) *track {
	l := laneOf(r)
	if l == (lane{}) {
		return ls.plain
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	t := ls.open[l]
	if t == nil {
		t = ls.newTrack(l, r.Certificate)
		ls.open[l] = t
		ls.trim(t)
	}
	ls.taken++
	t.uses++
	t.last = ls.taken
	return t
}

// leave notes that an exchange has ended.
func (t *track) leave() {
	ls := t.lanes
	if t == ls.plain {
		return
	}
	ls.mu.Lock()
	defer ls.mu.Unlock()
	t.uses--
	ls.trim(nil)
}

// trim closes the lanes beyond maxLanes that were used longest ago, but none in use and not spared; ls.mu is held.
func (ls *lanes) trim(spared *track) {
	for len(ls.open) > maxLanes {
		var oldest *track
		for _, t := range ls.open {
			if t.uses == 0 && t != spared && (oldest == nil || t.last < oldest.last) {
				oldest = t
			}
		}
		if oldest == nil {
			return
		}
		delete(ls.open, oldest.lane)
		oldest.close()
	}
}

// closeIdle closes the idle connections of every lane.
func (ls *lanes) closeIdle() {
	ls.plain.close()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, t := range ls.open {
		t.close()
	}
}

func (t *track) close() {
	t.transport.CloseIdleConnections()
	t.quic.closeIdle()
}

func (ls *lanes) newTrack(l lane, certificate *tls.Certificate) *track {
	o := ls.options
	d := *ls.dialer
	d.tls = laneTLS(o.TLSConfig, l, certificate)
	d.lane, d.gate = l, newGate(l)
	t := &track{lane: l, lanes: ls, gate: d.gate, quic: newQUICPool(&d, o)}
	t.transport = &http.Transport{
		Proxy:                  forwardOf,
		DialContext:            d.dial,
		DialTLSContext:         d.dialTLS,
		TLSClientConfig:        d.tls.Clone(), // used only behind a proxy
		TLSHandshakeTimeout:    o.TLSTimeout,
		DisableCompression:     true, // decoding is ours: more codings, and limits
		ForceAttemptHTTP2:      true,
		Protocols:              l.protocols(),
		MaxIdleConns:           o.MaxIdleConns,
		MaxIdleConnsPerHost:    o.MaxIdleConnsPerHost,
		IdleConnTimeout:        o.IdleConnTimeout,
		ExpectContinueTimeout:  time.Second,
		MaxResponseHeaderBytes: o.MaxHeaderBytes,
		HTTP2: &http.HTTP2Config{
			// A dead connection must not swallow one request after another.
			SendPingTimeout: o.PingInterval,
			PingTimeout:     15 * time.Second,
		},
	}
	return t
}

// laneTLS is the base of a lane's handshakes. Each lane remembers its own sessions: one resumed with another client
// certificate, or begun without looking at the server's, would be another's.
func laneTLS(base *tls.Config, l lane, certificate *tls.Certificate) *tls.Config {
	config := &tls.Config{}
	if base != nil {
		config = base.Clone()
	}
	if l.version != Auto || config.NextProtos == nil {
		config.NextProtos = l.offers()
	}
	if certificate != nil {
		config.Certificates = []tls.Certificate{*certificate}
		config.GetClientCertificate = nil
	}
	config.InsecureSkipVerify = config.InsecureSkipVerify || l.insecure
	if config.ClientSessionCache == nil || l != (lane{}) {
		config.ClientSessionCache = tls.NewLRUClientSessionCache(l.sessions())
	}
	return config
}

// sessions is how many hosts' TLS sessions the lane remembers, about 4 KiB each: a client certificate is for few hosts.
func (l lane) sessions() int {
	if l.certificate != ([sha256.Size]byte{}) {
		return 64
	}
	return 1024
}

// wants returns the error of a connection on which the server has not chosen what the lane speaks.
func (l lane) wants(chosen string) error {
	if l.version != HTTP2 || chosen == "h2" {
		return nil
	}
	return fail(Protocol, "tls", "the server does not speak HTTP/2: it chose %s", cmp.Or(chosen, "no protocol, which means HTTP/1.1"))
}
