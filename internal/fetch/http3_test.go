package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// quicServer speaks HTTP/3 over UDP, and HTTP/2 and 1.1 over TCP at the same port, where every answer says so.
type quicServer struct {
	tcp      *httptest.Server
	udp      *http3.Server
	roots    *x509.CertPool
	url      string
	opened   atomic.Int64 // QUIC connections
	overTCP  atomic.Int64 // requests
	overQUIC atomic.Int64
	altSvc   string // "" = h3 at the same port
	closeUDP func()
}

func newQUICServer(t testing.TB, h http.HandlerFunc, quicConfig *quic.Config) *quicServer {
	t.Helper()
	s := &quicServer{}
	s.tcp, s.roots = newTLS(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.overTCP.Add(1)
		w.Header().Set("Alt-Svc", s.says())
		h(w, r)
	}), nil, true)
	s.url = s.tcp.URL
	addr := s.tcp.Listener.Addr().(*net.TCPAddr)
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: addr.IP, Port: addr.Port})
	if err != nil {
		t.Fatal(err)
	}
	s.udp = &http3.Server{
		TLSConfig:  http3.ConfigureTLSConfig(&tls.Config{Certificates: s.tcp.TLS.Certificates}),
		QUICConfig: quicConfig,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			s.overQUIC.Add(1)
			h(w, r)
		}),
		ConnContext: func(ctx context.Context, _ *quic.Conn) context.Context {
			s.opened.Add(1)
			return ctx
		},
		MaxHeaderBytes: 1 << 20,
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.udp.Serve(socket)
	}()
	var closed atomic.Bool
	s.closeUDP = func() {
		if !closed.Swap(true) {
			_ = s.udp.Close()
			_ = socket.Close()
			<-done
		}
	}
	t.Cleanup(s.closeUDP)
	return s
}

func (s *quicServer) says() string {
	if s.altSvc != "" {
		return s.altSvc
	}
	return fmt.Sprintf(`h3=":%d"; ma=3600`, s.tcp.Listener.Addr().(*net.TCPAddr).Port)
}

func (s *quicServer) fetcher(t testing.TB, o Options) *Fetcher {
	t.Helper()
	o.TLSConfig = &tls.Config{RootCAs: s.roots}
	return newFetcher(t, o)
}

func TestHTTP3IsSpokenWhereChosen(t *testing.T) {
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, r.Method, " ", r.URL, " ", r.Header.Get("X-Test"), " ", len(body))
	}, nil)
	f := s.fetcher(t, Options{})
	for i := range 3 {
		r := &Request{URL: s.url + "/a?b=c", HTTP: HTTP3, Method: "POST", Body: page64, Header: header("X-Test", "yes")}
		res, body, err := fetch(f, r)
		if err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprint("POST /a?b=c yes ", len(page64)); string(body) != want {
			t.Errorf("the server saw %q, want %q", body, want)
		}
		if res.Protocol != "HTTP/3.0" || "https://"+res.RemoteAddr != s.url {
			t.Errorf("%s from %s", res.Protocol, res.RemoteAddr)
		}
		times := res.Timings()
		if shook := times.TLS > 0; shook != (i == 0) || times.TTFB <= 0 || times.Total < times.TTFB {
			t.Errorf("exchange %d has timings %+v", i, times)
		}
	}
	if got := s.opened.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
	if got := registered(f, hostOf(s.url)); got != 1 {
		t.Errorf("%d connections are known, want 1", got)
	}
	f.CloseIdle(hostOf(s.url))
	if got := registered(f, hostOf(s.url)); got != 0 {
		t.Errorf("%d connections are known after CloseIdle", got)
	}
	if _, _, err := fetch(f, &Request{URL: s.url, HTTP: HTTP3}); err != nil {
		t.Error(err)
	}
}

func TestManyRequestsOverHTTP3ShareAConnection(t *testing.T) {
	s := newQUICServer(t, slowly(5*time.Millisecond), &quic.Config{MaxIncomingStreams: 20})
	f := s.fetcher(t, Options{})
	crowd(t, f, &Request{URL: s.url, HTTP: HTTP3}, 300, 60)
	if got := s.opened.Load(); got != 1 {
		t.Errorf("%d connections, want 1", got)
	}
}

