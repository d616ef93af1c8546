package lists

import (
	"encoding/json"
	"io"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
)

func TestJSONLines(t *testing.T) {
	five := 5
	for _, tt := range []struct {
		claim, line string
		want        Item
	}{
		{"only a URL", `{"url":" http://a "}`, Item{URL: "http://a"}},
		{"everything", `{"url":"http://a","method":"post","headers":{"accept":"x","Via":["1 a","1 b"]},"body":"hi","key":"k","meta":{"n": [1, 2]},"retries":5,"timeout":"1m30s","max_time":60,"connect_timeout":"1s","tls_timeout":"2s","idle_timeout":3}`,
			Item{URL: "http://a", Method: "POST", Header: map[string][]string{"Accept": {"x"}, "Via": {"1 a", "1 b"}}, Body: []byte("hi"),
				Key: "k", Meta: json.RawMessage(`{"n":[1,2]}`), Retries: &five, Timeout: 90 * time.Second,
				MaxTime: time.Minute, ConnectTimeout: time.Second, TLSTimeout: 2 * time.Second, IdleTimeout: 3 * time.Second}},
		{"null is absent", `{"url":"http://a","method":null,"headers":null,"body":null,"key":null,"meta":null,"retries":null,"timeout":null}`, Item{URL: "http://a"}},
		{"another body is JSON", `{"url":"http://a","body":{"x": [1, "<"]}}`,
			Item{URL: "http://a", Header: map[string][]string{"Content-Type": {"application/json"}}, Body: []byte(`{"x":[1,"<"]}`)}},
		{"a content type of one's own stays", `{"body":7,"url":"http://a","headers":{"content-type":"text/plain"}}`,
			Item{URL: "http://a", Header: map[string][]string{"Content-Type": {"text/plain"}}, Body: []byte("7")}},
		{"an empty body is none", `{"url":"http://a","body":""}`, Item{URL: "http://a"}},
		{"spellings of one header are one", `{"url":"http://a","headers":{"ACCEPT":"1","accept":"2"}}`, Item{URL: "http://a", Header: map[string][]string{"Accept": {"1", "2"}}}},
		{"an unusual method keeps its case", `{"url":"http://a","method":"Purge"}`, Item{URL: "http://a", Method: "Purge"}},
		{"timeout in seconds", `{"url":"http://a","timeout":2.5}`, Item{URL: "http://a", Timeout: 2500 * time.Millisecond}},
		{"no retries at all", `{"url":"http://a","retries":0}`, Item{URL: "http://a", Retries: new(int)}},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			line, err := Open([]string{Stdin}, strings.NewReader(tt.line), Options{}).Next()
			if err != nil || line.Err != nil {
				t.Fatal(err, line.Err)
			}
			if d := cmp.Diff(tt.want, line.Item); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestBadJSONLines(t *testing.T) {
	for _, tt := range []struct{ claim, line, want string }{
		{"no JSON", `{url:1}`, "bad JSON: "},
		{"text behind it", `{"url":"http://a"} x`, "bad JSON: "},
		{"not UTF-8", "{\"url\":\"http://a/\xe9\"}", "not UTF-8"},
		{"no URL", `{"key":"k"}`, `"url" is missing`},
		{"an empty URL", `{"url":" "}`, `"url" is missing`},
		{"a URL that is no string", `{"url":1}`, `"url" must be a string`},
		{"an unknown field is named", `{"url":"http://a","header":{}}`, `unknown field "header": known are url, method, headers, params, body, json, form, multipart, body_base64, key, meta, retries, timeout, max_time, connect_timeout, tls_timeout, idle_timeout`},
		{"field names are exact", `{"URL":"http://a"}`, `unknown field "URL"`},
		{"a method with a space", `{"url":"http://a","method":"GET /"}`, `"method" is not an HTTP method: "GET /"`},
		{"CONNECT", `{"url":"http://a","method":"connect"}`, `"method" cannot be CONNECT`},
		{"headers that are a list", `{"url":"http://a","headers":["x"]}`, `"headers" must be an object`},
		{"a header value that is a number", `{"url":"http://a","headers":{"X":1}}`, `"headers" "X": the value must be`},
		{"a header value that is null", `{"url":"http://a","headers":{"X":null}}`, `"headers" "X": the value must be`},
		{"a header name with a colon", `{"url":"http://a","headers":{"X:":"1"}}`, `"headers" "X:": this is not a header name`},
		{"an injected header", `{"url":"http://a","headers":{"X":"1\r\nY: 2"}}`, `"headers" "X": the value holds a line break`},
		{"a user agent of its own", `{"url":"http://a","headers":{"user-agent":"x"}}`, `"headers" "user-agent": the User-Agent is that of the whole job: use --user-agent`},
		{"a header of the fetcher's own", `{"url":"http://a","headers":{"transfer-encoding":"chunked"}}`, `set by the fetcher`},
		{"negative retries", `{"url":"http://a","retries":-1}`, `"retries" must be a whole number from 0 to 1000`},
		{"half a retry", `{"url":"http://a","retries":1.5}`, `"retries" must be`},
		{"a timeout of nothing", `{"url":"http://a","timeout":0}`, `"timeout" must be from 1ms to 24h0m0s`},
		{"a timeout without end", `{"url":"http://a","timeout":1e300}`, `"timeout" must be from 1ms`},
		{"a timeout that is no duration", `{"url":"http://a","timeout":"20"}`, `"timeout" must be a duration like "20s" or a number of seconds, not "20"`},
		{"a timeout that is an object", `{"url":"http://a","timeout":{}}`, `"timeout" must be a duration`},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			line, err := Open([]string{Stdin}, strings.NewReader(tt.line), Options{}).Next()
			if err != nil {
				t.Fatal(err)
			}
			if line.Err == nil || !strings.Contains(line.Err.Error(), tt.want) {
				t.Errorf("Err = %v, want %q in it", line.Err, tt.want)
			}
			if d := cmp.Diff(Item{}, line.Item); d != "" {
				t.Errorf("a bad line has an item: %s", d)
			}
		})
	}
}

