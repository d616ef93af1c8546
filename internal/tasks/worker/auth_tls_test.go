package worker_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	stdlog "log"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

// clientPair makes a certificate that signs itself, in PEM.
func clientPair(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}, BasicConstraintsValid: true, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
}

// mutual is a server that talks only to who has one of these certificates, and tells him his name.
func mutual(t *testing.T, clients ...[]byte) *httptest.Server {
	t.Helper()
	pool := x509.NewCertPool()
	for _, c := range clients {
		pool.AppendCertsFromPEM(c)
	}
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/robots.txt" {
			_, _ = io.WriteString(w, "User-agent: *\nDisallow: /private\n")
			return
		}
		_, _ = io.WriteString(w, r.TLS.PeerCertificates[0].Subject.CommonName)
	}))
	s.Config.ErrorLog = stdlog.New(io.Discard, "", 0)
	s.EnableHTTP2 = true
	s.TLS = &tls.Config{ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func TestAClientCertificateOpensWhatAsksForOne(t *testing.T) {
	dir := t.TempDir()
	oneCert, oneKey := clientPair(t, "one")
	twoCert, twoKey := clientPair(t, "two")
	for name, data := range map[string][]byte{"one.crt": oneCert, "one.key": oneKey, "two.crt": twoCert, "two.key": twoKey} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := mutual(t, oneCert, twoCert)
	f := newFleet(t)
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	fetcher := fetch.New(fetch.Options{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}, TLSConfig: &tls.Config{RootCAs: roots}})
	defer fetcher.Close()
	source, err := secrets.New(secrets.Options{Dirs: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	defer f.start(func(o *worker.Options) { o.Fetcher, o.Secrets = fetcher, source })()

	pair := func(name string) tasks.AuthSpec {
		return tasks.AuthSpec{ClientCert: "${file:" + name + ".crt}", ClientKey: "${file:" + dir + "/" + name + ".key}"}
	}
	// The server breaks off after the handshake (TLS 1.3), so it is chance which class comes of it.
	for job, c := range map[tasks.JobID]struct {
		auth    tasks.AuthSpec
		outcome store.Outcome
		class   string
		body    string
	}{
		"one":     {auth: pair("one"), outcome: store.OK, body: "one"},
		"two":     {auth: pair("two"), outcome: store.OK, body: "two"}, // and not over a connection of one's
		"none":    {outcome: store.Failed, class: "any"},
		"no-file": {auth: pair("three"), outcome: store.Failed, class: "secret"},
		"elsewhere": {auth: func() tasks.AuthSpec { a := pair("one"); a.AuthHosts = []string{"other.example"}; return a }(),
			outcome: store.Failed, class: "any"},
	} {
		spec := fastSpec()
		spec.AuthSpec, spec.Retries = c.auth, 0
		f.enqueue(job, spec, s.URL+"/page")
		f.await(job, within)
		for _, r := range f.records(job) {
			class := ""
			if r.Error != nil {
				class = r.Error.Class
			}
			if r.Outcome != c.outcome || class != c.class && (c.class != "any" || class == "secret") || f.body(r) != c.body {
				t.Errorf("job %s: %s, class %q, body %q, error %+v", job, r.Outcome, class, f.body(r), r.Error)
			}
		}
	}

	t.Run("robots.txt included", func(t *testing.T) {
		spec := fastSpec()
		spec.AuthSpec, spec.Robots = pair("one"), "obey"
		f.enqueue("polite", spec, s.URL+"/page", s.URL+"/private")
		if got := f.await("polite", within); got.OK != 1 || got.Skipped != 1 {
			t.Errorf("status %+v", got)
		}
	})
}
