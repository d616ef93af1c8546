package fetch

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestFailuresOfAPlainServerHaveTheirClass(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{MaxHeaderBytes: 8 << 10})
	o.Handle("/headers-large", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-Large", strings.Repeat("x", 100<<10))
	})
	for claim, c := range map[string]struct {
		req  Request
		want Class
	}{
		"no headers in time":                     {Request{URL: o.URL("/hang"), Timeout: soon}, HeaderTimeout},
		"headers later than allowed":             {Request{URL: o.URL("/slow?ms=60000"), Timeout: soon}, HeaderTimeout},
		"a pause within the body":                {Request{URL: o.URL("/drip?ms=60000"), Timeout: soon}, IdleTimeout},
		"a drip that never pauses":               {Request{URL: o.URL("/drip?ms=10&bytes=100000"), Timeout: time.Minute, MaxTime: 4 * soon}, TotalTimeout},
		"a hang beyond the whole time":           {Request{URL: o.URL("/hang"), Timeout: time.Minute, MaxTime: soon}, TotalTimeout},
		"a reset instead of headers":             {Request{URL: o.URL("/reset"), Method: "POST"}, Reset},
		"a reset within the body":                {Request{URL: o.URL("/reset?send=10")}, Reset},
		"a body shorter than its Content-Length": {Request{URL: o.URL("/cut?announce=100&send=10")}, BodyCut},
		"a body of which nothing came":           {Request{URL: o.URL("/cut?announce=100&send=0")}, BodyCut},
		"a chunked body without its end":         {Request{URL: o.URL("/cut?announce=chunked&send=10")}, BodyCut},
		"no HTTP at all":                         {Request{URL: o.URL("/malformed")}, Protocol},
		"a chunk without a length":               {Request{URL: o.URL("/malformed?in=chunk")}, Protocol},
		"headers over the limit":                 {Request{URL: o.URL("/headers-large")}, HeaderTooLarge},
		"an announced body over the limit":       {Request{URL: o.URL("/large?mb=2"), MaxBody: 1 << 20}, BodyTooLarge},
		"a streamed body over the limit":         {Request{URL: o.URL("/large?mb=2&chunked=1"), MaxBody: 1 << 20}, BodyTooLarge},
		"a bomb":                                 {Request{URL: o.URL("/bomb?mb=20"), MaxBody: 1 << 20}, DecodeTooLarge},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			_, _, err := fetch(f, &c.req)
			wantClass(t, err, c.want)
		})
	}
}

func TestRequestsThatCannotBeSentHaveTheirClass(t *testing.T) {
	f := newFetcher(t, Options{})
	for claim, c := range map[string]struct {
		req  Request
		want Class
	}{
		"no URL":                   {Request{URL: ""}, URLInvalid},
		"a relative URL":           {Request{URL: "/a"}, URLInvalid},
		"another scheme":           {Request{URL: "ftp://example.test/"}, URLInvalid},
		"no host":                  {Request{URL: "http:///a"}, URLInvalid},
		"a port out of range":      {Request{URL: "http://example.test:70000/"}, URLInvalid},
		"port zero":                {Request{URL: "http://example.test:0/"}, URLInvalid},
		"a line break in the URL":  {Request{URL: "http://example.test/\r\nX: y"}, URLInvalid},
		"a bad escape in the host": {Request{URL: "http://exa%zzmple.test/"}, URLInvalid},
		"a method with a space":    {Request{Method: "GE T", URL: "http://example.test/"}, RequestInvalid},
		"CONNECT":                  {Request{Method: "CONNECT", URL: "http://example.test/"}, RequestInvalid},
		"a header name with space": {Request{URL: "http://example.test/", Header: http.Header{"A b": {"c"}}}, RequestInvalid},
		"a header with line break": {Request{URL: "http://example.test/", Header: header("A", "b\r\nC: d")}, RequestInvalid},
		"a Host header with slash": {Request{URL: "http://example.test/", Header: header("Host", "a\x01b")}, RequestInvalid},
	} {
		t.Run(claim, func(t *testing.T) {
			_, err := f.Do(context.Background(), &c.req)
			wantClass(t, err, c.want)
		})
	}
}

func TestConnectingFailuresHaveTheirClass(t *testing.T) {
	f := newFetcher(t, Options{ConnectTimeout: 5 * time.Second, TLSTimeout: soon})
	for claim, c := range map[string]struct {
		url  string
		want Class
	}{
		"nobody listens":                {"http://" + freePort(t), ConnectRefused},
		"a handshake that is not taken": {"https://" + listen(t, silent), TLSTimeout},
		"a server that closes instead":  {"https://" + listen(t, func(net.Conn) {}), Reset},
		"plain HTTP where TLS was meant": {"https://" + listen(t, func(c net.Conn) {
			io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n")
			c.(*net.TCPConn).CloseWrite()
			silent(c)
		}), TLS},
		"a private address": {"http://10.0.0.1/", AddressRefused},
	} {
		t.Run(claim, func(t *testing.T) {
			_, err := f.Do(context.Background(), &Request{URL: c.url})
			wantClass(t, err, c.want)
		})
	}
}

