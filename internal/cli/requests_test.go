package cli

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/mccutchen/go-httpbin/v2/httpbin"

	"github.com/google/go-cmp/cmp"
)

// arrived is what httpbin's /anything says of a request.
type arrived struct {
	Method  string              `json:"method"`
	URL     string              `json:"url"`
	Args    map[string][]string `json:"args"`
	Headers map[string][]string `json:"headers"`
	Data    string              `json:"data"`
	JSON    any                 `json:"json"`
	Form    map[string][]string `json:"form"`
	Files   map[string][]string `json:"files"`
}

// told is an arrived request in one line, with what requests are compared by.
func (a arrived) told(origin string) string {
	text := a.Method + " " + strings.TrimPrefix(a.URL, origin)
	kind := strings.Join(a.Headers["Content-Type"], "|")
	if before, _, ok := strings.Cut(kind, "; boundary="); ok {
		kind = before
	}
	if kind != "" {
		text += " " + kind
	}
	if before, encoded, ok := strings.Cut(a.Data, ";base64,"); ok && strings.HasPrefix(before, "data:") { // what is not known to be text
		data, _ := base64.StdEncoding.DecodeString(encoded)
		a.Data = string(data)
	}
	for _, part := range []struct {
		name string
		v    any
		some bool
	}{{"json", a.JSON, a.JSON != nil}, {"form", a.Form, len(a.Form) > 0}, {"files", a.Files, len(a.Files) > 0},
		{"data", a.Data, a.Data != "" && a.JSON == nil && len(a.Form)+len(a.Files) == 0}} {
		if part.some {
			data, _ := json.Marshal(part.v)
			text += " " + part.name + "=" + string(data)
		}
	}
	if x := a.Headers["X-T"]; len(x) > 0 {
		text += " X-T=" + strings.Join(x, "|")
	}
	return text
}

// fetched runs fleet with these arguments and returns what arrived, in the order of URLs.
func fetched(t *testing.T, origin, stdin string, args ...string) (got []string, stderr string, code int) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	var told bytes.Buffer
	args = append([]string{"run", "--quiet", "--allow-private", "127.0.0.0/8", "--robots", "ignore", "--host-rate", "0", "--retries", "0", "--out", out}, args...)
	code = Fleet(IO{Args: args, Stdin: strings.NewReader(stdin), Stdout: &told, Stderr: &told})
	bodies, err := filepath.Glob(filepath.Join(out, "*", "bodies", "*", "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, body := range bodies {
		data, err := os.ReadFile(body)
		if err != nil {
			t.Fatal(err)
		}
		var a arrived
		if err := json.Unmarshal(data, &a); err != nil {
			got = append(got, string(data))
			continue
		}
		got = append(got, a.told(origin))
	}
	sort.Strings(got)
	return got, told.String(), code
}

