package store_test

import (
	"bytes"
	"encoding/json"
	"math"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/google/go-cmp/cmp"
	"reflect"
)

// standard is what AppendRecord must yield.
func standard(t testing.TB, r *store.Record) string {
	t.Helper()
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(r); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func wantStandard(t testing.TB, r *store.Record) {
	t.Helper()
	got, err := store.AppendRecord([]byte("before"), r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff("before"+standard(t, r), string(got)+"\n"); diff != "" {
		t.Errorf("line differs from encoding/json's (-want +got):\n%s", diff)
	}
}

func TestAppendRecordIsStandard(t *testing.T) {
	full := storetest.Record("b1", 1)
	wantStandard(t, full)
	wantStandard(t, &store.Record{ID: "x"})
	// Each field by itself, empty in an otherwise full record: commas and omission. A field that is added to Record
	// and forgotten here would be missing from the line.
	for i := range reflect.TypeFor[store.Record]().NumField() {
		r := *full
		if f := reflect.ValueOf(&r).Elem().Field(i); reflect.TypeFor[store.Record]().Field(i).Name != "ID" {
			if f.IsZero() {
				t.Errorf("storetest.Record leaves %s empty", reflect.TypeFor[store.Record]().Field(i).Name)
			}
			f.SetZero()
		}
		wantStandard(t, &r)
	}
}

func FuzzAppendRecord(f *testing.F) {
	f.Add("id", "text/html", "a \"b\" <c> \u2028 \x00 \xff", 1.5, int64(3), `{"a": [1, 2]}`)
	f.Add("ä", "", "", math.Inf(1), int64(-1), ``)
	f.Add("i", "\x7f", "\\", 1e-7, int64(math.MaxInt64), `<>`)
	f.Fuzz(func(t *testing.T, id, text, header string, ms float64, n int64, meta string) {
		r := &store.Record{
			ID: id, URL: id, ContentType: text, Error: &store.RecordError{Class: text, Message: header}, Bytes: n,
			Headers:   map[string][]string{text: {header, text}, header: {}, id: nil},
			ElapsedMS: ms, FetchedAt: time.Unix(n%1e10, n%1e9).UTC(), Meta: json.RawMessage(meta), Status: int(n),
			Redirects: []store.Redirect{{URL: header, Status: int(n)}},
		}
		line, err := store.AppendRecord(nil, r)
		if err != nil {
			return // refused: TestAppendRecordRefuses says what may be
		}
		if !json.Valid(line) || bytes.ContainsRune(line, '\n') {
			t.Fatalf("%q is not a line of JSON", line)
		}
		wantStandard(t, r)
	})
}

func TestAppendRecordRefuses(t *testing.T) {
	for claim, r := range map[string]*store.Record{
		"no id":             {},
		"an id not UTF-8":   {ID: "\xff"},
		"not a number":      {ID: "x", ElapsedMS: math.NaN()},
		"a year beyond RFC": {ID: "x", FetchedAt: time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC)},
		"meta cut short":    {ID: "x", Meta: json.RawMessage(`{`)},
	} {
		if line, err := store.AppendRecord(nil, r); err == nil || len(line) != 0 {
			t.Errorf("%s: appended %q, %v, want a refusal", claim, line, err)
		}
	}
}