func TestAConnectionThatTakesTooLongIsAConnectTimeout(t *testing.T) {
	f := newFetcher(t, Options{ConnectTimeout: time.Nanosecond})
	_, err := f.Do(context.Background(), &Request{URL: "http://" + freePort(t)})
	wantClass(t, err, ConnectTimeout)
}

func TestAnAddressWithoutARouteIsUnreachable(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("which address has no route is known for Linux only")
	}
	f := newFetcher(t, Options{AllowPrivate: mustPrefixes("255.255.255.255/32")})
	_, err := f.Do(context.Background(), &Request{URL: "http://255.255.255.255/"})
	wantClass(t, err, ConnectUnreachable)
}

func TestEveryClassIsListedOnce(t *testing.T) {
	seen := map[Class]bool{}
	for _, c := range Classes() {
		if seen[c] || c == "" {
			t.Errorf("%q is listed twice or empty", c)
		}
		seen[c] = true
	}
	if len(seen) != 32 {
		t.Errorf("%d classes are listed, want 32: keep Classes and the constants in step", len(seen))
	}
}

// timeoutError is what a dial that takes too long ends with.
type timeoutError struct{}

func (timeoutError) Error() string   { return "i/o timeout" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func TestDialErrorsThatLoopbackCannotProduceHaveTheirClass(t *testing.T) {
	for errno, want := range errnoClasses {
		err := &net.OpError{Op: "dial", Net: "tcp", Err: errno}
		if got := classifyDial(err); got != want {
			t.Errorf("%v is %s, want %s", errno, got, want)
		}
	}
	if got := classifyDial(&net.OpError{Op: "dial", Err: timeoutError{}}); got != ConnectTimeout {
		t.Errorf("a timeout is %s, want %s", got, ConnectTimeout)
	}
	if got := classifyDial(errors.New("too many open files")); got != Other {
		t.Errorf("an error of another kind is %s, want %s", got, Other)
	}
}

func TestTLSFailuresHaveTheirClass(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = discardLog
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	s.StartTLS()
	t.Cleanup(s.Close)
	trusting := s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	for claim, c := range map[string]struct {
		config *tls.Config
		want   Class
	}{
		"an unknown authority":      {nil, TLSCertificate},
		"another name":              {&tls.Config{RootCAs: trusting, ServerName: "other.test"}, TLSCertificate},
		"a time after its validity": {&tls.Config{RootCAs: trusting, Time: func() time.Time { return time.Unix(1<<33, 0) }}, TLSCertificate},
		"no version in common":      {&tls.Config{RootCAs: trusting, MaxVersion: tls.VersionTLS12}, TLS},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFetcher(t, Options{TLSConfig: c.config})
			_, err := f.Do(context.Background(), &Request{URL: s.URL})
			wantClass(t, err, c.want)
		})
	}
}

func TestAServerThatWantsAClientCertificateIsATLSFailure(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.Config.ErrorLog = discardLog
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.StartTLS()
	t.Cleanup(s.Close)
	f := newFetcher(t, Options{TLSConfig: &tls.Config{InsecureSkipVerify: true}})
	_, err := f.Do(context.Background(), &Request{URL: s.URL, Method: "POST"})
	wantClass(t, err, TLS)
}

func TestTheCallersCancellationIsNeverATimeout(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	t.Run("before headers", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(context.Background(), soon)
		defer cancel()
		_, err := f.Do(ctx, &Request{URL: o.URL("/hang")})
		wantClass(t, err, Canceled)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%v does not wrap the context's error", err)
		}
	})
	t.Run("within the body", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		res, err := f.Do(ctx, &Request{URL: o.URL("/drip?ms=60000")})
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		cancel()
		_, err = io.ReadAll(res.Body)
		wantClass(t, err, Canceled)
	})
	t.Run("before the start", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_, err := f.Do(ctx, &Request{URL: o.URL("/page/x")})
		wantClass(t, err, Canceled)
	})
}

func TestASlowReaderIsNoIdleServer(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	res, err := f.Do(context.Background(), &Request{URL: o.URL("/large?mb=8"), Timeout: soon})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-time.After(4 * soon) // the time that passes is the subject of this test
	if n, err := io.Copy(io.Discard, res.Body); n != 8<<20 || err != nil {
		t.Errorf("read %d bytes and %v, want 8 MiB", n, err)
	}
}

func TestErrorsNameTheirStepOnce(t *testing.T) {
	e := &Error{Class: ConnectRefused, Op: "dial", Err: errors.New("dial tcp 192.0.2.1:80: refused")}
	if got, want := e.Error(), "dial tcp 192.0.2.1:80: refused"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	e = fail(Protocol, "headers", "malformed")
	if got, want := e.Error(), "headers: malformed"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClassOf(t *testing.T) {
	if got := ClassOf(nil); got != "" {
		t.Errorf("ClassOf(nil) = %q", got)
	}
	if got := ClassOf(io.EOF); got != Other {
		t.Errorf("ClassOf(io.EOF) = %q", got)
	}
	if got := ClassOf(errors.Join(io.EOF, fail(Reset, "body", "x"))); got != Reset {
		t.Errorf("ClassOf(wrapped) = %q", got)
	}
}
