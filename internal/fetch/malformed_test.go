package fetch

import (
	"bufio"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// answering serves text for each request on a connection, which it then closes or leaves silent.
func answering(t *testing.T, handle func(c net.Conn)) (url string) {
	t.Helper()
	return "http://" + listen(t, func(c net.Conn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			handle(c)
		}
	})
}

// says writes text and closes.
func says(text string) func(net.Conn) {
	return func(c net.Conn) { io.WriteString(c, text) }
}

// drips writes text again and again until the client has enough.
func drips(head, text string, pause time.Duration) func(net.Conn) {
	return func(c net.Conn) {
		_, err := io.WriteString(c, head)
		for err == nil {
			_, err = io.WriteString(c, text)
			<-time.After(pause) // the server's slowness is the subject of the test
		}
	}
}

// stalls writes text and nothing more.
func stalls(text string) func(net.Conn) {
	return func(c net.Conn) {
		io.WriteString(c, text)
		silent(c)
	}
}

const ok200 = "HTTP/1.1 200 OK\r\n"

func TestMalformedAnswersHaveTheirClass(t *testing.T) {
	f := newFetcher(t, Options{MaxHeaderBytes: 16 << 10})
	good := newOrigin(t)
	for claim, c := range map[string]struct {
		handle func(net.Conn)
		req    Request
		want   Class // "" = taken
	}{
		"two lengths that differ":                 {says(ok200 + "Content-Length: 2\r\nContent-Length: 3\r\n\r\nabc"), Request{}, Protocol},
		"one field with two lengths":              {says(ok200 + "Content-Length: 2, 3\r\n\r\nabc"), Request{}, Protocol},
		"a length that is no number":              {says(ok200 + "Content-Length: two\r\n\r\nab"), Request{}, Protocol},
		"a length below zero":                     {says(ok200 + "Content-Length: -2\r\n\r\nab"), Request{}, Protocol},
		"a length with a sign":                    {says(ok200 + "Content-Length: +2\r\n\r\nab"), Request{}, Protocol},
		"a length beyond 64 bits":                 {says(ok200 + "Content-Length: 18446744073709551618\r\n\r\nab"), Request{}, Protocol},
		"a length longer than the body":           {says(ok200 + "Content-Length: 5\r\n\r\nab"), Request{}, BodyCut},
		"the same length twice":                   {says(ok200 + "Content-Length: 2\r\nContent-Length: 2\r\n\r\nab"), Request{}, ""},
		"a length beside chunks, which win":       {says(ok200 + "Content-Length: 50\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"), Request{}, ""},
		"a transfer coding that nobody knows":     {says(ok200 + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"), Request{}, Protocol},
		"chunked twice":                           {says(ok200 + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"), Request{}, Protocol},
		"a chunk size that is no number":          {says(ok200 + "Transfer-Encoding: chunked\r\n\r\nxyz\r\nab\r\n0\r\n\r\n"), Request{}, Protocol},
		"a chunk size beyond 64 bits":             {says(ok200 + "Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nab"), Request{}, Protocol},
		"a chunk longer than its size":            {says(ok200 + "Transfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n"), Request{}, Protocol},
		"a chunk without its end":                 {says(ok200 + "Transfer-Encoding: chunked\r\n\r\n5\r\nab"), Request{}, BodyCut},
		"no end after the chunks":                 {says(ok200 + "Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"), Request{}, BodyCut},
		"extensions of chunks without end":        {drips(ok200+"Transfer-Encoding: chunked\r\n\r\n2;", strings.Repeat("x", 4<<10), 0), Request{}, Protocol},
		"a NUL in a header":                       {says(ok200 + "X-A: b\x00c\r\nContent-Length: 0\r\n\r\n"), Request{}, Protocol},
		"a space before the colon is no length":   {says(ok200 + "Content-Length : 1\r\n\r\nab"), Request{}, ""},
		"a header without a colon":                {says(ok200 + "nothing\r\n\r\n"), Request{}, Protocol},
		"a header that begins with a space":       {says("HTTP/1.1 200 OK\r\n X: y\r\n\r\n"), Request{}, Protocol},
		"a status that is no number":              {says("HTTP/1.1 2OO OK\r\n\r\n"), Request{}, Protocol},
		"a status of two digits":                  {says("HTTP/1.1 20 OK\r\n\r\n"), Request{}, Protocol},
		"a version of its own":                    {says("HTTP/x.1 200 OK\r\n\r\n"), Request{}, Protocol},
		"no status line, as before HTTP/1.0":      {says("<html>hello</html>"), Request{}, Protocol},
		"nothing at all":                          {says(""), Request{Method: "POST"}, Reset},
		"half a status line":                      {says("HTTP/1."), Request{}, Protocol},
		"half of the headers":                     {says(ok200 + "X-A: b\r\n"), Request{Method: "POST"}, Reset},
		"one header without end":                  {drips(ok200+"X-A: ", strings.Repeat("x", 4<<10), 0), Request{}, HeaderTooLarge},
		"headers without end":                     {drips(ok200, "X-A: b\r\n", 0), Request{}, HeaderTooLarge},
		"trailers without end":                    {drips(ok200+"Transfer-Encoding: chunked\r\n\r\n0\r\n", "X-A: "+strings.Repeat("b", 4<<10)+"\r\n", 0), Request{}, Protocol},
		"interim answers without end":             {drips("", "HTTP/1.1 103 Early Hints\r\n\r\n", 0), Request{}, HeaderTooLarge},
		"a switch of protocols unasked":           {says("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"), Request{}, Protocol},
		"headers of which a byte comes at a time": {drips(ok200+"X-A: ", "x", 5*time.Millisecond), Request{Timeout: 4 * soon}, HeaderTimeout},
		"a body of which a byte comes at a time":  {drips(ok200+"\r\n", "x", 5*time.Millisecond), Request{MaxTime: 4 * soon}, TotalTimeout},
		"the same, where it has to be faster":     {drips(ok200+"\r\n", "x", 5*time.Millisecond), Request{Limits: Limits{MinSpeed: 10_000, MinSpeedTime: 2 * soon}}, TooSlow},
		"silence, where it has to be faster":      {stalls(ok200 + "\r\nx"), Request{Limits: Limits{MinSpeed: 1, MinSpeedTime: 2 * soon}}, TooSlow},
		"silence within the body":                 {stalls(ok200 + "\r\nx"), Request{Limits: Limits{IdleTimeout: 2 * soon}}, IdleTimeout},
	} {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			r := c.req
			r.URL = answering(t, c.handle)
			_, body, err := fetch(f, &r)
			if c.want != "" {
				wantClass(t, err, c.want)
			} else if err != nil || string(body) != "ab" {
				t.Errorf("got %q, %v, want it taken", body, err)
			}
			if _, _, err := fetch(f, &Request{URL: good.URL("/page/x")}); err != nil {
				t.Errorf("after that: %v", err)
			}
		})
	}
}

// What follows an answer on its connection, unasked, must not stay there for the next request.
func TestASecondAnswerNobodyAskedForClosesTheConnection(t *testing.T) {
	f := newFetcher(t, Options{})
	closed := make(chan struct{})
	url := answering(t, func(c net.Conn) {
		stalls(ok200 + "Content-Length: 2\r\n\r\nab" + ok200 + "Content-Length: 8\r\n\r\nsmuggled")(c)
		closed <- struct{}{}
	})
	for range 3 {
		_, body, err := fetch(f, &Request{URL: url})
		<-closed // by us: the server waits for that
		if err != nil || string(body) != "ab" {
			t.Fatalf("got %q, %v", body, err)
		}
	}
}

func TestAHeadAnswerNeedsNoRoomForWhatItAnnounces(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	overTLS, url := newHTTP2(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "5000000000")
		w.Header().Set("Content-Encoding", "gzip")
	}, Options{})
	o.Handle("/huge", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "5000000000") })
	for _, c := range []struct {
		f   *Fetcher
		url string
	}{{f, o.URL("/huge")}, {overTLS, url}} {
		res, body, err := fetch(c.f, &Request{Method: "HEAD", URL: c.url})
		if err != nil || len(body) > 0 {
			t.Errorf("%s: %d bytes, %v", c.url, len(body), err)
			continue
		}
		if res.ContentLength != 5_000_000_000 || res.Header.Get("Content-Length") != "5000000000" {
			t.Errorf("%s over %s: length %d", c.url, res.Protocol, res.ContentLength)
		}
	}
}

func TestNoHeaderOfOursCanHoldAnother(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	const evil = "x\r\nX-Evil: 1"
	for claim, r := range map[string]Request{
		"a value":       {Header: header("A", evil)},
		"a name":        {Header: http.Header{"A: b\r\nX-Evil": {"1"}}},
		"a user agent":  {UserAgent: evil},
		"a Host":        {Header: header("Host", evil)},
		"a method":      {Method: "GET / HTTP/1.1\r\nX-Evil: 1\r\n\r\nGET"},
		"a bare return": {Header: header("A", "b\rX-Evil: 1")},
		"a bare feed":   {Header: header("A", "b\nX-Evil: 1")},
		"a NUL":         {Header: header("A", "b\x00")},
	} {
		r.URL = o.URL("/echo")
		_, err := f.Do(context.Background(), &r)
		if ClassOf(err) != RequestInvalid {
			t.Errorf("%s: class %s (%v), want request_invalid", claim, ClassOf(err), err)
		}
	}
}