func TestEveryKindOfRequestArrivesAsItWasMeant(t *testing.T) {
	server := httptest.NewServer(httpbin.New())
	defer server.Close()
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	text, csv := file("f.txt", "one\r\ntwo\n"), file("rows.csv", "id,q\n1,a b\n2,\"x\"\"&y\"\n")
	big := file("big.txt", strings.Repeat("0123456789", 2000))
	jsonl := file("rows.jsonl", `{"id":1,"ok":true,"q":"a\"b"}`+"\n"+`{"id":2,"q":null}`)
	u := server.URL + "/anything"
	for _, tt := range []struct {
		claim string
		stdin string
		args  []string
		want  []string
	}{
		{"a URL is a list of one", "", []string{u + "/x?a=1"}, []string{"GET /anything/x?a=1"}},
		{"parameters are escaped and added", "", []string{u + "?a=1", "--param", "q=x &=", "--param", "é="}, []string{"GET /anything?a=1&q=x%20%26%3D&%C3%A9="}},
		{"a line's own parameter wins", `{"url":"` + u + `","params":{"q":[1,true],"r":"s t"}}`, []string{"-", "--param", "q=0", "--param", "p=9"},
			[]string{"GET /anything?p=9&q=1&q=true&r=s%20t"}},
		{"a JSON body", "", []string{u, "--json-body", `{"a": [1.0, "é"]}`}, []string{`POST /anything application/json json={"a":[1,"é"]}`}},
		{"a JSON body by another method", "", []string{u, "--json-body", `{"a":1}`, "--method", "put"}, []string{`PUT /anything application/json json={"a":1}`}},
		{"a JSON body of a type of one's own", "", []string{u, "--json-body", `{"a":1}`, "--header", "content-type: application/vnd.api+json"},
			[]string{`POST /anything application/vnd.api+json data="{\"a\":1}"`}},
		{"a form", "", []string{u, "--form", "a=1 2&3", "--form", "a=b", "--form", "c=@@d"}, []string{`POST /anything application/x-www-form-urlencoded form={"a":["1 2\u00263","b"],"c":["@d"]}`}},
		{"a file makes a form multipart", "", []string{u, "--form", "f=@" + text + ";type=text/plain;filename=g", "--form", "a=b"},
			[]string{`POST /anything multipart/form-data form={"a":["b"]} files={"f":["one\r\ntwo\n"]}`}},
		{"data from a file, byte for byte", "", []string{u, "--data", "@" + text}, []string{`POST /anything data="one\r\ntwo\n"`}},
		{"data from standard input", "in\nput", []string{u, "--data", "@-"}, []string{`POST /anything data="in\nput"`}},
		{"data with an at sign", "", []string{u, "--data", "@@x"}, []string{`POST /anything data="@x"`}},
		{"a GET with a body", "", []string{u, "--data", "x", "--method", "GET"}, []string{`GET /anything data="x"`}},
		{"JSON of a line", `{"url":"` + u + `","json":{"a":null,"b":[1]},"method":"PATCH"}`, []string{"-"}, []string{`PATCH /anything application/json json={"a":null,"b":[1]}`}},
		{"a form of a line", `{"url":"` + u + `","form":{"a":[1,"x y"],"b":true}}`, []string{"-"}, []string{`POST /anything application/x-www-form-urlencoded form={"a":["1","x y"],"b":["true"]}`}},
		{"a multipart body of a line", `{"url":"` + u + `","multipart":[{"name":"a","value":7},{"name":"f","file":"f.txt"},{"name":"g","base64":"eA==","filename":"g","type":"text/x"}]}`, []string{"-", "--body-dir", dir},
			[]string{`POST /anything multipart/form-data form={"a":["7"]} files={"f":["one\r\ntwo\n"],"g":["x"]}`}},
		{"bytes of a line", `{"url":"` + u + `","body_base64":"AP8=","headers":{"Content-Type":"application/x-b"}}`, []string{"-"},
			[]string{"POST /anything application/x-b data=\"\\u0000\\ufffd\""}},
		{"rows by a template", "", []string{csv, "--template", u + "/{id}{?q}"}, []string{"GET /anything/1?q=a%20b", "GET /anything/2?q=x%22%26y"}},
		{"rows into everything", "", []string{csv, "--template", u + "/{id}", "--json-body", `{"id":"{+id}","t":"<{q}>"}`, "--param", "p={id}", "--header", "X-T: {q}"},
			[]string{`POST /anything/1?p=1 application/json json={"id":1,"t":"\u003ca b\u003e"} X-T=a b`, `POST /anything/2?p=2 application/json json={"id":2,"t":"\u003cx\"\u0026y\u003e"} X-T=x"&y`}},
		{"typed rows", "", []string{jsonl, "--template", u + "/{id}{?q}", "--json-body", `{"id":"{id}"}`}, []string{`POST /anything/1?q=a%22b application/json json={"id":1}`, `POST /anything/2 application/json json={"id":2}`}},
		{"rows into a form", "", []string{csv, "--template", u, "--form", "n={q}", "--form", "c={{x}}"},
			[]string{`POST /anything application/x-www-form-urlencoded form={"c":["{x}"],"n":["a b"]}`, `POST /anything application/x-www-form-urlencoded form={"c":["{x}"],"n":["x\"\u0026y"]}`}},
		{"rows into a multipart form", "", []string{csv, "--template", u, "--form", "n={q}", "--form", "f=@" + text},
			[]string{`POST /anything multipart/form-data form={"n":["a b"]} files={"f":["one\r\ntwo\n"]}`, `POST /anything multipart/form-data form={"n":["x\"\u0026y"]} files={"f":["one\r\ntwo\n"]}`}},
		{"one body for all rows", "", []string{csv, "--template", u + "/{id}", "--data", "{id}"}, []string{`POST /anything/1 data="{id}"`, `POST /anything/2 data="{id}"`}},
		{"rows of one URL told apart by a key", "id\n1\n2\n", []string{"-", "--template", u, "--key", "{id}", "--header", "X-T: {id}"}, []string{"GET /anything X-T=1", "GET /anything X-T=2"}},
		{"another delimiter", "id\tq\n1\tx\n", []string{"-", "--template", u + "/{id}/{q}", "--delimiter", "tab"}, []string{"GET /anything/1/x"}},
	} {
		t.Run(tt.claim, func(t *testing.T) {
			got, stderr, code := fetched(t, server.URL, tt.stdin, tt.args...)
			if d := cmp.Diff(tt.want, got); d != "" || code != ExitOK {
				t.Errorf("exit %d, %s%s", code, stderr, d)
			}
		})
	}
	t.Run("a body that does not fit into the queue", func(t *testing.T) {
		got, stderr, code := fetched(t, server.URL, "", u, "--form", "f=@"+big)
		if code != ExitOK || len(got) != 1 || !strings.Contains(got[0], strings.Repeat("0123456789", 2000)) {
			t.Errorf("exit %d, %s%.200q", code, stderr, got)
		}
	})
	for _, method := range []string{"PROPFIND", "PURGE", "Custom-1", "DELETE", "OPTIONS"} {
		t.Run("method "+method, func(t *testing.T) {
			records := methodOf(t, u, method)
			if !strings.Contains(records, fmt.Sprintf(`"method":%q`, method)) {
				t.Error(records)
			}
		})
	}
}

