package warc

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/google/go-cmp/cmp"
)

// response returns header and block of a response record.
func response(e *store.Exchange, url string, payload []byte) (*Header, []byte) {
	block := append(AppendResponseHead(nil, e), payload...)
	return &Header{
		Type: Response, ID: NewID(), Date: e.At, TargetURI: url, IP: IP(e), Protocol: Protocol(e), ContentType: HTTPResponse,
		BlockDigest: sha256.Sum256(block), PayloadDigest: sha256.Sum256(payload),
	}, block
}

func packed(c Compression, h *Header, block []byte) []byte {
	return c.Append(nil, h.Append(nil, int64(len(block))), block, []byte(End))
}

var page = &store.Exchange{
	Status: 200, Reason: "OK", Protocol: "HTTP/2.0", RemoteAddr: "[2001:db8::1]:443",
	Response: map[string][]string{"content-type": {"text/html"}, "Transfer-Encoding": {"chunked"}, "Set-Cookie": {"a=1", "b=2"}},
	At:       time.Date(2026, 2, 3, 4, 5, 6, 789_000, time.UTC),
}

func each(t *testing.T, test func(t *testing.T, c Compression)) {
	for _, c := range Compressions {
		t.Run(string(c), func(t *testing.T) { test(t, c) })
	}
}

func TestRecordsComeBack(t *testing.T) {
	each(t, func(t *testing.T, c Compression) {
		var file []byte
		var offsets []int64
		bodies := [][]byte{nil, []byte("x"), bytes.Repeat([]byte("abc "), 1000), random(300_000)}
		for i, body := range bodies {
			offsets = append(offsets, int64(len(file)))
			h, block := response(page, "https://example.test/", body)
			if i < 2 {
				file = append(file, packed(c, h, block)...)
				continue
			}
			out := bytes.NewBuffer(file)
			head := h.Append(nil, int64(len(block)))
			err := c.Copy(out, int64(len(head)+len(block)+len(End)), bytes.NewReader(head), bytes.NewReader(block), strings.NewReader(End))
			if err != nil {
				t.Fatal(err)
			}
			file = out.Bytes()
		}
		r := NewReader(bytes.NewReader(file))
		defer r.Close()
		r.Verify = true
		for i, body := range bodies {
			rec, err := r.Next()
			if err != nil {
				t.Fatal(err)
			}
			block, err := io.ReadAll(rec)
			if err != nil {
				t.Fatal(err)
			}
			head := "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nSet-Cookie: a=1\r\nSet-Cookie: b=2\r\n\r\n"
			if got, want := string(block), head+string(body); got != want {
				t.Errorf("block %d is %.200q, want %.200q", i, got, want)
			}
			if err := rec.Finish(); err != nil {
				t.Fatal(err)
			}
			end := int64(len(file))
			if i+1 < len(offsets) {
				end = offsets[i+1]
			}
			if rec.Offset != offsets[i] || rec.Offset+rec.Length != end {
				t.Errorf("record %d lies at %d to %d, want %d to %d", i, rec.Offset, rec.Offset+rec.Length, offsets[i], end)
			}
			for name, want := range map[string]string{
				"WARC-Type": "response", "WARC-Date": "2026-02-03T04:05:06.000789Z", "WARC-IP-Address": "2001:db8::1",
				"WARC-Protocol": "h2", "WARC-Target-URI": "https://example.test/", "Content-Type": HTTPResponse,
			} {
				if got := rec.Get(name); got != want {
					t.Errorf("%s is %q, want %q", name, got, want)
				}
			}
		}
		if _, err := r.Next(); err != io.EOF {
			t.Errorf("after the last record: %v, want io.EOF", err)
		}
	})
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(b)
	return b
}

func TestNothingInjectsALine(t *testing.T) {
	e := &store.Exchange{
		Method: "GET\r\nX: y", Target: "/a b\r\nX: y", Status: 20000, Reason: "OK\r\nX: y", Protocol: "HTTP/1.1\r\nX: y",
		RemoteAddr: "1.2.3.4:80\r\nX: y",
		Request:    map[string][]string{"A\r\nX": {"y"}, ":authority": {"h"}, "B": {"1\r\nX: y\x00"}},
	}
	e.Response = e.Request
	h := &Header{Type: Response, TargetURI: "http://h/\r\nX: y", RefersToURI: "http://h/\nX: y", Truncated: "length\nX: y"}
	for what, text := range map[string]string{
		"header": string(h.Append(nil, 1)), "request": string(AppendRequestHead(nil, e)), "response": string(AppendResponseHead(nil, e)),
	} {
		for line := range strings.SplitSeq(text, "\n") {
			if strings.HasPrefix(line, "X") || line != "" && !strings.HasSuffix(line, "\r") {
				t.Errorf("%s has a line %q", what, line)
			}
		}
	}
	if got, want := string(AppendRequestHead(nil, e)), "GET /a%20b%0D%0AX:%20y HTTP/1.1\r\nB: 1  X: y \r\n\r\n"; got != want {
		t.Errorf("request head is %q, want %q", got, want)
	}
	if ip := IP(e); ip != "" {
		t.Errorf("IP of no address is %q", ip)
	}
}

