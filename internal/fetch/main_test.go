package fetch

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// newFetcher returns a Fetcher that may talk to loopback, and no other private address.
func newFetcher(t testing.TB, o Options) *Fetcher {
	t.Helper()
	if o.AllowPrivate == nil {
		o.AllowPrivate = mustPrefixes("127.0.0.0/8", "::1/128")
	}
	f := New(o)
	t.Cleanup(f.Close)
	return f
}

func newOrigin(t testing.TB) *fetchtest.Origin {
	t.Helper()
	o := fetchtest.NewOrigin()
	t.Cleanup(o.Close)
	return o
}

// fetch makes an exchange and reads its body.
func fetch(f *Fetcher, r *Request) (*Response, []byte, error) {
	res, err := f.Do(context.Background(), r)
	if err != nil {
		return nil, nil, err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return res, body, err
}

// wantClass fails the test unless err is an *Error of the class.
func wantClass(t *testing.T, err error, want Class) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v (%T), want an *Error of class %s", err, err, want)
	}
	if e.Class != want {
		t.Fatalf("class %s (%v), want %s", e.Class, err, want)
	}
}

// listen serves raw connections with handle until the test ends.
func listen(t testing.TB, handle func(net.Conn)) (addr string) {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() {
		l.Close()
		<-done
	})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			handle(c)
			c.Close()
		}
	}()
	return l.Addr().String()
}

// silent accepts connections and says nothing until the client closes.
func silent(c net.Conn) { io.Copy(io.Discard, c) }

// freePort returns an address on which nobody listens.
func freePort(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

const soon = 50 * time.Millisecond

func header(pairs ...string) http.Header {
	h := http.Header{}
	for i := 0; i < len(pairs); i += 2 {
		h.Add(pairs[i], pairs[i+1])
	}
	return h
}