// methodOf is the records of a run with a method.
func methodOf(t *testing.T, url, method string) string {
	t.Helper()
	out := t.TempDir()
	var told bytes.Buffer
	code := Fleet(IO{Args: []string{"run", "--quiet", "--allow-private", "127.0.0.0/8", "--robots", "ignore", "--retries", "0", "--method", method, "--out", out, url},
		Stdin: strings.NewReader(""), Stdout: &told, Stderr: &told})
	data, err := os.ReadFile(filepath.Join(out, "results.jsonl"))
	if err != nil {
		t.Fatalf("exit %d: %s, %v", code, &told, err)
	}
	return string(data)
}

func TestRequestFlagsAreRefusedByName(t *testing.T) {
	for want, args := range map[string][]string{
		"--data and --form: a request has one body":                        {"http://h", "--data", "x", "--form", "a=b"},
		"--data and --json-body: a request has one body":                   {"http://h", "--data", "x", "--json-body", "1"},
		"--json-body: it is not valid JSON":                                {"http://h", "--json-body", "{x}"},
		"--param \"x\": write NAME=VALUE":                                  {"http://h", "--param", "x"},
		"--form \"x\": write NAME=VALUE or NAME=@FILE":                     {"http://h", "--form", "x"},
		"--form f: read /no/such: ":                                        {"http://h", "--form", "f=@/no/such"},
		"--data: read /no/such: ":                                          {"http://h", "--data", "@/no/such"},
		"--data @-: standard input is the list":                            {"-", "--data", "@-"},
		"--header Content-Type and --form":                                 {"http://h", "--form", "a=b", "--header", "Content-Type: x/y"},
		"--method is not an HTTP method: \"GET /\"":                        {"http://h", "--method", "GET /"},
		"--method cannot be CONNECT":                                       {"http://h", "--method", "connect"},
		"--key: it is for tables: give --template":                         {"http://h", "--key", "{id}"},
		"--template: {id id}: \"id id\" is no name of a variable":          {"-", "--template", "http://h/{id id}"},
		"--template makes the URLs, and an argument is one":                {"http://h", "--template", "http://h/{id}"},
		"--sql: say what to ask with --query":                              {"--sql", "sqlite:x"},
		"--query: name the database with --sql":                            {"--query", "select 1"},
		"--sql and -: rows come from the database or from files":           {"-", "--sql", "sqlite:x", "--query", "select 1"},
		"--sql: write postgres://USER@HOST/DATABASE, mysql":                {"--sql", "oracle://u:hunter2@h/d", "--query", "select 1"},
		"--json-body: in \"{\": a \"{\" that is never closed: write {{":    {"-", "--template", "http://h/{id}", "--json-body", `{"a":"{"}`},
		"--header X-A: a \"{\" that is never closed":                       {"-", "--template", "http://h/{id}", "--header", "X-A: {id"},
		"--header Host: this header is set by the fetcher":                 {"-", "--template", "http://h/{id}", "--header", "Host: {id}"},
		"--delimiter \"ab\": one character":                                {"-", "--template", "http://h/{id}", "--delimiter", "ab"},
		"--body-dir: ":                                                     {"-", "--body-dir", "/no/such"},
		"table - (standard input): there is no column \"id\": the columns": {"-", "--template", "http://h/{id}"},
	} {
		var told bytes.Buffer
		code := Fleet(IO{Args: append([]string{"run", "--quiet", "--out", filepath.Join(t.TempDir(), "o")}, args...), Stdin: strings.NewReader("a,b\n1,2\n"), Stdout: &told, Stderr: &told})
		if usage := !strings.HasPrefix(want, "table"); usage && code != ExitUsage || code == ExitOK || !strings.Contains(told.String(), want) || strings.Contains(told.String(), "hunter2") {
			t.Errorf("%v: exit %d, %s\nwant %s", args, code, &told, want)
		}
	}
}

// A row that tries to break out of the value it is put into is a bad line, or arrives as a value.
func TestRowsCannotInjectHeaders(t *testing.T) {
	server := httptest.NewServer(httpbin.New())
	defer server.Close()
	rows := `{"id":"1","v":"a\r\nX-Evil: 1"}` + "\n" + `{"id":"2","v":"b\nx"}` + "\n" + `{"id":"3","v":"fine"}` + "\n" + `{"id":"4 HTTP/1.1\r\nX-Evil: 1","v":"x"}`
	got, stderr, code := fetched(t, server.URL, rows, "-", "--template", server.URL+"/anything/{id}", "--header", "X-T: {v}")
	want := []string{"GET /anything/3 X-T=fine", "GET /anything/4%20HTTP%2F1.1%0D%0AX-Evil%3A%201 X-T=x"}
	if d := cmp.Diff(want, got); d != "" || code != ExitIncomplete || !strings.Contains(stderr, "-:1: header X-T: the value holds a line break") || !strings.Contains(stderr, "-:2: ") {
		t.Errorf("exit %d, %s\n%s", code, stderr, d)
	}
}
