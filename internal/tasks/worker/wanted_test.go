package worker_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// serveWanted adds the answers that the tests of wants and limits are about.
func serveWanted(o *fetchtest.Origin) {
	o.Handle("/file", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/plain")
		http.ServeContent(w, r, "", time.Time{}, strings.NewReader(strings.Repeat("0123456789", 100)))
	})
	o.Handle("/film", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "Video/mp4")
		w.Header().Set("Content-Length", "5000000000")
		io.WriteString(w, "x")
	})
	o.Handle("/nameless", func(w http.ResponseWriter, _ *http.Request) {
		w.Header()["Content-Type"] = nil
		io.WriteString(w, "x")
	})
	o.Handle("/secret", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", "http://user:hunter2@"+strings.TrimPrefix(o.URL("/page/after"), "http://"))
		w.WriteHeader(http.StatusFound)
	})
	o.Handle("/hops", func(w http.ResponseWriter, r *http.Request) {
		n, _ := strconv.Atoi(r.URL.Query().Get("n"))
		if n == 0 {
			io.WriteString(w, "there")
			return
		}
		w.Header().Set("Location", fmt.Sprintf("/hops?n=%d", n-1))
		w.WriteHeader(http.StatusFound)
	})
	o.Handle("/long", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Location", o.URL("/page/"+strings.Repeat("x", 200)))
		w.WriteHeader(http.StatusFound)
	})
}

func TestWhatAJobIsAfterAndHowLongItWaits(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	serveWanted(f.origin)
	none := 0
	for claim, c := range map[string]struct {
		change  func(*tasks.Spec)
		path    string
		line    string // more fields of the line
		outcome store.Outcome
		status  int
		class   string
		bytes   int64
	}{
		"a type that is wanted":         {func(s *tasks.Spec) { s.Accept = "text/html" }, "/page/a?size=500", "", store.OK, 200, "", 500},
		"a type that is not":            {func(s *tasks.Spec) { s.Accept = "text/html,image/*" }, "/film", "", store.Skipped, 200, "content_type", 0},
		"no type at all":                {func(s *tasks.Spec) { s.Accept = "text/html" }, "/nameless", "", store.Skipped, 200, "content_type", 0},
		"an error page of another type": {func(s *tasks.Spec) { s.Accept = "image/*" }, "/status/404", "", store.HTTPError, 404, "http_404", 14},
		"no content, of no type":        {func(s *tasks.Spec) { s.Accept = "image/*" }, "/status/204", "", store.OK, 204, "", 0},
		"a type, by HEAD":               {func(s *tasks.Spec) { s.Accept, s.Method = "text/html", "HEAD" }, "/film", "", store.Skipped, 200, "content_type", 0},
		"HEAD of a large one":           {func(s *tasks.Spec) { s.Method = "HEAD" }, "/film", "", store.OK, 200, "", 0},
		"a range":                       {func(s *tasks.Spec) { s.Range = "10-19" }, "/file", "", store.OK, 206, "", 10},
		"the end":                       {func(s *tasks.Spec) { s.Range = "-5" }, "/file", "", store.OK, 206, "", 5},
		"a range that is not there":     {func(s *tasks.Spec) { s.Range = "1000-" }, "/file", "", store.HTTPError, 416, "http_416", 33},
		"a range by the line":           {func(s *tasks.Spec) { s.Range = "0-" }, "/file", `"headers":{"Range":"bytes=0-1"}`, store.OK, 206, "", 2},
		"a redirect not followed":       {func(s *tasks.Spec) { s.MaxRedirects = &none }, "/hops?n=1", "", store.HTTPError, 302, "http_302", -1},
		"one redirect too many":         {func(s *tasks.Spec) { s.MaxRedirects = new(2) }, "/hops?n=3", "", store.Failed, 0, "too_many_redirects", 0},
		"as many as allowed":            {func(s *tasks.Spec) { s.MaxRedirects = new(3) }, "/hops?n=3", "", store.OK, 200, "", -1},
		"a redirect to a URL too long":  {func(s *tasks.Spec) { s.MaxURL = 100 }, "/long", "", store.Failed, 0, "redirect_invalid", 0},
		"a bomb":                        {func(*tasks.Spec) {}, "/bomb?mb=64", "", store.Failed, 0, "decode_ratio", 0},
		"a bomb that is none":           {func(s *tasks.Spec) { s.MaxRatio = tasks.NoMaxRatio }, "/bomb?mb=2", "", store.OK, 200, "", 2 << 20},
		"a pause longer than allowed":   {func(s *tasks.Spec) { s.IdleTimeout = tasks.Duration(50 * time.Millisecond) }, "/drip?ms=60000", "", store.Failed, 0, "idle_timeout", 0},
		"the same by the line":          {func(*tasks.Spec) {}, "/drip?ms=60000", `"idle_timeout":0.05`, store.Failed, 0, "idle_timeout", 0},
		"a whole time by the line":      {func(*tasks.Spec) {}, "/drip?ms=10&bytes=100000", `"max_time":"100ms"`, store.Failed, 0, "total_timeout", 0},
		"a time for its method": {func(s *tasks.Spec) {
			s.MethodTimeouts = map[string]tasks.Duration{"PUT": tasks.Duration(50 * time.Millisecond)}
		}, "/hang", `"method":"PUT"`, store.Failed, 0, "header_timeout", 0},
		"a body slower than it may come": {func(s *tasks.Spec) { s.MinSpeed, s.MinSpeedTime = 10_000, tasks.Duration(100*time.Millisecond) }, "/drip?ms=10&bytes=100000", "", store.Failed, 0, "min_speed", 0},
		"a password in a redirect":       {func(*tasks.Spec) {}, "/secret", "", store.OK, 200, "", -1},
	} {
		spec := fastSpec()
		spec.Retries = 0
		c.change(&spec)
		line := fmt.Sprintf(`{"url":%q`, f.origin.URL(c.path))
		if c.line != "" {
			line += "," + c.line
		}
		job := tasks.JobID(strings.ReplaceAll(strings.ReplaceAll(claim, " ", "-"), ",", ""))
		f.enqueue(job, spec, line+"}")
		f.await(job, within)
		for _, r := range f.records(job) {
			class := ""
			if r.Error != nil {
				class = r.Error.Class
			}
			if r.Outcome != c.outcome || r.Status != c.status || class != c.class || c.bytes >= 0 && r.Bytes != c.bytes {
				t.Errorf("%s: %s %d %q %d bytes (%+v), want %s %d %q %d bytes", claim, r.Outcome, r.Status, class, r.Bytes, r.Error, c.outcome, c.status, c.class, c.bytes)
			}
			if r.Status != 0 && len(r.Headers) == 0 {
				t.Errorf("%s: no headers", claim)
			}
			if r.Body == "" && r.Outcome == store.Skipped && r.ContentType == "" && c.path != "/nameless" {
				t.Errorf("%s: no content type", claim)
			}
			if r.Method == "HEAD" && r.Headers["Content-Length"][0] != "5000000000" {
				t.Errorf("%s: length %v", claim, r.Headers["Content-Length"])
			}
			if text, _ := json.Marshal(r); strings.Contains(string(text), "hunter2") {
				t.Errorf("%s: the record has the password: %s", claim, text)
			}
		}
	}
}

