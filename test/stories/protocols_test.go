package stories

import (
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"

	"github.com/quic-go/quic-go/http3"
	"github.com/rogpeppe/go-internal/testscript"
)

// speaksCommand starts a server that answers with the protocol it was asked in, at $NAME: HTTP/1.1 over TLS and, where
// named, 2 and 3 at the same port. With "plain" it has no TLS and speaks HTTP/1.1 and, with 2, HTTP/2 as well. Its
// certificate is in $CERTIFICATE.
//
//	speaks NAME 1.1|plain [2] [3]
func speaksCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: speaks NAME 1.1|plain [2] [3]")
	}
	kinds := strings.Join(args[1:], " ")
	s := httptest.NewUnstartedServer(nil)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(kinds, "3") {
			w.Header().Set("Alt-Svc", fmt.Sprintf(`h3=":%d"; ma=60`, s.Listener.Addr().(*net.TCPAddr).Port))
		}
		io.WriteString(w, r.Proto)
	})
	if args[1] == "plain" {
		s.Config.Protocols = &http.Protocols{}
		s.Config.Protocols.SetHTTP1(true)
		s.Config.Protocols.SetUnencryptedHTTP2(strings.Contains(kinds, "2"))
		s.Start()
	} else {
		s.TLS = &tls.Config{NextProtos: []string{"http/1.1"}}
		if s.EnableHTTP2 = strings.Contains(kinds, "2"); s.EnableHTTP2 {
			s.TLS.NextProtos = []string{"h2", "http/1.1"}
		}
		s.StartTLS()
		trust(ts, s)
	}
	ts.Defer(s.Close)
	if strings.Contains(kinds, "3") {
		overQUIC(ts, s)
	}
	ts.Setenv(args[0], s.URL)
}

// trust writes the server's certificate to $CERTIFICATE.
func trust(ts *testscript.TestScript, s *httptest.Server) {
	path := ts.MkAbs("certificate.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	ts.Check(os.WriteFile(path, block, 0o600))
	ts.Setenv("CERTIFICATE", path)
}

// overQUIC serves the same over HTTP/3.
func overQUIC(ts *testscript.TestScript, s *httptest.Server) {
	addr := s.Listener.Addr().(*net.TCPAddr)
	socket, err := net.ListenUDP("udp4", &net.UDPAddr{IP: addr.IP, Port: addr.Port})
	ts.Check(err)
	server := &http3.Server{Handler: s.Config.Handler, TLSConfig: http3.ConfigureTLSConfig(s.TLS.Clone())}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = server.Serve(socket)
	}()
	ts.Defer(func() {
		_ = server.Close()
		_ = socket.Close()
		<-done
	})
}
