package fetch

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"
)

// newTLS serves h over TLS with the config, HTTP/2 unless nextProtos says otherwise, and returns the roots to trust.
func newTLS(t testing.TB, h http.Handler, config *tls.Config, http2 bool) (*httptest.Server, *x509.CertPool) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = config
	s.EnableHTTP2 = http2
	s.StartTLS()
	t.Cleanup(s.Close)
	return s, s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
}

// newCertificate makes a client certificate that signs itself.
func newCertificate(t testing.TB, name string) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestAnInsecureConnectionServesOnlyThoseWhoAskedForIt(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		s, _ := newTLS(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}), nil, http2)
		f := newFetcher(t, Options{})
		for range 2 {
			if _, _, err := fetch(f, &Request{URL: s.URL, Insecure: true}); err != nil {
				t.Fatal(err)
			}
			_, _, err := fetch(f, &Request{URL: s.URL})
			wantClass(t, err, TLSCertificate)
		}
	}
}

func TestEachClientCertificateHasItsOwnConnections(t *testing.T) {
	who := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := "nobody"
		if len(r.TLS.PeerCertificates) > 0 {
			name = r.TLS.PeerCertificates[0].Subject.CommonName
		}
		fmt.Fprintf(w, "%s on %s", name, r.RemoteAddr)
	})
	s, roots := newTLS(t, who, &tls.Config{ClientAuth: tls.RequestClientCert}, true)
	f := newFetcher(t, Options{TLSConfig: &tls.Config{RootCAs: roots}})
	seen := map[string]int{}
	for range 3 {
		for _, name := range []string{"", "anna", "bert"} {
			r := &Request{URL: s.URL}
			want := "nobody"
			if name != "" {
				want, r.Certificate = name, certificateOf(t, name)
			}
			_, body, err := fetch(f, r)
			if err != nil {
				t.Fatal(err)
			}
			if got := string(body[:len(want)]); got != want {
				t.Errorf("the server saw %q, want %s", body, want)
			}
			seen[string(body)]++
		}
	}
	if len(seen) != 3 {
		t.Errorf("the server saw %v, want three connections used three times each", seen)
	}
}

var certificates = map[string]*tls.Certificate{}

// certificateOf makes one certificate for each name.
func certificateOf(t testing.TB, name string) *tls.Certificate {
	if certificates[name] == nil {
		certificates[name] = newCertificate(t, name)
	}
	return certificates[name]
}

func TestLanesThatAreIdleAreClosedWhenThereAreMany(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	busy := &Request{URL: o.URL("/large?mb=1"), Certificate: newCertificate(t, "busy")}
	res, err := f.Do(context.Background(), busy)
	if err != nil {
		t.Fatal(err)
	}
	for i := range maxLanes + 5 {
		r := &Request{URL: o.URL("/page/x"), Certificate: newCertificate(t, fmt.Sprint(i))}
		if _, _, err := fetch(f, r); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(f.lanes.open); got != maxLanes {
		t.Errorf("%d lanes are open, want %d", got, maxLanes)
	}
	if f.lanes.open[laneOf(busy)] == nil {
		t.Error("the lane in use was closed")
	}
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != 1<<20 {
		t.Errorf("%d bytes, %v", n, err)
	}
	if got := registered(f, o.Addr()); got != maxLanes {
		t.Errorf("%d connections are open, want one for each lane", got)
	}
}

func TestAVersionIsSpokenOrTheExchangeEndsInClassProtocol(t *testing.T) {
	says := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.Proto) })
	one, rootsOne := newTLS(t, says, nil, false)
	both, rootsBoth := newTLS(t, says, nil, true)
	if !rootsOne.Equal(rootsBoth) {
		t.Fatal("two servers, two certificates")
	}
	strict, _ := newTLS(t, says, &tls.Config{NextProtos: []string{"h2"}}, true)
	silent, _ := newTLS(t, says, &tls.Config{NextProtos: []string{"x"}, GetConfigForClient: withoutALPN(t)}, false)
	plain := httptest.NewServer(says)
	t.Cleanup(plain.Close)
	h2c := httptest.NewUnstartedServer(says)
	h2c.Config.Protocols = &http.Protocols{}
	h2c.Config.Protocols.SetUnencryptedHTTP2(true)
	h2c.Config.Protocols.SetHTTP1(true)
	h2c.Start()
	t.Cleanup(h2c.Close)
	f := newFetcher(t, Options{TLSConfig: &tls.Config{RootCAs: rootsOne}})
	for _, c := range []struct {
		claim, url string
		version    Version
		want       string // protocol
	}{
		{"both, auto", both.URL, Auto, "HTTP/2.0"},
		{"both, 1.1", both.URL, HTTP1, "HTTP/1.1"},
		{"both, 2", both.URL, HTTP2, "HTTP/2.0"},
		{"1.1 alone, auto", one.URL, Auto, "HTTP/1.1"},
		{"1.1 alone, 1.1", one.URL, HTTP1, "HTTP/1.1"},
		{"1.1 alone, 2", one.URL, HTTP2, ""},
		{"2 alone, 1.1", strict.URL, HTTP1, "HTTP/1.1"}, // Go takes it for a client that knows no ALPN
		{"no ALPN, 2", silent.URL, HTTP2, ""},
		{"plain, auto", plain.URL, Auto, "HTTP/1.1"},
		{"plain, 2", plain.URL, HTTP2, ""},
		{"h2c, auto", h2c.URL, Auto, "HTTP/1.1"},
		{"h2c, 2", h2c.URL, HTTP2, "HTTP/2.0"},
	} {
		t.Run(c.claim, func(t *testing.T) {
			for range 2 {
				res, body, err := fetch(f, &Request{URL: c.url, HTTP: c.version})
				if c.want == "" {
					wantClass(t, err, Protocol)
					t.Log(err)
					continue
				}
				if err != nil || string(body) != c.want || res.Protocol != c.want {
					t.Errorf("%s, %v, want %s", body, err, c.want)
				}
			}
		})
	}
}

// withoutALPN is a server's handshake that ignores what is offered.
func withoutALPN(t *testing.T) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	return func(*tls.ClientHelloInfo) (*tls.Config, error) {
		s := httptest.NewUnstartedServer(nil)
		s.StartTLS()
		defer s.Close()
		return &tls.Config{Certificates: s.TLS.Certificates}, nil
	}
}

func TestAClientCertificateIsShownToItsOwnOriginOnly(t *testing.T) {
	r := &Request{URL: "https://x.test/", Certificate: &tls.Certificate{}, Insecure: true, HTTP: HTTP2}
	for location, kept := range map[string]bool{"/b": true, "https://y.test/": false, "http://x.test/": false} {
		next, ok, err := Redirect(r, &Response{Status: 302, Header: header("Location", location)})
		if err != nil || !ok {
			t.Fatal(ok, err)
		}
		if (next.Certificate != nil) != kept || !next.Insecure || next.HTTP != HTTP2 {
			t.Errorf("%s: %+v", location, next)
		}
	}
}