func TestTheTypesThatAreWantedAreAskedFor(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	spec := fastSpec()
	spec.Accept = "text/html,application/*"
	if got := f.echo(f.one(spec, f.origin.URL("/echo"))).Header["Accept"]; len(got) != 1 || got[0] != "text/html, application/*" {
		t.Errorf("Accept: %q", got)
	}
}

func TestAHeaderOfOnesOwnIsNotReplaced(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	spec := fastSpec()
	spec.Accept, spec.Header = "application/json", tasks.Header{"Accept": {"x/y"}}
	if got := f.echo(f.one(spec, f.origin.URL("/echo"))).Header["Accept"]; len(got) != 1 || got[0] != "x/y" {
		t.Errorf("Accept: %q", got)
	}
}

func TestTheEncodingOfATextIsRecorded(t *testing.T) {
	f := newFleet(t)
	defer f.start(nil)()
	for path, c := range map[string]struct {
		kind, coding string
		body         []byte
		want         string
	}{
		"/named":   {"text/html; charset=ISO-8859-1", "", []byte("x"), "windows-1252"},
		"/meta":    {"text/html", "gzip", fetchtest.Encode("gzip", []byte("<meta charset=Shift_JIS>")), "shift_jis"},
		"/large":   {"text/html", "", append([]byte("<meta charset=koi8-r>"), make([]byte, 9<<20)...), "koi8-r"},
		"/coded":   {"text/html", "br", fetchtest.Encode("br", append([]byte("<meta charset=big5>"), make([]byte, 1000)...)), "big5"},
		"/picture": {"image/png", "", []byte("x"), ""},
		"/ascii":   {"text/plain", "", []byte("x"), ""},
	} {
		f.origin.Handle("/text"+path, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", c.kind)
			w.Header().Set("Etag", `"1"`)
			w.Header().Set("Content-Length", strconv.Itoa(len(c.body)))
			if c.coding != "" {
				w.Header().Set("Content-Encoding", c.coding)
			}
			w.Write(c.body)
		})
		job := tasks.JobID("text" + path[1:])
		spec := fastSpec()
		if path == "/coded" {
			spec.ResumeAbove = 1 // it becomes a part first
		}
		f.enqueue(job, spec, f.origin.URL("/text"+path))
		f.await(job, within)
		for _, r := range f.records(job) {
			if r.Charset != c.want || r.Outcome != store.OK {
				t.Errorf("%s: %s, %q, want %q", path, r.Outcome, r.Charset, c.want)
			}
		}
	}
}
