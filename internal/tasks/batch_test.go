package tasks

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"pgregory.net/rapid"
)

func text(t *rapid.T, label string) string {
	return strings.ToValidUTF8(rapid.String().Draw(t, label), "?")
}

func drawRequest(t *rapid.T) Request {
	r := Request{URL: "http://" + text(t, "url")}
	if rapid.Bool().Draw(t, "plain") {
		return r
	}
	r.Method = rapid.SampledFrom([]string{"", "GET", "POST", "PROPFIND"}).Draw(t, "method")
	r.Key, r.Origin = text(t, "key"), text(t, "origin")
	r.ID = RequestID(text(t, "id"))
	r.OriginMethod = rapid.SampledFrom([]string{"", "PUT"}).Draw(t, "origin method")
	r.Timeout = Duration(rapid.Int64Range(0, int64(24*time.Hour)).Draw(t, "timeout"))
	if rapid.Bool().Draw(t, "body") {
		r.Body = rapid.SliceOfN(rapid.Byte(), 1, 100).Draw(t, "bytes")
	}
	if rapid.Bool().Draw(t, "retries") {
		r.Retries = new(rapid.IntRange(0, 1000).Draw(t, "n"))
	}
	if rapid.Bool().Draw(t, "meta") {
		var b strings.Builder
		e := json.NewEncoder(&b)
		e.SetEscapeHTML(false)
		if err := e.Encode(map[string]string{"<&>": text(t, "meta text")}); err != nil {
			t.Fatal(err)
		}
		r.Meta = json.RawMessage(strings.TrimSpace(b.String()))
	}
	if rapid.Bool().Draw(t, "since") {
		r.Since = &Since{
			URL: text(t, "answered"), ETag: text(t, "etag"), LastModified: text(t, "modified"), BodyJob: JobID(text(t, "body job")),
			Body: text(t, "body"), Bytes: rapid.Int64Range(0, 1<<40).Draw(t, "length"), SHA256: text(t, "digest"), ContentType: text(t, "type"),
			FetchedAt: time.UnixMilli(rapid.Int64Range(0, 1<<42).Draw(t, "fetched")).UTC(),
		}
	}
	for range rapid.IntRange(0, 3).Draw(t, "headers") {
		if r.Header == nil {
			r.Header = Header{}
		}
		r.Header[text(t, "name")] = rapid.SliceOfN(rapid.StringMatching(`[ -~]{0,8}`), 1, 3).Draw(t, "values")
	}
	for range rapid.IntRange(0, 2).Draw(t, "redirects") {
		r.Redirects = append(r.Redirects, Hop{URL: text(t, "hop"), Status: rapid.IntRange(300, 399).Draw(t, "status")})
	}
	return r
}

func TestBatchReadsAsItWasWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := &Batch{
			ID: "b", V: BatchVersion, Job: JobID(rapid.StringMatching(`[a-zA-Z0-9]([a-zA-Z0-9._-]{0,62}[a-zA-Z0-9_-])?`).Draw(t, "job")),
			Host:     "h" + text(t, "host"),
			Requests: rapid.SliceOfN(rapid.Custom(drawRequest), 1, 5).Draw(t, "requests"),
			Carried:  rapid.Bool().Draw(t, "carried"), Split: rapid.Bool().Draw(t, "split"), Attempts: rapid.IntRange(0, 1000).Draw(t, "attempts"),
			LastError: text(t, "error"), Waits: rapid.IntRange(0, 20).Draw(t, "waits"),
			WaitSince: rapid.Int64Range(0, 1<<45).Draw(t, "since"), Generation: rapid.IntRange(0, 9).Draw(t, "generation"),
		}
		payload, err := want.Payload()
		if err != nil {
			t.Fatal(err)
		}
		if !utf8.Valid(payload) || strings.ContainsAny(string(payload), "\n\r") {
			t.Fatalf("payload is not one line of text: %q", payload)
		}
		got, err := ParseBatch("b", payload)
		if err != nil {
			t.Fatalf("%v\n%s", err, payload)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("%s\n%s", diff, payload)
		}
	})
}

func TestPlainRequestIsWrittenAsItsURLAlone(t *testing.T) {
	r := Request{URL: "http://example.org/"}
	if got, err := json.Marshal(r); err != nil || string(got) != `"http://example.org/"` {
		t.Errorf("got %s, %v", got, err)
	}
}

