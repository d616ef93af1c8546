package fetch

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
)

// serveEncoded lets the origin answer path with body under a Content-Encoding.
func serveEncoded(o *fetchtest.Origin, path, encoding string, body []byte) {
	o.Handle(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Encoding"] = strings.Split(encoding, "|")
		w.Write(body)
	})
}

func TestBodiesAreDecoded(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	page := fetchtest.Page("/x", 20_000)
	enc := func(codings ...string) []byte {
		data := page
		for _, c := range codings {
			data = fetchtest.Encode(c, data)
		}
		return data
	}
	member := enc("gzip")
	for claim, c := range map[string]struct {
		encoding   string
		body, want []byte
	}{
		"gzip":                        {"gzip", member, page},
		"gzip by its old name":        {"X-GZIP", member, page},
		"brotli":                      {"br", enc("br"), page},
		"zstd":                        {"zstd", enc("zstd"), page},
		"deflate with zlib":           {"deflate", enc("deflate"), page},
		"deflate without":             {"deflate", enc("raw"), page},
		"two layers":                  {"gzip, br", enc("gzip", "br"), page},
		"three layers in two headers": {"zstd|deflate , gzip", enc("zstd", "deflate", "gzip"), page},
		"identity counts for nothing": {"identity, gzip,", member, page},
		"two gzip members":            {"gzip", append(member[:len(member):len(member)], member...), append(page[:len(page):len(page)], page...)},
		"garbage after gzip":          {"gzip", append(member[:len(member):len(member)], "\n\n garbage"...), page},
		"an unknown coding as sent":   {"dcb", []byte("???"), []byte("???")},
		"one unknown among known":     {"dcb, gzip", member, member},
		"an empty body":               {"gzip", nil, nil},
	} {
		t.Run(claim, func(t *testing.T) {
			path := "/" + strings.ReplaceAll(claim, " ", "-")
			serveEncoded(o, path, c.encoding, c.body)
			for range 2 { // the second time with decoders from the pool
				res, got, err := fetch(f, &Request{URL: o.URL(path)})
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, c.want) {
					t.Errorf("got %d bytes, want %d", len(got), len(c.want))
				}
				if res.WireBytes() != int64(len(c.body)) {
					t.Errorf("WireBytes %d, want %d", res.WireBytes(), len(c.body))
				}
			}
		})
	}
}

func TestBadEncodingsFail(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	page := fetchtest.Page("/x", 20_000)
	for i, coding := range []string{"gzip", "br", "zstd", "deflate"} {
		whole := fetchtest.Encode(coding, page)
		for claim, body := range map[string][]byte{
			"garbage":    []byte("<html>this is no encoded data, whatever the header says</html>"),
			"cut":        whole[:len(whole)/2],
			"first byte": whole[:1],
		} {
			path := fmt.Sprintf("/%d/%s", i, strings.ReplaceAll(claim, " ", "-"))
			serveEncoded(o, path, coding, body)
			_, _, err := fetch(f, &Request{URL: o.URL(path)})
			if ClassOf(err) != Decode {
				t.Errorf("%s, %s: class %s (%v), want decode", coding, claim, ClassOf(err), err)
			}
		}
	}
	serveEncoded(o, "/four", "gzip, gzip, gzip, gzip", page)
	_, _, err := fetch(f, &Request{URL: o.URL("/four")})
	wantClass(t, err, Decode)
}

func TestACutThatOnlyTheCodingShowsIsABodyCut(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	whole := fetchtest.Encode("gzip", fetchtest.Page("/x", 20_000))
	o.Handle("/cut", func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n")
		c.Write(whole[:len(whole)/2])
	})
	_, _, err := fetch(f, &Request{URL: o.URL("/cut")})
	wantClass(t, err, BodyCut)
}

func TestACompleteCodingInACutBodyIsABodyCut(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	o.Handle("/cut", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		w.Write(fetchtest.Encode("gzip", fetchtest.Page("/x", 0)))
		http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler) // the last chunk never comes
	})
	_, _, err := fetch(f, &Request{URL: o.URL("/cut")})
	wantClass(t, err, BodyCut)
}

func TestWhoeverAsksForACodingGetsIt(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	want := fetchtest.Encode("gzip", fetchtest.Page("/gzip", 0))
	for _, h := range []http.Header{header("Accept-Encoding", "gzip"), header("Range", "bytes=0-"), {"accept-encoding": {"gzip"}}} {
		_, got, err := fetch(f, &Request{URL: o.URL("/gzip"), Header: h})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("with %v the body was decoded", h)
		}
	}
}

func TestABombEndsAtTheLimitAndTakesNoMemory(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	for _, coding := range []string{"gzip", "br", "zstd", "deflate"} {
		res, err := f.Do(context.Background(), &Request{URL: o.URL("/bomb?mb=64&coding=" + coding), MaxBody: 16 << 20, Limits: Limits{MaxRatio: NoMaxRatio}})
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := io.Copy(io.Discard, res.Body)
		runtime.ReadMemStats(&after)
		res.Body.Close()
		if ClassOf(err) != DecodeTooLarge {
			t.Errorf("%s: class %s (%v), want decode_too_large", coding, ClassOf(err), err)
		}
		if n != 16<<20 {
			t.Errorf("%s: %d bytes were let through, want the limit of 16 MiB", coding, n)
		}
		// Everything allocated meanwhile counts, that of the origin too.
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 12<<20 {
			t.Errorf("%s: %d bytes were allocated on the way to 16 MiB", coding, grown)
		}
	}
}
