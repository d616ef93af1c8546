package lists

import (
	"io"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/payload"
	"github.com/fetchfleet/fetchfleet/internal/template"
)

// byTemplate is a blueprint with a URL and nothing else.
func byTemplate(t testing.TB, url string) *Blueprint {
	t.Helper()
	u, err := template.ParseURL(url)
	if err != nil {
		t.Fatal(err)
	}
	return &Blueprint{URL: u}
}

func TestRowsOfFilesOfAllKindsAreReadInOrder(t *testing.T) {
	csv := write(t, "rows.csv", []byte("\ufeffid,q\n1,a\n\n,x\n2,b\n"))
	gz := write(t, "rows.gz", gzipped(t, "q,id\nc,3\n"))
	zst := write(t, "rows.zst", zstandard(t, "{\"id\":4,\"q\":\"d\"}\n# a comment\n{\"q\":\"e\"}\n{\"id\":{}}\n"))
	empty := write(t, "empty", nil)
	r := Open([]string{csv, empty, gz, zst, Stdin}, strings.NewReader("id,q\n5,f\n"), Options{Rows: byTemplate(t, "http://h/{id}{?q}")})
	got, errs := summary(t, r)
	want := []string{"2 1 http://h/1?q=a", `4 2 !"id" is empty, and the URL needs it`, "5 3 http://h/2?q=b", "2 4 http://h/3?q=c",
		"1 5 http://h/4?q=d", `3 7 !there is no "id" in this row`, `4 8 !column "id" holds a list or an object: a value is text, a number, true, false or null`, "2 9 http://h/5?q=f"}
	if d := cmp.Diff(want, got); d != "" || errs != nil {
		t.Error(d, errs)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}

func TestATableThatCannotBeIsNamedAndTheNextIsRead(t *testing.T) {
	good := write(t, "good.csv", []byte("id\n1\n"))
	for claim, tt := range map[string]struct{ text, want string }{
		"a column that is missing":   {"name,q\nx,y\n", `there is no column "id": the columns are name, q`},
		"two columns of one name":    {"id,id\n1,2\n", `two columns are named "id"`},
		"a quote that is not closed": {"id\n\"" + strings.Repeat("x", 2<<20), "a row is longer than allowed"},
	} {
		t.Run(claim, func(t *testing.T) {
			bad := write(t, "bad.csv", []byte(tt.text))
			got, errs := summary(t, Open([]string{bad, good}, nil, Options{Rows: byTemplate(t, "http://h/{id}")}))
			if len(errs) != 1 || !strings.Contains(errs[0].Error(), tt.want) || !strings.Contains(errs[0].Error(), bad) {
				t.Errorf("errors %v, want %q", errs, tt.want)
			}
			if len(got) != 1 || !strings.HasSuffix(got[0], "http://h/1") {
				t.Errorf("the next table: %q", got)
			}
		})
	}
}

func TestMetaIsTheRow(t *testing.T) {
	b := byTemplate(t, "http://h/{id}")
	for noMeta, want := range map[bool]string{false: `{"id":7,"s":"é<","z":null}`, true: ""} {
		b.NoMeta = noMeta
		line, err := Open([]string{Stdin}, strings.NewReader(`{"id": 7, "s": "é<", "z": null}`), Options{Rows: b}).Next()
		if err != nil || line.Err != nil || string(line.Item.Meta) != want {
			t.Errorf("meta %s, %v %v, want %s", line.Item.Meta, err, line.Err, want)
		}
	}
}

func TestAURLInPlaceOfAListIsAListOfOne(t *testing.T) {
	sources := []string{"https://user:hunter2@h/x", write(t, "list", []byte("http://a\n")), "HTTP://b"}
	if err := Check(sources); err != nil {
		t.Error(err)
	}
	r := Open(sources, nil, Options{Params: []payload.Pair{{Name: "p", Value: "1"}}})
	line, err := r.Next()
	if err != nil || line.Source != "argument" || line.Item.URL != "https://user:hunter2@h/x?p=1" {
		t.Errorf("%+v, %v", line, err)
	}
	got, errs := summary(t, r)
	if d := cmp.Diff([]string{"1 2 http://a?p=1", "1 3 HTTP://b?p=1"}, got); d != "" || errs != nil {
		t.Error(d, errs)
	}
}

func TestFieldsThatMakeABodyAreRefusedByName(t *testing.T) {
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	for line, want := range map[string]string{
		`{"url":"http://a","body":"x","json":1}`:                                     `"json" cannot stand beside "body": a request has one body`,
		`{"url":"http://a","form":{"a":1},"body_base64":"eA=="}`:                     `"body_base64" cannot stand beside "form"`,
		`{"url":"http://a","params":["q"]}`:                                          `"params" must be an object like`,
		`{"url":"http://a","params":{"q":{"x":1}}}`:                                  `"params" "q": a value is text`,
		`{"url":"http://a","params":{"q":[null]}}`:                                   `"params" "q": a value is text`,
		`{"url":"http://a","form":{}}`:                                               `"form" must have a field`,
		`{"url":"http://a","body_base64":"?"}`:                                       `"body_base64" must be base64`,
		`{"url":"http://a","multipart":{}}`:                                          `"multipart" must be a list of`,
		`{"url":"http://a","multipart":[]}`:                                          `"multipart" must be a list of`,
		`{"url":"http://a","multipart":[{"name":"a","valeu":1}]}`:                    `"multipart" must be a list of`,
		`{"url":"http://a","multipart":[{"value":1}]}`:                               `"multipart" part 1 (""): a part needs a name`,
		`{"url":"http://a","multipart":[{"name":"a"}]}`:                              `"multipart" part 1 ("a"): one of value, file and base64`,
		`{"url":"http://a","multipart":[{"name":"a","value":1,"base64":"eA=="}]}`:    `one of value, file and base64`,
		`{"url":"http://a","multipart":[{"name":"a","value":1,"type":"a\r\nX: y"}]}`: `a name, file name or type holds a line break`,
		`{"url":"http://a","multipart":[{"name":"a","file":"../../etc/passwd"}]}`:    `"multipart" part 1 ("a"): read "../../etc/passwd": `,
	} {
		got, err := Open([]string{Stdin}, strings.NewReader(line), Options{Files: root}).Next()
		if err != nil || got.Err == nil || !strings.Contains(got.Err.Error(), want) {
			t.Errorf("%s: %v %v, want %s", line, err, got.Err, want)
		}
	}
	line := `{"url":"http://a","multipart":[{"name":"a","file":"x"}]}`
	if got, err := Open([]string{Stdin}, strings.NewReader(line), Options{}).Next(); err != nil || !strings.Contains(got.Err.Error(), "--body-dir DIR lets them") {
		t.Errorf("a file without leave: %v %v", err, got.Err)
	}
}

// FuzzRows: a row makes an item that reads back as itself, whose headers can be sent, or none.
func FuzzRows(f *testing.F) {
	f.Add("id,v\n1,2\n", "{v}")
	f.Add("{\"id\":1,\"v\":\"a\\r\\nX: y\"}\n", "x{v}")
	f.Add("id,v\n\"\n\",\"\"\"\"\n", "${env:X}{v}")
	u, err := template.ParseURL("http://h/{id}{?v}")
	if err != nil {
		f.Fatal(err)
	}
	body, err := template.ParseJSON(`{"id":"{id}","v":["{v}","x{v}"]}`)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, text, header string) {
		h, err := template.ParseHeader(header)
		if err != nil || !utf8.ValidString(header) {
			return
		}
		b := &Blueprint{URL: u, JSON: body, Header: []Field{{"X-T", h}}}
		r := Open([]string{Stdin}, strings.NewReader(text), Options{MaxLine: 256, Rows: b})
		defer func() { _ = r.Close() }()
		for range 1000 {
			line, err := r.Next()
			if err == io.EOF {
				return
			}
			if err != nil || line.Err != nil {
				continue
			}
			for name, values := range line.Item.Header {
				if err := CheckHeader(name, values); err != nil {
					t.Fatalf("%q makes the header %q", text, values)
				}
			}
			if !strings.HasPrefix(line.Item.URL, "http://h/") || !isJSON(string(line.Item.Body)) || !isJSON(string(line.Item.Meta)) {
				t.Fatalf("%q makes %+v", text, line.Item)
			}
			checkRoundTrip(t, line.Item)
		}
	})
}