func TestHTTP3IsUsedOnceTheServerHasNamedIt(t *testing.T) {
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }, nil)
	f := s.fetcher(t, Options{})
	for i, want := range []string{"HTTP/2.0", "HTTP/3.0", "HTTP/3.0"} {
		res, body, err := fetch(f, &Request{URL: s.url})
		if err != nil || string(body) != want || res.Protocol != want {
			t.Errorf("exchange %d: %s, %v, want %s", i, body, err, want)
		}
	}
	for version, want := range map[Version]string{HTTP1: "HTTP/1.1", HTTP2: "HTTP/2.0"} {
		if _, body, err := fetch(f, &Request{URL: s.url, HTTP: version}); err != nil || string(body) != want {
			t.Errorf("%s, %v, want %s because it was chosen", body, err, want)
		}
	}
}

func TestTCPIsUsedWhereHTTP3Fails(t *testing.T) {
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) }, nil)
	f := s.fetcher(t, Options{ConnectTimeout: 4 * soon})
	get := func(method, want string) {
		t.Helper()
		_, body, err := fetch(f, &Request{URL: s.url, Method: method})
		if err != nil || string(body) != want {
			t.Errorf("%s, %v, want %s", body, err, want)
		}
	}
	get("GET", "HTTP/2.0")
	s.closeUDP() // before the first connection: nobody answers any more
	get("POST", "HTTP/2.0")
	start := time.Now()
	get("GET", "HTTP/2.0")
	if took := time.Since(start); took > 3*soon {
		t.Errorf("an alternative that failed was asked again: %v", took)
	}
}

func TestAConnectionOverQUICThatBreaksEndsInTCP(t *testing.T) {
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) {
		if r.ProtoMajor == 3 && r.URL.Path == "/breaks" {
			panic(http.ErrAbortHandler)
		}
		io.WriteString(w, r.Proto)
	}, nil)
	f := s.fetcher(t, Options{})
	for i, want := range []string{"HTTP/2.0", "HTTP/3.0"} {
		if _, body, err := fetch(f, &Request{URL: s.url}); err != nil || string(body) != want {
			t.Fatalf("exchange %d: %s, %v", i, body, err)
		}
	}
	if _, body, err := fetch(f, &Request{URL: s.url + "/breaks"}); err != nil || string(body) != "HTTP/2.0" {
		t.Errorf("%s, %v", body, err)
	}
	_, _, err := fetch(f, &Request{URL: s.url + "/breaks", HTTP: HTTP3})
	wantClass(t, err, Reset)
}

func TestHTTP3FailuresHaveTheirClass(t *testing.T) {
	begun := make(chan struct{})
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/cut":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
			http.NewResponseController(w).Flush()
			<-begun
			panic(http.ErrAbortHandler)
		case "/short":
			w.Header().Set("Content-Length", "100")
			io.WriteString(w, "short")
		case "/reset":
			panic(http.ErrAbortHandler)
		case "/hang":
			<-r.Context().Done()
		case "/drip":
			io.WriteString(w, "x")
			http.NewResponseController(w).Flush()
			<-r.Context().Done()
		case "/headers-large":
			for range 20 {
				w.Header().Add("X-Large", strings.Repeat("x", 1<<10))
			}
		case "/large":
			w.Write(make([]byte, 3000))
		}
	}, nil)
	f := s.fetcher(t, Options{MaxHeaderBytes: 8 << 10})
	for path, want := range map[string]Class{
		"/short": BodyCut, "/reset": Reset, "/hang": HeaderTimeout, "/drip": IdleTimeout,
		"/headers-large": HeaderTooLarge, "/large": BodyTooLarge,
	} {
		_, _, err := fetch(f, &Request{URL: s.url + path, HTTP: HTTP3, Timeout: 4 * soon, MaxBody: 2000})
		if got := ClassOf(err); got != want {
			t.Errorf("%s: class %s (%v), want %s", path, got, err, want)
		}
	}
	res, err := f.Do(context.Background(), &Request{URL: s.url + "/cut", HTTP: HTTP3})
	if err != nil {
		t.Fatal(err)
	}
	close(begun)
	_, err = io.ReadAll(res.Body)
	wantClass(t, err, BodyCut)
	if _, _, err := fetch(f, &Request{URL: s.url + "/", HTTP: HTTP3}); err != nil {
		t.Errorf("after all that: %v", err)
	}
}

