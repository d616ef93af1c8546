package fetch

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// framed is a server that speaks HTTP/2 frame by frame: each connection is given to the next script.
type framed struct {
	url     string
	fetcher *Fetcher
	dialled atomic.Int64
}

// http2Conn is one connection of a framed server, after the preface.
type http2Conn struct {
	*http2.Framer
	t testing.TB
}

// script plays the server's part; it returns when it has nothing more to say, and the connection is closed then.
type script func(c *http2Conn)

func newFramed(t *testing.T, settings []http2.Setting, scripts ...script) *framed {
	t.Helper()
	s := &framed{}
	certificates := httptest.NewUnstartedServer(nil)
	certificates.StartTLS()
	roots := certificates.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	config := &tls.Config{Certificates: certificates.TLS.Certificates, NextProtos: []string{"h2"}}
	certificates.Close()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	play := func(raw net.Conn) {
		defer raw.Close()
		n := int(s.dialled.Add(1)) - 1
		c := tls.Server(raw, config)
		defer c.Close()
		preface := make([]byte, len(http2.ClientPreface))
		if _, err := io.ReadFull(c, preface); err != nil {
			return
		}
		framer := &http2Conn{Framer: http2.NewFramer(c, c), t: t}
		if err := framer.WriteSettings(settings...); err != nil {
			return
		}
		scripts[min(n, len(scripts)-1)](framer)
	}
	var all sync.WaitGroup
	all.Go(func() {
		for raw, err := l.Accept(); err == nil; raw, err = l.Accept() {
			t.Cleanup(func() { raw.Close() })
			all.Go(func() { play(raw) })
		}
	})
	t.Cleanup(func() { // after the connections, whose cleanup comes later
		l.Close()
		all.Wait()
	})
	s.url = "https://" + l.Addr().String()
	s.fetcher = newFetcher(t, Options{TLSConfig: &tls.Config{RootCAs: roots}})
	return s
}

// request waits for the next request's headers and returns its stream; 0 when the client is gone.
func (c *http2Conn) request() uint32 {
	for {
		frame, err := c.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := frame.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				_ = c.WriteSettingsAck()
			}
		case *http2.HeadersFrame:
			return f.StreamID
		}
	}
}

// headers begins an answer of 200 with a body, or without.
func (c *http2Conn) headers(stream uint32, end bool) {
	var block bytes.Buffer
	_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: ":status", Value: "200"})
	_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
}

// rest reads until the client closes, and answers nothing.
func (c *http2Conn) rest() {
	for {
		if _, err := c.ReadFrame(); err != nil {
			return
		}
	}
}

// whole answers every request with "whole".
func whole(c *http2Conn) {
	for stream := c.request(); stream != 0; stream = c.request() {
		c.headers(stream, false)
		_ = c.WriteData(stream, true, []byte("whole"))
	}
}

// half answers the first request with the first half of a body.
func half(c *http2Conn) (stream uint32) {
	stream = c.request()
	c.headers(stream, false)
	_ = c.WriteData(stream, false, []byte("half"))
	return stream
}

func TestHTTP2ThatBreaksOffHasItsClassAndTheNextExchangeIsWhole(t *testing.T) {
	for _, c := range []struct {
		claim  string
		script script
		want   Class
	}{
		{"GOAWAY in the middle of an answer, and the end", func(c *http2Conn) {
			stream := half(c)
			_ = c.WriteGoAway(stream, http2.ErrCodeNo, nil)
		}, Reset},
		{"GOAWAY that counts the request, and the end", func(c *http2Conn) {
			stream := c.request()
			_ = c.WriteGoAway(stream, http2.ErrCodeInternal, nil)
		}, Reset},
		{"RST_STREAM before an answer", func(c *http2Conn) {
			_ = c.WriteRSTStream(c.request(), http2.ErrCodeInternal)
			c.rest()
		}, Reset},
		{"RST_STREAM in the middle of one", func(c *http2Conn) {
			_ = c.WriteRSTStream(half(c), http2.ErrCodeCancel)
			c.rest()
		}, BodyCut},
		{"RST_STREAM because we broke the protocol", func(c *http2Conn) {
			_ = c.WriteRSTStream(half(c), http2.ErrCodeProtocol)
			c.rest()
		}, Protocol},
		{"the connection ends in the middle of an answer", func(c *http2Conn) { half(c) }, BodyCut},
		{"no more bytes come", func(c *http2Conn) {
			half(c)
			c.rest()
		}, IdleTimeout},
		{"no answer comes", func(c *http2Conn) {
			c.request()
			c.rest()
		}, HeaderTimeout},
		{"a frame that is none", func(c *http2Conn) {
			_ = c.WriteRawFrame(http2.FrameData, 0, half(c), make([]byte, 1<<20))
			c.rest()
		}, Protocol},
		{"headers without a status", func(c *http2Conn) {
			stream := c.request()
			var block bytes.Buffer
			_ = hpack.NewEncoder(&block).WriteField(hpack.HeaderField{Name: "x", Value: "y"})
			_ = c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true})
			c.rest()
		}, Protocol},
	} {
		t.Run(c.claim, func(t *testing.T) {
			s := newFramed(t, nil, c.script, whole)
			_, _, err := fetch(s.fetcher, &Request{URL: s.url, Timeout: 4 * soon, Method: "POST"})
			wantClass(t, err, c.want)
			s.fetcher.CloseIdle(hostOf(s.url)) // a stream's end leaves its connection in use
			if _, body, err := fetch(s.fetcher, &Request{URL: s.url}); err != nil || string(body) != "whole" {
				t.Errorf("after it: %q, %v", body, err)
			}
		})
	}
}

// A server that takes nothing of our body must not hold it for ever.
func TestAnUploadThatStallsEndsInItsClass(t *testing.T) {
	s := newFramed(t, []http2.Setting{{ID: http2.SettingInitialWindowSize, Val: 0}}, func(c *http2Conn) {
		c.request()
		c.rest()
	}, whole)
	r := &Request{URL: s.url, Method: "POST", Body: page64, Timeout: 4 * soon}
	_, err := s.fetcher.Do(context.Background(), r)
	wantClass(t, err, HeaderTimeout)
	s.fetcher.CloseIdle(hostOf(s.url))
	if _, body, err := fetch(s.fetcher, &Request{URL: s.url}); err != nil || string(body) != "whole" {
		t.Errorf("after it: %q, %v", body, err)
	}
}

// What the server has not begun to work on goes to another connection by itself (RFC 9113, section 6.8).
func TestARequestThatGOAWAYLeavesOutIsSentAgain(t *testing.T) {
	s := newFramed(t, nil, func(c *http2Conn) {
		c.request()
		_ = c.WriteGoAway(0, http2.ErrCodeNo, nil)
		c.rest()
	}, whole)
	_, body, err := fetch(s.fetcher, &Request{URL: s.url, Method: "POST", Body: page64})
	if err != nil || string(body) != "whole" {
		t.Errorf("%q, %v", body, err)
	}
	if got := s.dialled.Load(); got != 2 {
		t.Errorf("%d connections, want 2", got)
	}
}
