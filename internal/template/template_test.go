package template

import (
	"encoding/json"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/rows"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func rowOf(t testing.TB, object string) *rows.Row {
	t.Helper()
	row, err := rows.ParseObject([]byte(object))
	if err != nil {
		t.Fatal(err)
	}
	return &row
}

const sample = `{"id":7,"q":"a b&c=d/é","e":"","t":true,"z":null,"url":"http://h/x?y=1","First Name":"Ann"}`

func TestURLs(t *testing.T) {
	row := rowOf(t, sample)
	for text, want := range map[string]string{
		"http://h/{id}?q={q}":  "http://h/7?q=a%20b%26c%3Dd%2F%C3%A9",
		"http://h/{id}{?q,t}":  "http://h/7?q=a%20b%26c%3Dd%2F%C3%A9&t=true",
		"http://h/{?z,none}":   "http://h/",
		"http://h/?a=1{&e,z}":  "http://h/?a=1&e=",
		"http://h{/id,none,t}": "http://h/7/true",
		"{+url}":               "http://h/x?y=1",
		"http://h/{q:1}":       "http://h/a",
		"http://h/without":     "http://h/without",
		" http://h/{id} ":      "http://h/7",
		"http://h/{none}":      `!there is no "none" in this row`,
		"http://h/{z}":         `!there is no "z" in this row`,
		"http://h/{id}/{e}":    `!"e" is empty, and the URL needs it`,
		"http://h/{+e}":        `!"e" is empty, and the URL needs it`,
		"http://h/{q:8}":       "http://h/a%20b%26c%3Dd%2F",
		"http://h/{q:9}":       "http://h/a%20b%26c%3Dd%2F%C3%A9",
		"http://h/{id,none}":   `!there is no "none"`,
	} {
		u, err := ParseURL(text)
		if err != nil {
			t.Fatal(text, err)
		}
		got, err := u.Expand(row)
		if bad, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("%s: %q, %v, want %s", text, got, err, bad)
			}
		} else if got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "http://h/{", "http://h/{}", "http://h/{First Name}", "http://h/}", "http://h/{!x}", "http://h/{x:0}", "http://h/{x:3*}", "http://h/{x,}", "http://h/{.}", "http://h/{a..b}", "http://h/a b", "http://h/{%zz}"} {
		if _, err := ParseURL(text); err == nil || strings.Contains(err.Error(), "uritemplate") {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// The examples of RFC 6570 whose values are text, section by section; {x} and {+x} that are empty are an error here.
func TestTheExamplesOfRFC6570(t *testing.T) {
	row := rowOf(t, `{"var":"value","hello":"Hello World!","path":"/foo/bar","empty":"","x":1024,"y":768,"half":"50%","base":"http://example.com/home/",
		"who":"fred","dub":"me/too","v":6,"undef":null,"semi":";"}`)
	for text, want := range map[string]string{
		"{var}": "value", "{hello}": "Hello%20World%21", "{half}": "50%25", "O{x}X": "O1024X", "{x,y}": "1024,768", "{x,hello,y}": "1024,Hello%20World%21,768",
		"{var:3}": "val", "{var:30}": "value", "{+var}": "value", "{+hello}": "Hello%20World!", "{+half}": "50%25", "{base}index": "http%3A%2F%2Fexample.com%2Fhome%2Findex",
		"{+base}index": "http://example.com/home/index", "{+path}/here": "/foo/bar/here", "here?ref={+path}": "here?ref=/foo/bar", "up{+path}{var}/here": "up/foo/barvalue/here",
		"{+x,hello,y}": "1024,Hello%20World!,768", "{+path,x}/here": "/foo/bar,1024/here", "{+path:6}/here": "/foo/b/here",
		"{#var}": "#value", "{#hello}": "#Hello%20World!", "{#half}": "#50%25", "foo{#empty}": "foo#", "foo{#undef}": "foo", "{#x,hello,y}": "#1024,Hello%20World!,768",
		"{#path:6}here": "#/foo/bhere", "{.who}": ".fred", "{.who,who}": ".fred.fred", "{.half,who}": ".50%25.fred", "X{.var}": "X.value", "X{.empty}": "X.", "X{.undef}": "X",
		"X{.var:3}": "X.val", "{/who}": "/fred", "{/half,who}": "/50%25/fred", "{/who,dub}": "/fred/me%2Ftoo", "{/var}": "/value", "{/var,empty}": "/value/", "{/var,undef}": "/value",
		"{/var:1,var}": "/v/value", "{;who}": ";who=fred", "{;half}": ";half=50%25", "{;empty}": ";empty", "{;v,empty,who}": ";v=6;empty;who=fred", "{;v,bar,who}": ";v=6;who=fred",
		"{;x,y}": ";x=1024;y=768", "{;x,y,undef}": ";x=1024;y=768", "{;hello:5}": ";hello=Hello", "{?who}": "?who=fred", "{?half}": "?half=50%25", "{?x,y}": "?x=1024&y=768",
		"{?x,y,empty}": "?x=1024&y=768&empty=", "{?x,y,undef}": "?x=1024&y=768", "{?var:3}": "?var=val", "{&who}": "&who=fred", "{&half}": "&half=50%25",
		"?fixed=yes{&x}": "?fixed=yes&x=1024", "{&x,y,empty}": "&x=1024&y=768&empty=", "{&var:3}": "&var=val", "{/var*}": "/value", "{semi:2}": "%3B",
	} {
		u, err := ParseURL(text)
		if err != nil {
			t.Error(text, err)
			continue
		}
		if got, err := u.Expand(row); got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
}

func TestTexts(t *testing.T) {
	row := rowOf(t, sample)
	for text, want := range map[string]string{
		"{id}": "7", "a{id}b{e}c": "a7bc", "{{id}}": "{id}", "{First Name}!": "Ann!", "${id}": "$7", "plain": "plain", "": "",
		"{none}": `!there is no "none"`, "{z}": `!there is no "z"`,
	} {
		x, err := ParseText(text)
		if err != nil {
			t.Fatal(text, err)
		}
		got, err := x.Expand(row)
		if bad, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("%s: %q, %v, want %s", text, got, err, bad)
			}
		} else if got != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"{", "}", "{}", "a{b", "{ id }", "{a{b}}"} {
		if _, err := ParseText(text); err == nil || !strings.Contains(err.Error(), "for a brace") {
			t.Errorf("%q: %v, want how to write a brace", text, err)
		}
	}
}

func TestNoRowCanReferToASecret(t *testing.T) {
	for _, tt := range []struct{ text, row, want string }{
		{"Bearer ${env:TOKEN}", `{"a":"x"}`, "Bearer ${env:TOKEN}"},
		{"${file:/run/x}-{a}", `{"a":"x"}`, "${file:/run/x}-x"},
		{"{a}", `{"a":"${env:TOKEN}"}`, "$${env:TOKEN}"},
		{"${a}", `{"a":"{env:TOKEN}"}`, "$${env:TOKEN}"},
		{"{a}{b}", `{"a":"$","b":"{env:TOKEN}"}`, "$${env:TOKEN}"},
		{"{a}{{env:TOKEN}}", `{"a":"$"}`, "$${env:TOKEN}"},
		{"$${env:TOKEN}} {a}", `{"a":"x"}`, "$${env:TOKEN} x"},
	} {
		x, err := ParseHeader(tt.text)
		if err != nil {
			t.Errorf("%s: %v", tt.text, err)
			continue
		}
		if got, err := x.ExpandHeader(rowOf(t, tt.row)); got != tt.want || err != nil {
			t.Errorf("%s with %s: %q, %v, want %q", tt.text, tt.row, got, err, tt.want)
		}
	}
}

func TestJSONBodies(t *testing.T) {
	row := rowOf(t, `{"id":7,"s":"a\"b\\\n","t":true,"z":null,"n":"12.50","k":"key","bad":"1x","big":12345678901234567890}`)
	for text, want := range map[string]string{
		`{"id":"{id}"}`:                        `{"id":7}`,
		`{"id":"#{id}"}`:                       `{"id":"#7"}`,
		`{"id":"{big}"}`:                       `{"id":12345678901234567890}`,
		`["{t}","{z}","{s}","x{s}y"]`:          `[true,null,"a\"b\\\n","xa\"b\\\ny"]`,
		`{"n":"{n}","m":"{+n}"}`:               `{"n":"12.50","m":12.50}`,
		`{"{k}" : "{{k}}", "\u007bk\u007d":1}`: `{"key" : "{k}", "\u007bk\u007d":1}`,
		`"{id}"`:                               `7`,
		` { "plain" : [ 1.0, "x" ] } `:         ` { "plain" : [ 1.0, "x" ] } `,
		`{"{id}":1}`:                           `{"7":1}`,
		`{"a":"{none}"}`:                       `!there is no "none"`,
		`{"a":"x{z}"}`:                         `!there is no "z"`,
		`{"a":"{+bad}"}`:                       `!"bad" is no number`,
	} {
		j, err := ParseJSON(text)
		if err != nil {
			t.Fatal(text, err)
		}
		got, err := j.Expand(row)
		if bad, ok := strings.CutPrefix(want, "!"); ok {
			if err == nil || !strings.Contains(err.Error(), bad) {
				t.Errorf("%s: %q, %v, want %s", text, got, err, bad)
			}
		} else if string(got) != want || err != nil {
			t.Errorf("%s: %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"", "{", "{id}", `{"a":"{"}`, `{"a":1} x`} {
		if _, err := ParseJSON(text); err == nil {
			t.Errorf("%q is taken", text)
		}
	}
}

// FuzzExpand: whatever stands in a row, a JSON body keeps its structure, a URL its host, its path's depth and its
// parameters, and a header refers to no secret that the template does not.
func FuzzExpand(f *testing.F) {
	f.Add(`{"a":"{x}","b":["p{x}s"]}`, "v", "w")
	f.Add(`["{+x}"]`, "1e5", "\"},{")
	f.Add(`{"{x}":{"y":"{y}"}}`, "${env:A}", "\r\nX: y/../?#&=")
	f.Fuzz(func(t *testing.T, body, x, y string) {
		row := &rows.Row{Names: []string{"x", "y"}, Values: []rows.Value{{Kind: rows.String, Text: x}, {Kind: rows.String, Text: y}}}
		if j, err := ParseJSON(body); err == nil {
			if got, err := j.Expand(row); err == nil && !sameShape([]byte(body), got) {
				t.Fatalf("%s became %s", body, got)
			}
		}
		u, _ := ParseURL("http://h.example/a/{x}/b?p={y}{&x}")
		if got, err := u.Expand(row); err == nil {
			parsed, err := url.Parse(got)
			if err != nil || parsed.Host != "h.example" || strings.Count(parsed.EscapedPath(), "/") != 3 || len(parsed.Query()) != 2 || parsed.Fragment != "" {
				t.Fatalf("%q and %q make %q: %v", x, y, got, err)
			}
		}
		h, _ := ParseHeader("{x}{y}")
		if got, _ := h.ExpandHeader(row); strings.Contains(strings.ReplaceAll(got, "$${", ""), "${") {
			t.Fatalf("%q and %q make the header %q", x, y, got)
		}
	})
}

// sameShape reports whether both texts have the same lists and objects, as deep and as long; keys may differ, and merge.
func sameShape(a, b []byte) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && alike(x, y)
}

func alike(x, y any) bool {
	switch x := x.(type) {
	case map[string]any:
		y, ok := y.(map[string]any)
		return ok && len(y) <= len(x)
	case []any:
		y, ok := y.([]any)
		if !ok || len(x) != len(y) {
			return false
		}
		for i := range x {
			if !alike(x[i], y[i]) {
				return false
			}
		}
		return true
	}
	kind := reflect.ValueOf(y).Kind()
	return kind != reflect.Map && kind != reflect.Slice
}