func TestPayloadsThatCannotBeWorkedAreRefused(t *testing.T) {
	const ok = `"job":"j","host":"h","requests":["http://h/"]`
	for name, payload := range map[string]string{
		"no JSON":            `{`,
		"another shape":      `[]`,
		"a newer version":    `{"v":2,` + ok + `}`,
		"no version":         `{` + ok + `}`,
		"no requests":        `{"v":1,"job":"j","host":"h","requests":[]}`,
		"a request of null":  `{"v":1,"job":"j","host":"h","requests":[null]}`,
		"no host":            `{"v":1,"job":"j","requests":["http://h/"]}`,
		"no job":             `{"v":1,"host":"h","requests":["http://h/"]}`,
		"a job with a slash": `{"v":1,"job":"a/b","host":"h","requests":["http://h/"]}`,
		"a header of digits": `{"v":1,"job":"j","host":"h","requests":[{"url":"http://h/","headers":{"A":1}}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			if b, err := ParseBatch("id", []byte(payload)); err == nil {
				t.Errorf("accepted as %+v", b)
			}
		})
	}
}

func TestFieldsOfALaterMinorVersionAreIgnored(t *testing.T) {
	b, err := ParseBatch("id", []byte(`{"v":1,"job":"j","host":"h","requests":[{"url":"http://h/","later":1}],"later":{}}`))
	if err != nil || b.Requests[0].URL != "http://h/" {
		t.Errorf("got %+v, %v", b, err)
	}
}

// FuzzParseBatch: whatever the payload, parsing does not panic, and what parses is written as a batch that reads equal.
func FuzzParseBatch(f *testing.F) {
	for _, g := range golden {
		f.Add(readGolden(f, g.file))
	}
	f.Add([]byte(`{"v":1,"job":"j","host":"h","requests":[{"url":"u","meta":null,"headers":null,"retries":null,"body":""}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		first, err := ParseBatch("id", payload)
		if err != nil {
			return
		}
		again, err := first.Payload()
		if err != nil {
			t.Fatalf("parsed, but cannot be written: %v", err)
		}
		second, err := ParseBatch("id", again)
		if err != nil {
			t.Fatalf("written, but cannot be parsed: %v\n%s", err, again)
		}
		for _, b := range []*Batch{first, second} { // meta keeps its meaning, not its spaces
			for i := range b.Requests {
				b.Requests[i].Meta = compacted(t, b.Requests[i].Meta)
			}
		}
		// An empty map, list or value is left out on writing, and reads as nil.
		if diff := cmp.Diff(first, second, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("%s\n%s", diff, again)
		}
	})
}

func compacted(t *testing.T, m json.RawMessage) json.RawMessage {
	if len(m) == 0 {
		return nil
	}
	var b bytes.Buffer
	if err := json.Compact(&b, m); err != nil {
		t.Fatalf("meta %q: %v", m, err)
	}
	return b.Bytes()
}

func TestRequestTakesFromTheJobWhatItLacks(t *testing.T) {
	spec := DefaultSpec()
	spec.Method, spec.Retries, spec.Timeout = "HEAD", 2, Duration(7*time.Second)
	plain := Request{URL: "http://h/"}
	own := Request{URL: "http://h/", Method: "PUT", Retries: new(int), Timeout: Duration(time.Second)}
	for name, c := range map[string]struct {
		r        *Request
		method   string
		attempts int
		timeout  time.Duration
	}{
		"plain": {&plain, "HEAD", 3, 7 * time.Second},
		"own":   {&own, "PUT", 1, time.Second},
	} {
		if m, n, d := c.r.EffectiveMethod(&spec), c.r.Attempts(&spec), c.r.HeaderTimeout(&spec); m != c.method || n != c.attempts || d != c.timeout {
			t.Errorf("%s: %s, %d attempts, %s; want %s, %d, %s", name, m, n, d, c.method, c.attempts, c.timeout)
		}
	}
}

func TestIdentityOutlivesARedirect(t *testing.T) {
	spec := DefaultSpec()
	before := Request{URL: "http://a/", Method: "POST", Body: []byte("x")}
	id, url, method := before.Identity("j", &spec)
	after := Request{URL: "http://b/", Method: "GET", ID: id, Origin: url, OriginMethod: method}
	gotID, gotURL, gotMethod := after.Identity("j", &spec)
	if gotID != id || gotURL != "http://a/" || gotMethod != "POST" {
		t.Errorf("identity = %s %s %s, want %s http://a/ POST", gotID, gotURL, gotMethod, id)
	}
}