func TestEveryCutIsFound(t *testing.T) {
	each(t, func(t *testing.T, c Compression) {
		h, block := response(page, "https://example.test/", random(400))
		whole := packed(c, h, block)
		file := append(bytes.Clone(whole), whole...)
		for n := len(whole) + 1; n < len(file); n++ {
			if err := readAll(file[:n]); !errors.Is(err, ErrTorn) {
				t.Fatalf("cut after %d of %d bytes: %v, want ErrTorn", n, len(file), err)
			}
		}
		if err := readAll(file[:len(whole)]); err != nil {
			t.Errorf("cut between records: %v", err)
		}
	})
}

func TestEveryFlippedBitIsFound(t *testing.T) {
	each(t, func(t *testing.T, c Compression) {
		h, block := response(page, "https://example.test/", random(400))
		whole := packed(c, h, block)
		for i := range whole {
			if c == Gzip && (i >= 4 && i < 10 || i == len(whole)-9) || c == Zstd && (i == 4 || i == 5) {
				continue // time, flags, system and padding of a gzip member, window of a zstd frame: they change nothing
			}
			bad := append(bytes.Clone(whole), whole...)
			bad[i] ^= 0x10
			if err := readAll(bad); err == nil {
				t.Errorf("byte %d of %d flipped: no error", i, len(whole))
			}
		}
	})
}

func TestWhatIsWrongIsNamed(t *testing.T) {
	h, block := response(page, "https://example.test/", []byte("body"))
	bad := *h
	bad.PayloadDigest[0]++
	noEnd := Gzip.Append(nil, h.Append(nil, int64(len(block))), block, []byte("\r\n"))
	tests := map[string]struct {
		file []byte
		want error
	}{
		"a digest that differs":            {packed(Gzip, &bad, block), ErrDigest},
		"a record without its end":         {noEnd, ErrDamaged},
		"two records in one member":        {Gzip.Append(nil, h.Append(nil, int64(len(block))), block, []byte(End), h.Append(nil, 0)), ErrDamaged},
		"a block longer than it says":      {Gzip.Append(nil, h.Append(nil, 3), block, []byte(End)), ErrDamaged},
		"a block shorter than it says":     {Gzip.Append(nil, h.Append(nil, 3000), block, []byte(End)), ErrDamaged},
		"what is no WARC":                  {Gzip.Append(nil, []byte("hello\r\n")), ErrDamaged},
		"what is not compressed":           {[]byte("WARC/1.1\r\n"), ErrDamaged},
		"a header without end":             {Gzip.Append(nil, []byte("WARC/1.1\r\n"), bytes.Repeat([]byte("a: b\r\n"), 1<<20)), ErrDamaged},
		"a negative length":                {Gzip.Append(nil, []byte("WARC/1.1\r\nContent-Length: -1\r\n\r\n")), ErrDamaged},
		"a field without name":             {Gzip.Append(nil, []byte("WARC/1.1\r\n: x\r\n\r\n")), ErrDamaged},
		"a record whose digest is another": {packed(Zstd, &bad, block), ErrDigest},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			if err := readAll(tt.file); !errors.Is(err, tt.want) || !errors.Is(err, ErrDamaged) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// readAll reads and verifies everything.
func readAll(file []byte) error {
	r := NewReader(bytes.NewReader(file))
	defer r.Close()
	r.Verify = true
	for {
		if _, err := r.Next(); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
	}
}

func TestErrorsOfTheInputStay(t *testing.T) {
	broken := errors.New("bad disk")
	h, block := response(page, "https://example.test/", random(100_000))
	file := packed(Gzip, h, block)
	r := NewReader(io.MultiReader(bytes.NewReader(file[:5000]), brokenReader{broken}))
	defer r.Close()
	_, err := r.Next()
	if err == nil {
		_, err = r.Next()
	}
	if !errors.Is(err, broken) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrTorn) {
		t.Errorf("got %v, want %v alone", err, broken)
	}
}

type brokenReader struct{ err error }

func (b brokenReader) Read([]byte) (int, error) { return 0, b.err }

func TestTheMarkIsFound(t *testing.T) {
	each(t, func(t *testing.T, c Compression) {
		h, block := response(page, "https://example.test/", random(400))
		first := packed(c, h, block)
		part := packed(c, h, block)
		file := c.AppendMarked(append(bytes.Clone(first), part...), int64(len(part)), int64(len(first)+len(part)), h.Append(nil, int64(len(block))), block, []byte(End))
		m, ok := c.FindMark(file[len(file)/3:], int64(len(file)))
		if !ok || m.Whole != int64(len(file)) || int64(len(file))-m.Part != int64(len(first)) || int64(len(file))-m.Last != int64(len(first)+len(part)) {
			t.Errorf("mark is %+v (found %v) in a file of %d bytes, want the part at %d", m, ok, len(file), len(first))
		}
		if err := readAll(append(bytes.Clone(file), file...)); err != nil {
			t.Errorf("files one behind another: %v", err)
		}
		if m, ok := c.FindMark(file[:len(file)-1], int64(len(file)-1)); ok {
			t.Errorf("a torn file has mark %+v", m)
		}
	})
}

func TestSURT(t *testing.T) {
	for url, want := range map[string]string{
		"http://example.com":                          "com,example)/",
		"https://www.Example.com:443/A/b?b=2&a=1&c#f": "com,example)/a/b?a=1&b=2&c",
		"http://www12.example.com:8080/?":             "com,example:8080)/",
		"http://wwwx.example.com/":                    "com,example,wwwx)/",
		"http://user:pw@a.b/":                         "b,a)/",
		"http://[2001:db8::1]:80/x":                   "[2001:db8::1])/x",
		"http://127.0.0.1:99/x":                       "1,0,0,127:99)/x",
		"urn:x:y":                                     "urn:x:y",
	} {
		if got := SURT(url); got != want {
			t.Errorf("SURT(%s) = %s, want %s", url, got, want)
		}
	}
}

func TestCDXJComesBack(t *testing.T) {
	c := Capture{URL: "http://a.test/x\"y?<&>", At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), MIME: "text/html", Status: 200,
		SHA256: strings.Repeat("ab", 32), Length: 12, Offset: 34}
	line := AppendCDXJ(nil, &c, 100, "f.warc.gz")
	got, file, ok := ParseCDXJ(line)
	c.Offset += 100
	if diff := cmp.Diff(c, got); diff != "" || !ok || file != "f.warc.gz" {
		t.Errorf("%s reads as %q, %v, differing (-want +got):\n%s", line, file, ok, diff)
	}
}

