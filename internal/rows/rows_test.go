package rows

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

var shared pgtest.Shared

func TestMain(m *testing.M) {
	code := m.Run()
	shared.Close()
	if err := goleak.Find(); err != nil && code == 0 {
		_, _ = os.Stderr.WriteString(err.Error() + "\n")
		code = 1
	}
	os.Exit(code)
}

// told is each row as "number JSON" or "number !error", and what ended the table.
func told(s Source) (out []string, end error) {
	for {
		row, err := s.Next()
		if err != nil {
			if err == io.EOF {
				err = nil
			}
			return out, err
		}
		if row.Err != nil {
			out = append(out, "!"+row.Err.Error())
			continue
		}
		out = append(out, string(row.AppendJSON(nil)))
	}
}

func TestCSV(t *testing.T) {
	for claim, tt := range map[string]struct {
		text    string
		comma   rune
		want    []string
		wantErr string
	}{
		"cells are text":                       {"id,n\n1,x\n", 0, []string{`{"id":"1","n":"x"}`}, ""},
		"a byte order mark is no name":         {"\ufeffid\n1", 0, []string{`{"id":"1"}`}, ""},
		"quotes, line breaks and commas":       {"a,b\r\n\"x \"\"y\"\", z\",\"1\r\n2\"\r\n", 0, []string{`{"a":"x \"y\", z","b":"1\n2"}`}, ""},
		"an empty cell is empty text":          {"a,b\n,x\n", 0, []string{`{"a":"","b":"x"}`}, ""},
		"another delimiter":                    {"a;b\n1;2\n", ';', []string{`{"a":"1","b":"2"}`}, ""},
		"names are trimmed, cells are not":     {" a , b\n 1 ,2\n", 0, []string{`{"a":" 1 ","b":"2"}`}, ""},
		"blank lines are no rows":              {"a\n\n1\n\n", 0, []string{`{"a":"1"}`}, ""},
		"a bad row does not stop the table":    {"a,b\n1\n2,3\n", 0, []string{"!the row has not as many columns as the first line, which names 2", `{"a":"2","b":"3"}`}, ""},
		"a stray quote is said":                {"a\nx\"y\n2\n", 0, []string{`!a stray " (in RFC 4180 a cell with one is quoted, and the quote doubled)`, `{"a":"2"}`}, ""},
		"what is not UTF-8 is said":            {"a\nx\xe9\n2\n", 0, []string{`!column "a" is not UTF-8`, `{"a":"2"}`}, ""},
		"only names are an empty table":        {"a,b\n", 0, nil, ""},
		"nothing is the end":                   {"", 0, nil, "EOF"},
		"two columns of one name are refused":  {"a,a\n", 0, nil, `two columns are named "a"`},
		"a column without a name is refused":   {"a,\n", 0, nil, "column 2 has no name"},
		"a quote that is never closed ends it": {"a\n1\n\"" + strings.Repeat("x\n", 100_000), 0, []string{`{"a":"1"}`}, "after line 2: a row is longer than allowed"},
	} {
		t.Run(claim, func(t *testing.T) {
			c, err := NewCSV(strings.NewReader(tt.text), CSVOptions{Comma: tt.comma, MaxRow: 1000})
			var got []string
			if err == nil {
				got, err = told(c)
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Error(d)
			}
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("ended with %v, want %q", err, tt.wantErr)
			}
		})
	}
}

func TestRowsSayOnWhichLineTheyBegin(t *testing.T) {
	c, err := NewCSV(strings.NewReader("a\n\"1\n1\"\n\n2\nx\"\n"), CSVOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []int64{2, 5, 6} {
		if row, err := c.Next(); err != nil || row.Number != want {
			t.Errorf("line %d, %v, want %d", row.Number, err, want)
		}
	}
}

func TestParseObject(t *testing.T) {
	row, err := ParseObject([]byte(`{"s":"é<\n","n":1.50,"big":12345678901234567890,"t":true,"f":false,"z":null}`))
	if got, want := string(row.AppendJSON(nil)), `{"s":"é<\n","n":1.50,"big":12345678901234567890,"t":true,"f":false,"z":null}`; err != nil || got != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
	if _, ok := row.Get("z"); ok {
		t.Error("null is defined")
	}
	for text, want := range map[string]string{
		`{"a":{"b":1}}`: `column "a" holds a list or an object`, `{"a":[1]}`: `column "a" holds a list`, `[1]`: "must be an object",
		`{"a":1,"a":2}`: `column "a" is there twice`, `{"a":`: "bad JSON: ", "{\"a\":\"\xe9\"}": "not UTF-8", `{"a":1} x`: "bad JSON: ",
	} {
		if _, err := ParseObject([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}

// FuzzTables: no input makes a row that is not valid JSON, nor one whose columns are not those of its table.
func FuzzTables(f *testing.F) {
	for _, s := range []string{"a,b\n1,2\n", "\ufeffa\n\"x\n\"\n", "{\"a\":1}", "a\n\"", "a,a\n", "\xff\n1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if row, err := ParseObject([]byte(text)); err == nil {
			again, err := ParseObject(row.AppendJSON(nil))
			if d := cmp.Diff(row, again); err != nil || d != "" {
				t.Fatalf("%q reads as another row: %v %s", text, err, d)
			}
		}
		c, err := NewCSV(strings.NewReader(text), CSVOptions{MaxRow: 100})
		if err != nil {
			return
		}
		for {
			row, err := c.Next()
			if errors.Is(err, io.EOF) || err != nil {
				return
			}
			if row.Err != nil {
				continue
			}
			if _, err := ParseObject(row.AppendJSON(nil)); err != nil || len(row.Values) != len(c.Columns()) {
				t.Fatalf("row %+v of %q: %v", row, text, err)
			}
		}
	})
}