func TestDialsOverQUICHaveTheirClass(t *testing.T) {
	s := newQUICServer(t, func(http.ResponseWriter, *http.Request) {}, nil)
	other := &http3.Server{Handler: http.NotFoundHandler(), TLSConfig: &tls.Config{
		Certificates: s.tcp.TLS.Certificates, NextProtos: []string{"other"}}}
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	listener, err := quic.Listen(socket, other.TLSConfig, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { listener.Close(); socket.Close() })
	f := s.fetcher(t, Options{ConnectTimeout: 4 * soon})
	stranger := newFetcher(t, Options{})
	guarded := New(Options{TLSConfig: &tls.Config{RootCAs: s.roots}})
	t.Cleanup(guarded.Close)
	resolving := newFetcher(t, Options{Resolver: newResolver(t, nil)})
	for _, c := range []struct {
		claim   string
		fetcher *Fetcher
		url     string
		want    Class
	}{
		{"nobody listens", f, "https://" + freePort(t), ConnectTimeout},
		{"the certificate is not trusted", stranger, s.url, TLSCertificate},
		{"the address is private", guarded, s.url, AddressRefused},
		{"no HTTP/3 over its QUIC", f, "https://" + socket.LocalAddr().String(), Protocol},
		{"http URLs have no HTTP/3", f, "http://" + hostOf(s.url), Protocol},
		{"no such host", resolving, "https://missing.test", DNSNotFound},
	} {
		t.Run(c.claim, func(t *testing.T) {
			_, _, err := fetch(c.fetcher, &Request{URL: c.url, HTTP: HTTP3})
			wantClass(t, err, c.want)
			t.Log(err)
		})
	}
	if _, _, err := fetch(stranger, &Request{URL: s.url, HTTP: HTTP3, Insecure: true}); err != nil {
		t.Error(err)
	}
}

func TestAnAnswerWithoutABodyHasNoneOverHTTP3(t *testing.T) {
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/none":
			w.WriteHeader(http.StatusNoContent)
		case "/same":
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("Content-Length", "5000")
		}
	}, nil)
	f := s.fetcher(t, Options{})
	for path, method := range map[string]string{"/none": "GET", "/same": "GET", "/head": "HEAD"} {
		res, body, err := fetch(f, &Request{URL: s.url + path, Method: method, HTTP: HTTP3, MaxBody: 100})
		if err != nil || len(body) > 0 {
			t.Errorf("%s: %d bytes, %v", path, len(body), err)
			continue
		}
		if path == "/head" && res.ContentLength != 5000 {
			t.Errorf("announced %d bytes, want 5000", res.ContentLength)
		}
	}
}

func TestCodedBodiesAreDecodedOverHTTP3(t *testing.T) {
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		z.Write(page64)
		z.Close()
	}, nil)
	f := s.fetcher(t, Options{})
	res, body, err := fetch(f, &Request{URL: s.url, HTTP: HTTP3})
	if err != nil || !bytes.Equal(body, page64) {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	if n := res.WireBytes(); n == 0 || n >= int64(len(page64)) {
		t.Errorf("%d bytes on the wire", n)
	}
	_, _, err = fetch(f, &Request{URL: s.url, HTTP: HTTP3, MaxBody: 1000})
	wantClass(t, err, DecodeTooLarge)
}

func TestAQUICConnectionOfNoUseIsClosed(t *testing.T) {
	s := newQUICServer(t, func(w http.ResponseWriter, r *http.Request) { w.Write(page64) }, nil)
	f := s.fetcher(t, Options{IdleConnTimeout: soon})
	res, err := f.Do(context.Background(), &Request{URL: s.url, HTTP: HTTP3})
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(4 * soon) // what is in use stays open, however long
	if body, err := io.ReadAll(res.Body); err != nil || !bytes.Equal(body, page64) {
		t.Fatalf("%d bytes, %v", len(body), err)
	}
	wantForgotten(t, f)
}
