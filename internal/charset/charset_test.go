package charset

import (
	"strings"
	"testing"

	labels "golang.org/x/net/html/charset"
)

func TestEncodingsAreNamedByWhatSaysThem(t *testing.T) {
	const page = "<!doctype html><html><head><title>x</title>"
	pad := strings.Repeat(" ", Head)
	for claim, c := range map[string]struct{ contentType, body, want string }{
		"by Content-Type":                       {"text/html; charset=utf-8", "x", "utf-8"},
		"in any spelling":                       {`TEXT/HTML;Charset="UTF8" ; x=y`, "x", "utf-8"},
		"by an old name":                        {"text/plain; charset=latin1", "x", "windows-1252"},
		"of an empty body too":                  {"text/css; charset=utf-8", "", "utf-8"},
		"a mark wins":                           {"text/html; charset=iso-8859-2", "\xef\xbb\xbfx", "utf-8"},
		"a mark of UTF-16":                      {"text/plain", "\xff\xfex\x00", "utf-16le"},
		"and of its other half":                 {"text/plain", "\xfe\xff\x00x", "utf-16be"},
		"by a meta element":                     {"text/html", page + `<META CharSet='Shift_JIS'>`, "shift_jis"},
		"by the older one":                      {"text/html", page + `<meta http-equiv=Content-Type content="text/html; charset = 'koi8-r'">`, "koi8-r"},
		"XHTML, too":                            {"application/xhtml+xml", `<meta charset="euc-kr"/>`, "euc-kr"},
		"the first that is one":                 {"text/html", `<meta charset=nonsense><meta charset=big5><meta charset=utf-8>`, "big5"},
		"Content-Type before meta":              {"text/html; charset=utf-8", `<meta charset=big5>`, "utf-8"},
		"a Content-Type that names nonsense":    {"text/html; charset=nonsense", `<meta charset=big5>`, "big5"},
		"a meta element in a comment is none":   {"text/html", `<!-- <meta charset=big5> -->`, ""},
		"a content without its pragma is none":  {"text/html", `<meta name=x content="charset=big5">`, ""},
		"a meta element beyond the head":        {"text/html", pad + `<meta charset=big5>`, ""},
		"UTF-16 in a meta element is a mistake": {"text/html", `<meta charset=utf-16>`, "utf-8"},
		"a meta element in plain text is text":  {"text/plain", `<meta charset=big5>`, ""},
		"bytes that are UTF-8":                  {"text/html", page + "ü", "utf-8"},
		"the same, cut within a character":      {"text/plain", strings.Repeat("x", Head-4) + "ü€", "utf-8"},
		"bytes that are not":                    {"text/html", page + "\xfc", ""},
		"ASCII proves nothing":                  {"text/plain", "hello", ""},
		"JSON is UTF-8":                         {"application/ld+json", `{"a":1}`, "utf-8"},
		"JSON that is not":                      {"application/json", "\"\xfc\"", ""},
		"a picture has none":                    {"image/png", "ü", ""},
		"an unnamed type has none":              {"", "ü", ""},
		"a picture that is text":                {"image/svg+xml; charset=utf-8", "", "utf-8"},
	} {
		if got := Of(c.contentType, []byte(c.body)); got != c.want {
			t.Errorf("%s: %q, want %q", claim, got, c.want)
		}
		s := NewSniffer(c.contentType)
		for i := range len(c.body) {
			s.See([]byte(c.body[i : i+1]))
		}
		if got := s.Charset(); got != c.want {
			t.Errorf("%s, byte by byte: %q, want %q", claim, got, c.want)
		}
	}
}

// FuzzOf: an encoding is one that the standard knows, by its own name, and pieces make no difference.
func FuzzOf(f *testing.F) {
	f.Add("text/html; charset=utf-8", []byte("<meta charset=x>"), 3)
	f.Add("text/html", []byte(`<meta http-equiv="content-type" content="a; charset='b">`), 1)
	f.Add("application/json", []byte("\xff\xfe"), 2)
	f.Fuzz(func(t *testing.T, contentType string, body []byte, piece int) {
		name := Of(contentType, body)
		if _, canonical := labels.Lookup(name); name != canonical {
			t.Errorf("%q is called %q", name, canonical)
		}
		s := NewSniffer(contentType)
		for rest := body; len(rest) > 0; {
			n := min(max(piece, 1), len(rest))
			s.See(rest[:n])
			rest = rest[n:]
		}
		if got := s.Charset(); got != name {
			t.Errorf("in pieces of %d: %q, else %q", piece, got, name)
		}
	})
}

func BenchmarkOf(b *testing.B) {
	page := []byte("<!doctype html><html><head><title>A page</title><meta name=x content=y>" + strings.Repeat("<p>text text text", 200))
	named := append([]byte(nil), page...)
	copy(named[80:], "<meta charset=utf-8>")
	for name, c := range map[string]struct {
		contentType string
		body        []byte
	}{"named by its type": {"text/html; charset=utf-8", page}, "no text": {"image/png", page}, "nothing names it": {"text/html", page}, "named by meta": {"text/html", named}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s := NewSniffer(c.contentType)
				s.See(c.body)
				_ = s.Charset()
			}
		})
	}
}
