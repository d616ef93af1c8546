package payload

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func write(t *testing.T, data string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "body;1.txt")
	if err := os.WriteFile(path, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReadTakesFilesStandardInputAndText(t *testing.T) {
	file := write(t, "two\r\nlines\n")
	for claim, tt := range map[string]struct{ text, want, wantErr string }{
		"text is itself":                           {"a=b&c", "a=b&c", ""},
		"a file is taken byte for byte":            {"@" + file, "two\r\nlines\n", ""},
		"standard input is taken whole":            {"@-", "in", ""},
		"a doubled at sign is one":                 {"@@home", "@home", ""},
		"nothing is nothing":                       {"", "", ""},
		"a file that is not there is named":        {"@/no/such", "", "read /no/such: "},
		"an at sign alone says how to write one":   {"@", "", "write @@ for a literal @"},
		"more than a request may carry is refused": {strings.Repeat("x", MaxBody+1), "", ErrTooLarge.Error()},
	} {
		t.Run(claim, func(t *testing.T) {
			got, err := Read(tt.text, strings.NewReader("in"))
			if string(got) != tt.want || (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("got %.40q, %v, want %q, %q", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func TestAStrangersFileNameStaysInItsFolder(t *testing.T) {
	dir := t.TempDir()
	inside := filepath.Join(dir, "in")
	if err := errors.Join(os.Mkdir(inside, 0o700), os.WriteFile(filepath.Join(dir, "secret"), []byte("s"), 0o600),
		os.WriteFile(filepath.Join(inside, "mine"), []byte("m"), 0o600), os.Symlink("../secret", filepath.Join(inside, "link"))); err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(inside)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if got, err := ReadBelow(root, "mine"); string(got) != "m" || err != nil {
		t.Errorf("mine: %q, %v", got, err)
	}
	for _, name := range []string{"../secret", "link", filepath.Join(dir, "secret"), "none", "."} {
		if got, err := ReadBelow(root, name); err == nil {
			t.Errorf("%s was read: %q", name, got)
		}
	}
}

func TestAddQuery(t *testing.T) {
	for _, tt := range []struct{ url, want string }{
		{"http://a", "http://a?q=x%20%26%3D%23y&%C3%A9=%E2%82%AC"},
		{"http://a/?", "http://a/?q=x%20%26%3D%23y&%C3%A9=%E2%82%AC"},
		{"http://a/?b=1", "http://a/?b=1&q=x%20%26%3D%23y&%C3%A9=%E2%82%AC"},
		{"http://a/?b=1&#f?", "http://a/?b=1&q=x%20%26%3D%23y&%C3%A9=%E2%82%AC#f?"},
	} {
		if got := AddQuery(tt.url, []Pair{{"q", "x &=#y"}, {"é", "€"}}); got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.url, got, tt.want)
		}
		if got := AddQuery(tt.url, nil); got != tt.url {
			t.Errorf("%s became %s without parameters", tt.url, got)
		}
	}
}

func TestParseField(t *testing.T) {
	for text, want := range map[string]Field{
		"a=b=c;type=x":                      {Pair: Pair{"a", "b=c;type=x"}},
		"a=":                                {Pair: Pair{"a", ""}},
		"a=@@b":                             {Pair: Pair{"a", "@b"}},
		"a=@dir/f.txt":                      {Pair: Pair{Name: "a"}, File: "dir/f.txt", Filename: "f.txt"},
		"a=@f;type=text/x; charset=utf-8":   {Pair: Pair{Name: "a"}, File: "f", Filename: "f", Type: "text/x; charset=utf-8"},
		"a=@f;1;filename=g;type=text/plain": {Pair: Pair{Name: "a"}, File: "f;1", Filename: "g", Type: "text/plain"},
	} {
		if got, err := ParseField(text); err != nil || got != want {
			t.Errorf("%q: got %+v, %v, want %+v", text, got, err, want)
		}
	}
	for _, text := range []string{"", "a", "=b", "a=@", "a=@;type=text/plain", "a=@f;type=no type", "a=@f;filename=x\r\ny", "a=@f;type=text/plain\r\nX: y"} {
		if got, err := ParseField(text); err == nil {
			t.Errorf("%q is taken: %+v", text, got)
		}
	}
}

// read is what a server makes of a multipart body.
func read(t testing.TB, body []byte, contentType string) (parts []Part) {
	t.Helper()
	_, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(bytes.NewReader(body), params["boundary"])
	for {
		p, err := r.NextRawPart()
		if err == io.EOF {
			return parts
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		parts = append(parts, Part{Name: p.FormName(), Filename: p.FileName(), Type: p.Header.Get("Content-Type"), Data: data})
	}
}

func TestMultipartArrivesAsItWasMeantAndIsTheSameEachTime(t *testing.T) {
	parts := []Part{{Name: "a", Data: []byte("b")}, {Name: "f", Filename: "é.txt", Data: []byte("\r\n--x")}, {Name: "g", Filename: "h", Type: "text/plain", Data: nil}}
	body, kind, err := Multipart(parts)
	if err != nil {
		t.Fatal(err)
	}
	want := []Part{parts[0], parts[1], parts[2]}
	want[1].Type, want[2].Data = TypeFile, []byte{}
	if d := cmp.Diff(want, read(t, body, kind)); d != "" {
		t.Error(d)
	}
	again, kindAgain, _ := Multipart(parts)
	if !bytes.Equal(body, again) || kind != kindAgain {
		t.Error("the same parts made another body")
	}
	parts[0].Data = []byte("c")
	if _, other, _ := Multipart(parts); other == kind {
		t.Error("other parts have the same boundary")
	}
}

func TestMultipartRefuses(t *testing.T) {
	for claim, p := range map[string]Part{
		"no name":                     {Data: []byte("x")},
		"a line break in a name":      {Name: "a\r\nX: y"},
		"a line break in a type":      {Name: "a", Type: "text/plain\r\nX: y"},
		"a type that is none":         {Name: "a", Type: "text" + "/"},
		"a NUL in a file name":        {Name: "a", Filename: "a\x00"},
		"more than a request carries": {Name: "a", Data: make([]byte, MaxBody)},
	} {
		if _, _, err := Multipart([]Part{p}); err == nil {
			t.Errorf("%s is taken", claim)
		}
	}
}

// FuzzMultipart: what a server reads is what was meant, and no name, type or content makes a part of its own.
func FuzzMultipart(f *testing.F) {
	f.Add("a", "f", "text/plain", []byte("x"), []byte("--fetchfleet-\r\n"))
	f.Add(`q"uo`, `b\ack`, "", []byte{0, 255}, []byte(nil))
	f.Fuzz(func(t *testing.T, name, file, kind string, one, two []byte) {
		parts := []Part{{Name: name, Filename: file, Type: kind, Data: one}, {Name: "last", Data: two}}
		body, contentType, err := Multipart(parts)
		if err != nil {
			return
		}
		got := read(t, body, contentType)
		if len(got) != 2 || !bytes.Equal(got[0].Data, one) || !bytes.Equal(got[1].Data, two) || got[1].Name != "last" {
			t.Fatalf("%q reads as %+v", body, got)
		}
	})
}

// FuzzParseField: a parsed field has a name, and a form of it reads back as it was written.
func FuzzParseField(f *testing.F) {
	for _, s := range []string{"a=b", "a=@f;type=text/plain;filename=x", "=", "a=@@b", "a=@;type=", "é=%20&+="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if p, err := ParsePair(text); err == nil {
			u, err := url.Parse(AddQuery("http://a/?x=y", []Pair{p}))
			if err != nil || u.Query().Get("x") != "y" || len(u.Query()) > 2 {
				t.Fatalf("%q: %v, %v", text, u, err)
			}
			if got := u.Query()[p.Name]; len(got) == 0 || got[len(got)-1] != p.Value {
				t.Fatalf("%q arrives as %q", text, got)
			}
		}
		field, err := ParseField(text)
		if err != nil {
			return
		}
		if field.Name == "" || strings.ContainsAny(field.Type+field.Filename, "\r\n") {
			t.Fatalf("%q reads as %+v", text, field)
		}
		values, err := url.ParseQuery(string(Form([]Pair{field.Pair})))
		if err != nil || field.File == "" && values.Get(field.Name) != field.Value {
			t.Fatalf("%q arrives as %v, %v", text, values, err)
		}
	})
}
