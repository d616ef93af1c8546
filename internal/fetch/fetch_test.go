package fetch

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/google/go-cmp/cmp"
)

func TestAnAnswerTellsWhatCameAndFromWhere(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	res, body, err := fetch(f, &Request{URL: o.URL("/page/x") + "#fragment"})
	if err != nil {
		t.Fatal(err)
	}
	if want := fetchtest.Page("/page/x", 0); !bytes.Equal(body, want) {
		t.Errorf("got %d bytes, want %d", len(body), len(want))
	}
	got := []any{res.URL, res.Status, res.Protocol, res.RemoteAddr, res.ContentType, res.ContentLength, res.WireBytes()}
	want := []any{o.URL("/page/x"), 200, "HTTP/1.1", o.Addr(), "text/html; charset=utf-8", int64(2048), int64(2048)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

func TestTimingsAreThoseOfThisExchange(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{Resolver: newResolver(t, nil)})
	url := strings.Replace(o.URL("/page/x"), "127.0.0.1", "example.test", 1)
	first, _, err := fetch(f, &Request{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if got := first.Timings(); got.DNS <= 0 || got.Connect <= 0 || got.TTFB < got.DNS+got.Connect || got.Total < got.TTFB {
		t.Errorf("first exchange: %+v", got)
	}
	second, _, err := fetch(f, &Request{URL: url})
	if err != nil {
		t.Fatal(err)
	}
	if got := second.Timings(); got.DNS != 0 || got.Connect != 0 || got.TTFB <= 0 || got.Total < got.TTFB {
		t.Errorf("second exchange, on the same connection: %+v", got)
	}
	if a, b := second.Timings(), second.Timings(); a != b {
		t.Errorf("timings of an ended exchange changed from %+v to %+v", a, b)
	}
	if got := (&Response{}).Timings(); got != (Timings{}) {
		t.Errorf("timings of no exchange: %+v", got)
	}
}

func TestWhatIsSent(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{UserAgent: "fleet"})
	base := map[string]string{"User-Agent": "fleet", "Accept": "*/*", "Accept-Encoding": "gzip, deflate, br, zstd"}
	for claim, c := range map[string]struct {
		req  Request
		want map[string]string // beside base; "" for absent
		echo fetchtest.Echo
	}{
		"a plain request": {Request{URL: "/echo?a=b"}, nil, fetchtest.Echo{Method: "GET", URI: "/echo?a=b"}},
		"its own user agent": {Request{URL: "/echo", UserAgent: "own"},
			map[string]string{"User-Agent": "own"}, fetchtest.Echo{Method: "GET", URI: "/echo"}},
		"a header that is not canonical": {Request{URL: "/echo", UserAgent: "own", Header: http.Header{"user-agent": {"header"}}},
			map[string]string{"User-Agent": "header"}, fetchtest.Echo{Method: "GET", URI: "/echo"}},
		"a body": {Request{Method: "POST", URL: "/echo", Body: []byte("hello")},
			map[string]string{"Content-Length": "5"}, fetchtest.Echo{Method: "POST", URI: "/echo", Body: "hello"}},
		"a range": {Request{URL: "/echo", Header: header("Range", "bytes=0-1")},
			map[string]string{"Range": "bytes=0-1", "Accept-Encoding": ""}, fetchtest.Echo{Method: "GET", URI: "/echo"}},
		"another host": {Request{URL: "/echo", Header: header("Host", "virtual.test")}, nil,
			fetchtest.Echo{Method: "GET", URI: "/echo", Host: "virtual.test"}},
		"what belongs to the connection": {Request{URL: "/echo", Header: header("Connection", "close", "Upgrade", "x", "Content-Length", "9", "Te", "y", "Transfer-Encoding", "chunked")},
			nil, fetchtest.Echo{Method: "GET", URI: "/echo"}},
		"a stray percent sign": {Request{URL: "/echo/100%/?50%#x"}, nil, fetchtest.Echo{Method: "GET", URI: "/echo/100%/?50%"}},
		"a space in the query": {Request{URL: "/echo?a b"}, nil, fetchtest.Echo{Method: "GET", URI: "/echo?a%20b"}},
	} {
		t.Run(claim, func(t *testing.T) {
			c.req.URL = o.URL(c.req.URL)
			// A server reads no path with a stray percent sign, so look at the bytes.
			got := sentBytes(t, f, c.req, o.Addr())
			if c.echo.Host == "" {
				c.echo.Host = o.Addr()
			}
			want := c.echo
			want.Header = http.Header{}
			for _, set := range []map[string]string{base, c.want} {
				for name, value := range set {
					want.Header[name] = []string{value}
					if value == "" {
						delete(want.Header, name)
					}
				}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// sentBytes makes the exchange with a server that takes the request apart by
// hand, and returns what it found.
func sentBytes(t *testing.T, f *Fetcher, r Request, origin string) fetchtest.Echo {
	t.Helper()
	got := make(chan fetchtest.Echo, 1)
	addr := listen(t, func(c net.Conn) {
		e := fetchtest.Echo{Header: http.Header{}}
		in := bufio.NewReader(c)
		line, _ := in.ReadString('\n')
		e.Method, line, _ = strings.Cut(strings.TrimSpace(line), " ")
		e.URI = strings.TrimSuffix(line, " HTTP/1.1")
		for {
			line, err := in.ReadString('\n')
			name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
			if !ok || err != nil {
				break
			}
			e.Header.Add(name, value)
		}
		if e.Header.Get("Content-Length") != "" {
			body := make([]byte, len(r.Body))
			io.ReadFull(in, body)
			e.Body = string(body)
		}
		e.Host = strings.Replace(e.Header.Get("Host"), c.LocalAddr().String(), origin, 1)
		e.Header.Del("Host")
		got <- e
		io.WriteString(c, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
	})
	r.URL = strings.Replace(r.URL, origin, addr, 1)
	if _, _, err := fetch(f, &r); err != nil {
		t.Fatal(err)
	}
	return <-got
}

func TestCredentialsOfAURLAreSentAndNeverShown(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	res, body, err := fetch(f, &Request{URL: "http://user:secret@" + o.Addr() + "/headers"})
	if err != nil {
		t.Fatal(err)
	}
	var h http.Header
	if err := json.Unmarshal(body, &h); err != nil {
		t.Fatal(err)
	}
	if got, want := h.Get("Authorization"), "Basic dXNlcjpzZWNyZXQ="; got != want {
		t.Errorf("Authorization %q, want %q", got, want)
	}
	if res.URL != o.URL("/headers") {
		t.Errorf("URL %s shows the credentials", res.URL)
	}
	for _, url := range []string{"http://user:secret@a b/", "http://user:secret@[::1/", "ftp://user:secret@a/", "http://user:secret@" + freePort(t), "http://user:secret@a:99999/%zz"} {
		_, err := f.Do(context.Background(), &Request{URL: url})
		if err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("error %v shows the credentials", err)
		}
	}
}

func TestAnswersWithoutABodyEndAtOnce(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	for claim, r := range map[string]Request{
		"no content":        {URL: o.URL("/status/204")},
		"not modified":      {URL: o.URL("/status/304")},
		"a head":            {URL: o.URL("/gzip"), Method: "HEAD"},
		"a head of a giant": {URL: o.URL("/large?mb=2"), Method: "HEAD", MaxBody: 1},
	} {
		res, body, err := fetch(f, &r)
		if err != nil || len(body) != 0 {
			t.Errorf("%s: %d bytes, %v", claim, len(body), err)
			continue
		}
		if total := res.Timings().Total; total == 0 || total != res.Timings().Total {
			t.Errorf("%s has not ended", claim)
		}
	}
}

func TestAnUnaskedUpgradeIsAProtocolError(t *testing.T) {
	f := newFetcher(t, Options{})
	addr := listen(t, func(c net.Conn) {
		http.ReadRequest(bufio.NewReader(c))
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n")
		silent(c)
	})
	_, _, err := fetch(f, &Request{URL: "http://" + addr})
	wantClass(t, err, Protocol)
}

func TestConnectionsAreReused(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	for claim, c := range map[string]struct {
		url   string
		end   func(io.ReadCloser)
		reuse bool
	}{
		"after the end of the body":            {"/page/x", readAll, true},
		"after the end of a chunked body":      {"/large?mb=1&chunked=1", readAll, true},
		"after the end of a decoded body":      {"/gzip?size=50000", readAll, true},
		"after closing with little left":       {"/page/x", closeOnly, true},
		"after closing a chunked body":         {"/headers", closeOnly, true},
		"after closing a redirect":             {"/redirect?to=/x", closeOnly, true},
		"not after closing with much left":     {"/large?mb=8", closeOnly, false},
		"not after closing with slowness left": {"/drip?ms=60000", closeOnly, false},
	} {
		t.Run(claim, func(t *testing.T) {
			f.Close()
			for i := range 2 {
				res, err := f.Do(context.Background(), &Request{URL: o.URL(c.url)})
				if err != nil {
					t.Fatal(err)
				}
				c.end(res.Body)
				if i == 1 && res.x.reused != c.reuse {
					t.Errorf("connection reused: %v, want %v", res.x.reused, c.reuse)
				}
			}
		})
	}
}

func readAll(b io.ReadCloser) {
	io.Copy(io.Discard, b)
	b.Close()
}

func closeOnly(b io.ReadCloser) { b.Close() }

func TestReadingAfterCloseIsAnError(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	res, err := f.Do(context.Background(), &Request{URL: o.URL("/gzip")})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := res.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	_, err = res.Body.Read(make([]byte, 1))
	wantClass(t, err, Other)
}

// A server that closes idle connections without telling must not fail requests
// that can be repeated; those that cannot are the caller's to decide.
func TestARequestOnADeadIdleConnection(t *testing.T) {
	var conns atomic.Int32
	addr := listen(t, func(c net.Conn) {
		conns.Add(1)
		in := bufio.NewReader(c)
		for range 1 {
			if _, err := http.ReadRequest(in); err != nil {
				return
			}
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
		http.ReadRequest(in) // the next request arrives and the connection dies under it
	})
	f := newFetcher(t, Options{})
	exchange := func(method string) error {
		_, _, err := fetch(f, &Request{Method: method, URL: "http://" + addr})
		return err
	}
	if err := exchange("GET"); err != nil {
		t.Fatal(err)
	}
	if err := exchange("GET"); err != nil {
		t.Errorf("a GET was not repeated: %v", err)
	}
	wantClass(t, exchange("POST"), Reset)
	if got := conns.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}
