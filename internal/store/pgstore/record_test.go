package pgstore

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// What a record is after it was stored as a line of JSON is what it must be here.
func throughJSON(t testing.TB, r *store.Record) *store.Record {
	t.Helper()
	line, err := store.AppendRecord(nil, r)
	if err != nil {
		t.Fatal(err)
	}
	out := new(store.Record)
	if err := json.Unmarshal(line, out); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestRecordsThatColumnsCannotHold(t *testing.T) {
	tests := map[string]struct {
		spoil func(*store.Record)
		exact bool // whether the record is kept as JSON, too
	}{
		"a plain record":               {spoil: func(*store.Record) {}},
		"nanoseconds":                  {spoil: func(r *store.Record) { r.FetchedAt = time.Unix(1_800_000_000, 123_456_789) }},
		"the first second of all":      {spoil: func(r *store.Record) { r.FetchedAt = time.Time{} }},
		"the last second of all":       {spoil: func(r *store.Record) { r.FetchedAt = time.Date(9999, 12, 31, 23, 59, 59, 999_999_999, time.UTC) }},
		"a time before the epoch":      {spoil: func(r *store.Record) { r.FetchedAt = time.Date(1969, 1, 1, 0, 0, 0, 1, time.UTC) }},
		"a header in Latin-1":          {spoil: func(r *store.Record) { r.Headers = map[string][]string{"X": {"caf\xe9 \xff\xfe"}} }},
		"a message that is not text":   {spoil: func(r *store.Record) { r.Error = &store.RecordError{Message: "\xc3("} }},
		"an error without words":       {spoil: func(r *store.Record) { r.Error = &store.RecordError{} }},
		"a header without values":      {spoil: func(r *store.Record) { r.Headers = map[string][]string{"X": nil, "Y": {}} }},
		"meta with a NUL":              {spoil: func(r *store.Record) { r.Meta = json.RawMessage(`{"a\u0000":"\u0000"}`) }},
		"meta with half a pair":        {spoil: func(r *store.Record) { r.Meta = json.RawMessage(`"\ud800"`) }},
		"meta with a huge number":      {spoil: func(r *store.Record) { r.Meta = json.RawMessage(`1e999999999`) }},
		"meta in its own order, twice": {spoil: func(r *store.Record) { r.Meta = json.RawMessage(`{"b":1,"a":2,"b":3}`) }},
		"meta null":                    {spoil: func(r *store.Record) { r.Meta = json.RawMessage(`null`) }},
		"meta nested to the limit":     {spoil: func(r *store.Record) { r.Meta = nested(maxNesting) }},
		"meta nested beyond the limit": {spoil: func(r *store.Record) { r.Meta = nested(9000) }, exact: true},
		"meta that is not text":        {spoil: func(r *store.Record) { r.Meta = json.RawMessage("\"\xff\"") }, exact: true},
		"a NUL in the URL":             {spoil: func(r *store.Record) { r.URL = "http://x/\x00" }, exact: true},
		"a NUL in the id":              {spoil: func(r *store.Record) { r.ID = "\x00" }, exact: true},
		"a NUL in a header":            {spoil: func(r *store.Record) { r.Headers = map[string][]string{"X": {"a\x00b"}} }, exact: true},
		"a NUL in a header's name":     {spoil: func(r *store.Record) { r.Headers = map[string][]string{"X\x00": {"a"}, "X\ufffd": {"b"}} }, exact: true},
		"a NUL in a redirect":          {spoil: func(r *store.Record) { r.Redirects = []store.Redirect{{URL: "\x00"}} }, exact: true},
		"a backslash before a u":       {spoil: func(r *store.Record) { r.Headers = map[string][]string{"X": {`\u0000`}} }, exact: true},
		"a status beyond 32 bits":      {spoil: func(r *store.Record) { r.Status = math.MaxInt64 }, exact: true},
		"numbers of all sizes":         {spoil: func(r *store.Record) { r.Timings = &store.Timings{DNS: 5e-324, Connect: math.MaxFloat64, TLS: -1.5} }},
		"a URL longer than an index":   {spoil: func(r *store.Record) { r.URL = "http://x/" + strings.Repeat("u", 1<<20) }},
		"the longest id, in a replay":  {spoil: func(r *store.Record) { r.ID, r.Generation = random(maxName-len(crashJob)-1), 3 }},
	}
	s := openTest(t, shared.Server(t).Database(t), Options{})
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			r := plainRecord()
			tt.spoil(r)
			got := stored(t, s, r)
			if diff := cmp.Diff(throughJSON(t, r), got); diff != "" {
				t.Errorf("differs (-want +got):\n%.2000s", diff)
			}
			exact := count(t, s, `SELECT count(exact) FROM records r JOIN (SELECT key FROM units ORDER BY committed_at DESC LIMIT 1) u ON u.key = r.unit_key`)
			if exact != 0 != tt.exact {
				t.Errorf("%d records are kept as JSON, too, want %v", exact, tt.exact)
			}
		})
	}
}

