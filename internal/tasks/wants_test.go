package tasks

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestByteRangesAreReadAsTheyAreSent(t *testing.T) {
	for in, want := range map[string]string{
		"0-1023": "0-1023", " bytes=5- ": "5-", "-500": "-500", "": "", "007-8": "7-8", "9223372036854775807-": "9223372036854775807-",
		"-": "!", "5": "!", "5-4": "!", "-0": "!", "0-1,3-4": "!", "a-b": "!", "1--2": "!", "+1-2": "!", "bytes=": "!",
		"items=0-1": "!", "0x1-2": "!", "9223372036854775808-": "!", "0-1\r\nX: y": "!",
	} {
		got, err := ParseByteRange(in)
		if refused := want == "!"; refused != (err != nil) || !refused && string(got) != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestMediaRangesTakeTypes(t *testing.T) {
	for list, types := range map[string]map[string]bool{
		"text/html, IMAGE/*": {"text/html": true, "Text/HTML; charset=x": true, "image/png": true, "image/": false, "text/plain": false,
			"": false, "imagex/png": false, "text/html5": false},
		"*/*":                      {"": true, "a/b": true},
		"":                         {"": true, "a/b": true},
		"application/octet-stream": {"": true},
	} {
		m, err := ParseMediaRanges(list)
		if err != nil {
			t.Fatal(err)
		}
		for kind, want := range types {
			if got := m.Match(kind); got != want {
				t.Errorf("%q takes %q: %v", list, kind, got)
			}
		}
	}
	for _, bad := range []string{"html", "text/", "/html", "*/html", "te*/x", "text/h*", "text/html,", "text/html;q=1", "a/b\r\nX: y", "a b/c"} {
		if _, err := ParseMediaRanges(bad); err == nil {
			t.Errorf("%q is taken", bad)
		}
	}
}

func TestMethodTimeouts(t *testing.T) {
	got, err := ParseMethodTimeouts([]string{"post=60s", " PUT = 2m", "POST=1m"})
	if diff := cmp.Diff(map[string]Duration{"POST": Duration(time.Minute), "PUT": Duration(2 * time.Minute)}, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	for _, bad := range []string{"POST", "POST=", "POST=60", "=1s", "PO ST=1s", "POST=0s", "POST=-1s"} {
		if _, err := ParseMethodTimeouts([]string{bad}); err == nil || !strings.Contains(err.Error(), "--method-timeout") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestTheNearestWordOnTimeWins(t *testing.T) {
	spec := DefaultSpec()
	spec.Timeout, spec.MaxTime, spec.ConnectTimeout = Duration(time.Second), Duration(time.Minute), Duration(2*time.Second)
	spec.MethodTimeouts = map[string]Duration{"POST": Duration(3 * time.Second)}
	own := RequestLimits{MaxTime: Duration(4 * time.Minute), ConnectTimeout: Duration(5 * time.Second), TLSTimeout: Duration(6 * time.Second), IdleTimeout: Duration(7 * time.Second)}
	for claim, c := range map[string]struct {
		r    Request
		want [5]time.Duration // headers, whole, connect, tls, idle
	}{
		"the job's":        {Request{}, [5]time.Duration{time.Second, time.Minute, 2 * time.Second, 0, 0}},
		"its method's":     {Request{Method: "POST"}, [5]time.Duration{3 * time.Second, time.Minute, 2 * time.Second, 0, 0}},
		"its own":          {Request{Method: "POST", Timeout: Duration(time.Hour), RequestLimits: own}, [5]time.Duration{time.Hour, 4 * time.Minute, 5 * time.Second, 6 * time.Second, 7 * time.Second}},
		"another method's": {Request{Method: "PUT"}, [5]time.Duration{time.Second, time.Minute, 2 * time.Second, 0, 0}},
	} {
		r := &c.r
		got := [5]time.Duration{r.HeaderTimeout(&spec), r.WholeTime(&spec), r.ConnectTime(&spec), r.TLSTime(&spec), r.IdleTime(&spec)}
		if got != c.want {
			t.Errorf("%s: %v, want %v", claim, got, c.want)
		}
	}
}

// FuzzParseByteRange: what is read reads as itself again, and is fit for a header field.
func FuzzParseByteRange(f *testing.F) {
	for _, s := range []string{"0-1", "5-", "-5", "bytes=1-2", "", "-"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseByteRange(text)
		if err != nil {
			return
		}
		if again, err := ParseByteRange(string(r)); err != nil || again != r {
			t.Errorf("%q reads as %q, %v", r, again, err)
		}
		if strings.Trim(string(r), "0123456789-") != "" {
			t.Errorf("%q is no range", r)
		}
	})
}

// FuzzParseMediaRanges: what is read reads as itself again, and each range that names one type takes it.
func FuzzParseMediaRanges(f *testing.F) {
	for _, s := range []string{"text/html", "*/*", "a/b,c/*", "", ",", "*/x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParseMediaRanges(text)
		if err != nil || m == "" {
			return
		}
		if again, err := ParseMediaRanges(m.Field()); err != nil || again != m {
			t.Errorf("%q reads as %q, %v", m, again, err)
		}
		for r := range strings.SplitSeq(string(m), ",") {
			if kind, any := strings.CutSuffix(r, "*"); !any && !m.Match(kind) {
				t.Errorf("%q does not take %q", m, r)
			}
		}
	})
}
