package storetest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/google/go-cmp/cmp"
)

const job = "job-1"

// Record returns a record with every field set, number i of a batch.
func Record(batch string, i int) *store.Record {
	return &store.Record{
		ID: fmt.Sprintf("%s-%d", batch, i), Job: job, Batch: batch, Generation: 2,
		URL: fmt.Sprintf("https://example.test/ä?a=1&b=<%d>", i), FinalURL: "https://example.test/final\u2028",
		Method: "GET", Outcome: store.HTTPError, Status: 503,
		Error:    &store.RecordError{Class: "status", Message: "said \"no\"\n\tand \\ \x01"},
		Attempts: 3, Headers: map[string][]string{"Set-Cookie": {"a=1", "b=2"}, "Etag": {`"x"`}, "Via": {""}},
		ContentType: "text/html", Charset: "utf-8", Bytes: 12, SHA256: "ab", Body: "bodies/ab/ab.html", Unchanged: true, BodyJob: "job-0", Resumed: 2,
		FetchedAt: time.Date(2026, 2, 3, 4, 5, 6, 789, time.UTC), ElapsedMS: 1234.5678,
		Timings:  &store.Timings{DNS: 0.25, Connect: 1, TLS: 1e-7, TTFB: 20, Total: 1e21},
		Protocol: "HTTP/2.0", Insecure: true, RemoteAddr: "[2001:db8::1]:443",
		Redirects: []store.Redirect{{URL: "https://example.test/1", Status: 301}, {URL: "https://example.test/2", Status: 302}},
		Worker:    "w1", Meta: json.RawMessage(`{"k":["v",1,null]}`),
	}
}

// Account returns an account of a unit of the suite's job with one entry for each record.
func Account(batch string, generation int, delivery string, records ...*store.Record) *store.Account {
	a := &store.Account{
		V: store.AccountVersion, Job: job, Batch: batch, Generation: generation, Worker: "w1", Delivery: delivery,
		Entries: []store.Entry{},
		Children: []store.Child{
			{ID: batch + "-child", Requests: 1, Due: 1_700_000_000_000, Payload: json.RawMessage(`{"url":"http://x/?a&b"}`)},
		},
	}
	for _, r := range records {
		a.Entries = append(a.Entries, store.Entry{
			ID: r.ID, Fate: store.Recorded, Outcome: r.Outcome, Class: "status", Bytes: r.Bytes,
			Request: json.RawMessage(`{"url":"` + "http://example.test/" + `"}`),
		})
	}
	return a
}

func begin(t *testing.T, s store.Store, unit string) store.Unit {
	t.Helper()
	u, err := s.Begin(t.Context(), job, unit)
	if err != nil {
		t.Fatalf("Begin(%s): %v", unit, err)
	}
	t.Cleanup(func() { u.Discard() })
	return u
}

func add(t *testing.T, u store.Unit, records ...*store.Record) {
	t.Helper()
	for _, r := range records {
		if err := u.Add(r); err != nil {
			t.Fatalf("Add(%s): %v", r.ID, err)
		}
	}
}

// commit commits and demands to win.
func commit(t *testing.T, u store.Unit, a *store.Account) {
	t.Helper()
	got, won, err := u.Commit(t.Context(), a)
	if err != nil {
		t.Fatalf("Commit(%s): %v", a.Unit(), err)
	}
	if !won {
		t.Fatalf("Commit(%s) lost to delivery %s", a.Unit(), got.Delivery)
	}
	wantEqual(t, "the account returned by Commit", got, a)
}

// store1 stores a unit of n records.
func store1(t *testing.T, s store.Store, batch string, generation, n int) ([]*store.Record, *store.Account) {
	t.Helper()
	var records []*store.Record
	for i := range n {
		records = append(records, Record(batch, i))
	}
	a := Account(batch, generation, "d1", records...)
	u := begin(t, s, a.Unit())
	add(t, u, records...)
	commit(t, u, a)
	return records, a
}

func account(t *testing.T, s store.Store, unit string) *store.Account {
	t.Helper()
	a, err := s.Account(t.Context(), job, unit)
	if err != nil {
		t.Fatalf("Account(%s): %v", unit, err)
	}
	return a
}

func records(t *testing.T, s store.Store, unit string) []*store.Record {
	t.Helper()
	var list []*store.Record
	for r, err := range s.Records(t.Context(), job, unit) {
		if err != nil {
			t.Fatalf("Records(%s): %v", unit, err)
		}
		list = append(list, r)
	}
	return list
}

func units(t *testing.T, s store.Store, job string) []string {
	t.Helper()
	list := []string{}
	for u, err := range s.Units(t.Context(), job) {
		if err != nil {
			t.Fatalf("Units(%s): %v", job, err)
		}
		list = append(list, u)
	}
	slices.Sort(list)
	return list
}

func write(t *testing.T, u store.Unit, data []byte) store.BodyRef {
	t.Helper()
	ref, err := tryWrite(t, u, data)
	if err != nil {
		t.Fatalf("write a body of %d bytes: %v", len(data), err)
	}
	return ref
}

func tryWrite(t *testing.T, u store.Unit, data []byte) (store.BodyRef, error) {
	w, err := u.Body(t.Context(), store.BodyMeta{URL: "http://example.test/a.txt", ContentType: "text/html"})
	if err != nil {
		return store.BodyRef{}, err
	}
	defer w.Abort()
	// The way io.Copy would: pieces smaller than the whole, and at last an uneven one.
	if _, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{bytes.NewReader(data)},
		make([]byte, 30_000)); err != nil {
		return store.BodyRef{}, err
	}
	return w.Finish()
}

func wantBody(t *testing.T, s store.Store, ref store.BodyRef, want []byte) {
	t.Helper()
	sum := sha256.Sum256(want)
	if ref.Bytes != int64(len(want)) || ref.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("body of %d bytes is referred to as %+v, want digest %x", len(want), ref, sum)
	}
	if ref.Body == "" && len(want) == 0 {
		return
	}
	r, err := s.OpenBody(t.Context(), job, ref.Body)
	if err != nil {
		t.Errorf("OpenBody(%s): %v", ref.Body, err)
		return
	}
	defer r.Close()
	got, err := io.ReadAll(io.LimitReader(r, int64(len(want))+1))
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("body %s reads as %d bytes (error %v), not as the %d written", ref.Body, len(got), err, len(want))
	}
}

// random returns n bytes that differ for each seed.
func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 1}).Read(b)
	return b
}

func wantEqual(t *testing.T, what string, got, want any) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s differs (-want +got):\n%s", what, diff)
	}
}