// FuzzNext checks that reading never panics, that line numbers only grow, that there are as many lines as line ends
// allow, and that every item of a JSON line reads as itself once written.
func FuzzNext(f *testing.F) {
	for _, s := range []string{
		"http://a\n#\n\n{\"url\":\"http://b\"}", `{"url":"u","method":"get","headers":{"a":["b"]},"body":{"x":"\u2028<"},"meta":[1 , "\ud800"],"timeout":1e-3,"retries":1}`,
		"\ufeffx\r\n", "\x1f\x8b\x08\x00", "\x28\xb5\x2f\xfd\x04\x00", "{\"url\":\"a\",\"headers\":{\"X\":\"é\"},\"body\":\"\\u0000\"}", strings.Repeat("y", 300) + "\nz",
	} {
		f.Add([]byte(s))
	}
	f.Add(gzipped(f, "http://a\nhttp://b\n"))
	f.Add(zstandard(f, "http://a\nhttp://b\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := Open([]string{Stdin}, strings.NewReader(string(data)), Options{MaxLine: 256})
		defer func() { _ = r.Close() }()
		var last int64
		for {
			line, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil {
				continue
			}
			if line.Number <= last || line.Ordinal != line.Number {
				t.Fatalf("line %d (%d) after %d", line.Number, line.Ordinal, last)
			}
			last = line.Number
			if line.Err != nil {
				continue
			}
			if line.Item.URL == "" {
				t.Fatalf("line %d has no URL", line.Number)
			}
			checkRoundTrip(t, line.Item)
		}
	})
}

func checkRoundTrip(t *testing.T, it Item) {
	t.Helper()
	if !utf8.ValidString(it.URL) {
		return // a plain line in another encoding, which JSON cannot carry
	}
	text, err := it.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseItem(text, &Options{})
	if d := cmp.Diff(it, again); d != "" || err != nil {
		t.Fatalf("%s reads as another item: %v\n%s", text, err, d)
	}
}