func nested(depth int) json.RawMessage {
	return json.RawMessage(strings.Repeat(`[{"a":`, depth/2) + "1" + strings.Repeat("}]", depth/2))
}

// random returns text that does not compress.
func random(n int) string { return randomHex(n / 2) }

func plainRecord() *store.Record {
	return &store.Record{
		ID: "r1", Job: crashJob, Batch: "b1", URL: "http://x.test/", Method: "GET", Outcome: store.OK, Attempts: 1,
		FetchedAt: time.Unix(1_800_000_000, 0), Worker: "w",
	}
}

// stored stores a record in a unit of its own, between two others, and reads it back.
func stored(t testing.TB, s *Store, r *store.Record) *store.Record {
	t.Helper()
	name := "u" + randomHex(8)
	u, err := s.Begin(t.Context(), crashJob, name)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	for _, r := range []*store.Record{plainRecord(), r, plainRecord()} {
		if err := u.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	if _, won, err := u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: name}); err != nil || !won {
		t.Fatalf("Commit: won %v, %v", won, err)
	}
	var got []*store.Record
	for r, err := range s.Records(t.Context(), crashJob, name) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, r)
	}
	if len(got) != 3 {
		t.Fatalf("%d records came back, want 3", len(got))
	}
	return got[1]
}

// TestRecordsComeBack is for what nobody thought of.
func TestRecordsComeBack(t *testing.T) {
	s := openTest(t, shared.Server(t).Database(t), Options{})
	rapid.Check(t, func(rt *rapid.T) {
		word := rapid.OneOf(rapid.String(), rapid.StringN(0, 3, -1), rapid.SampledFrom([]string{"\x00", "\xff", `\u0000`, "\ud7ff\U0010ffff", `"`, "'"}))
		r := plainRecord()
		r.ID = word.Filter(func(s string) bool { return s != "" && text(s) == s }).Draw(rt, "id")
		r.FinalURL, r.Method, r.ContentType = word.Draw(rt, "final"), word.Draw(rt, "method"), word.Draw(rt, "type")
		r.Headers = rapid.MapOf(word, rapid.SliceOf(word)).Draw(rt, "headers")
		r.Generation, r.Status = rapid.Int().Draw(rt, "generation"), rapid.Int().Draw(rt, "status")
		r.ElapsedMS = rapid.Float64().Draw(rt, "elapsed")
		r.FetchedAt = time.Unix(rapid.Int64Range(-60_000_000_000, 250_000_000_000).Draw(rt, "at"), rapid.Int64Range(0, 999_999_999).Draw(rt, "ns"))
		if rapid.Bool().Draw(rt, "with meta") {
			meta, _ := json.Marshal(rapid.MapOf(word, word).Draw(rt, "meta"))
			r.Meta = meta
		}
		if diff := cmp.Diff(throughJSON(t, r), stored(t, s, r)); diff != "" {
			rt.Fatalf("differs (-want +got):\n%s", diff)
		}
	})
}

func TestLatestIsTheHighestGeneration(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s := openTest(t, raw, Options{})
	for generation, ids := range map[int][]string{0: {"a", "b", "c"}, 1: {"b", "c"}, 2: {"c"}} {
		for _, id := range ids {
			r := plainRecord()
			r.ID, r.Generation, r.URL = id, generation, "https://Host.test:8080/x?y"
			stored(t, s, r)
		}
	}
	var got []string
	rows, err := s.pool.Query(t.Context(), `SELECT id || generation || host FROM latest WHERE id <> 'r1' ORDER BY id`)
	if err != nil {
		t.Fatal(err)
	}
	for rows.Next() {
		var v string
		if err := rows.Scan(&v); err != nil {
			t.Fatal(err)
		}
		got = append(got, v)
	}
	if diff := cmp.Diff([]string{"a0Host.test:8080", "b1Host.test:8080", "c2Host.test:8080"}, got); diff != "" {
		t.Errorf("latest differs (-want +got):\n%s", diff)
	}
	pgtest.Exec(t, raw, `SELECT count(*) FROM fetchfleet.latest WHERE meta->>'x' IS NULL AND headers ? 'Etag'`)
}

func TestRecordRefused(t *testing.T) {
	u := &unit{}
	for claim, spoil := range map[string]func(*store.Record){
		"no number":         func(r *store.Record) { r.ElapsedMS = math.NaN() },
		"a year of 5 digit": func(r *store.Record) { r.FetchedAt = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) },
		"a name too long":   func(r *store.Record) { r.ID = random(maxName + 2) },
		"no JSON":           func(r *store.Record) { r.Meta = json.RawMessage(`{`) },
	} {
		r := plainRecord()
		spoil(r)
		if err := u.Add(r); err == nil || len(u.records) != 0 || u.count != 0 {
			t.Errorf("%s: %v, %d bytes were kept", claim, err, len(u.records))
		}
	}
	if err := u.Add(plainRecord()); err != nil || u.count != 1 {
		t.Error(fmt.Errorf("the next: %w", err))
	}
}
