package fetch

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
)

func TestAnExchangeHasItsOwnLimitsForConnecting(t *testing.T) {
	f := newFetcher(t, Options{ConnectTimeout: time.Nanosecond, TLSTimeout: time.Minute})
	o := newOrigin(t)
	if _, _, err := fetch(f, &Request{URL: o.URL("/page/x"), Limits: Limits{ConnectTimeout: time.Minute}}); err != nil {
		t.Errorf("more time than usual: %v", err)
	}
	f = newFetcher(t, Options{TLSTimeout: time.Minute})
	_, err := f.Do(context.Background(), &Request{URL: "http://" + freePort(t), Limits: Limits{ConnectTimeout: time.Nanosecond}})
	wantClass(t, err, ConnectTimeout)
	_, err = f.Do(context.Background(), &Request{URL: "https://" + listen(t, silent), Limits: Limits{TLSTimeout: soon}})
	wantClass(t, err, TLSTimeout)
}

// Two exchanges with one host dial at the same time; the impatient one must not end the other.
func TestTheLimitsOfOneExchangeAreNotAnothers(t *testing.T) {
	f := newFetcher(t, Options{})
	url := "https://" + listen(t, silent)
	ctx, cancel := context.WithCancel(context.Background())
	patient := make(chan error, 1)
	go func() {
		_, err := f.Do(ctx, &Request{URL: url, Limits: Limits{TLSTimeout: 20 * soon}}) // the dial goes on for as long
		patient <- err
	}()
	_, err := f.Do(context.Background(), &Request{URL: url, Limits: Limits{TLSTimeout: soon}})
	wantClass(t, err, TLSTimeout)
	cancel()
	wantClass(t, <-patient, Canceled)
}

func TestAServerThatIsFastEnoughMayBeSlow(t *testing.T) {
	f := newFetcher(t, Options{})
	o := newOrigin(t)
	limits := Limits{MinSpeed: 20, MinSpeedTime: 4 * soon} // 4 bytes in each 200 ms; 100 come
	if _, body, err := fetch(f, &Request{URL: o.URL("/drip?ms=10&bytes=60"), Limits: limits}); err != nil || len(body) != 60 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}

func TestASlowReaderIsNoSlowServer(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	res, err := f.Do(context.Background(), &Request{URL: o.URL("/large?mb=8"), Limits: Limits{MinSpeed: 1 << 20, MinSpeedTime: soon}})
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	<-time.After(4 * soon) // the time that passes is the subject of this test
	if n, err := io.Copy(io.Discard, res.Body); n != 8<<20 || err != nil {
		t.Errorf("read %d bytes and %v, want 8 MiB", n, err)
	}
}

func TestASpanOfSpeed(t *testing.T) {
	const s = time.Second
	type read struct {
		n      int
		from   time.Duration
		to     time.Duration
		inTime bool
	}
	for claim, reads := range map[string][]read{
		"enough at once":                {{100, 0, 9 * s, true}},
		"enough at the last moment":     {{50, 0, 5 * s, true}, {50, 5 * s, 10 * s, true}},
		"too little":                    {{50, 0, 5 * s, true}, {49, 5 * s, 10 * s, false}},
		"pauses of the reader are free": {{50, 0, s, true}, {49, 60 * s, 61 * s, true}, {1, 90 * s, 97 * s, true}},
		"a fast start is no credit":     {{1000, 0, s, true}, {50, s, 6 * s, true}, {0, 6 * s, 11 * s, false}},
	} {
		sp := newSpeed(&Limits{MinSpeed: 10, MinSpeedTime: 10 * s})
		for i, r := range reads {
			sp.left(r.from)
			if got := sp.took(r.n, r.to); got != r.inTime {
				t.Errorf("%s: read %d in time: %v, want %v", claim, i, got, r.inTime)
			}
		}
	}
	if sp := newSpeed(&Limits{MinSpeed: 1 << 62, MinSpeedTime: time.Hour}); sp.quota <= 0 {
		t.Errorf("a great speed over a long time is a quota of %d", sp.quota)
	}
}

// members is a gzip of n empty members: 20 bytes each, of which nothing comes.
func members(n int) []byte {
	var one bytes.Buffer
	w := gzip.NewWriter(&one)
	w.Close()
	return bytes.Repeat(one.Bytes(), n)
}

func TestBombsOfEveryKindEndAtTheRatioAndTakeNoMemory(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	zeros := make([]byte, 64<<20)
	twice := func(outer, inner string) []byte { return fetchtest.Encode(outer, fetchtest.Encode(inner, zeros)) }
	for coding, body := range map[string][]byte{
		"gzip": fetchtest.Encode("gzip", zeros), "br": fetchtest.Encode("br", zeros), "zstd": fetchtest.Encode("zstd", zeros),
		"deflate": fetchtest.Encode("deflate", zeros), "gzip, gzip": twice("gzip", "gzip"), "gzip, br": twice("br", "gzip"),
		"zstd, zstd": twice("zstd", "zstd"), "br, gzip, zstd": fetchtest.Encode("zstd", twice("gzip", "br")),
		"gzip, zstd": fetchtest.Encode("zstd", members(1<<20)), // 20 MiB within, nothing comes out
	} {
		serveEncoded(o, "/bomb/"+coding, coding, body)
		url := o.URL("/bomb/" + string(bytes.ReplaceAll([]byte(coding), []byte(", "), []byte("%2C%20"))))
		res, err := f.Do(context.Background(), &Request{URL: url})
		if err != nil {
			t.Fatal(err)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		n, err := io.Copy(io.Discard, res.Body)
		runtime.ReadMemStats(&after)
		res.Body.Close()
		if ClassOf(err) != DecodeRatio || n > 16<<20 {
			t.Errorf("%s: %d bytes and class %s (%v), want decode_ratio soon", coding, n, ClassOf(err), err)
		}
		if grown := after.TotalAlloc - before.TotalAlloc; grown > 24<<20 { // windows of 8 and 16 MiB among them
			t.Errorf("%s: %d bytes were allocated", coding, grown)
		}
	}
}

func TestAZstdStreamMayNotAskForAnyWindow(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	// A frame header that asks for a window of 2 GiB (RFC 8878, section 3.1.1.1.2: exponent 21), and a block of 1 MiB of zeros.
	frame := []byte{0x28, 0xb5, 0x2f, 0xfd, 0x00, 21 << 3, 0x03, 0x00, 0x80, 0x00}
	serveEncoded(o, "/window", "zstd", frame)
	_, _, err := fetch(f, &Request{URL: o.URL("/window")})
	wantClass(t, err, Decode)
}

func TestASmallBodyMayBeOfAnyRatio(t *testing.T) {
	o := newOrigin(t)
	f := newFetcher(t, Options{})
	serveEncoded(o, "/small", "br", fetchtest.Encode("br", make([]byte, 1<<20)))
	if _, body, err := fetch(f, &Request{URL: o.URL("/small"), Limits: Limits{MaxRatio: 2}}); err != nil || len(body) != 1<<20 {
		t.Errorf("%d bytes, %v", len(body), err)
	}
}