func FuzzReader(f *testing.F) {
	h, block := response(page, "https://example.test/", []byte("body"))
	for _, c := range Compressions {
		f.Add(packed(c, h, block))
		f.Add(c.AppendMarked(nil, 0, 0, h.Append(nil, int64(len(block))), block, []byte(End)))
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		r := NewReader(bytes.NewReader(file))
		defer r.Close()
		r.Verify = true
		last := int64(-1)
		for {
			rec, err := r.Next()
			if err != nil {
				if err != io.EOF && !errors.Is(err, ErrTorn) && !errors.Is(err, ErrDamaged) {
					t.Errorf("error %v is neither torn nor damaged", err)
				}
				if _, again := r.Next(); again != err {
					t.Errorf("the error %v is not final: %v", err, again)
				}
				break
			}
			if rec.Offset <= last || rec.Offset >= int64(len(file)) {
				t.Fatalf("record at %d after one at %d of %d", rec.Offset, last, len(file))
			}
			last = rec.Offset
		}
		for _, c := range Compressions {
			c.FindMark(file, int64(len(file)))
		}
	})
}

func FuzzRoundTrip(f *testing.F) {
	f.Add("https://a.test/", "Name", "value\r\nX: y", "OK", []byte("body"), true)
	f.Fuzz(func(t *testing.T, url, name, value, reason string, body []byte, useGzip bool) {
		c := Zstd
		if useGzip {
			c = Gzip
		}
		e := &store.Exchange{Status: 200, Reason: reason, Response: map[string][]string{name: {value}}}
		h, block := response(e, url, body)
		r := NewReader(bytes.NewReader(packed(c, h, block)))
		defer r.Close()
		r.Verify = true
		rec, err := r.Next()
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(rec)
		if err != nil || !bytes.Equal(got, block) {
			t.Fatalf("block reads as %q (error %v), want %q", got, err, block)
		}
		head, payload, ok := bytes.Cut(got, []byte(End))
		if !ok || !bytes.Equal(payload, body) {
			t.Fatalf("the head is %q", head)
		}
		if n := bytes.Count(head, []byte("\n")); n > 1 {
			t.Fatalf("one field has %d lines: %q", n, head)
		}
		if err := rec.Finish(); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Next(); err != io.EOF {
			t.Fatalf("after the record: %v", err)
		}
	})
}
