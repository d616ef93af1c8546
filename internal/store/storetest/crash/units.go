package crash

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Job is the job of all units.
const Job = "job"

// Unit returns the name of unit number i.
func Unit(i int) string { return fmt.Sprintf("b%03d", i) }

// Record returns the record of the nth body of a unit, as far as it is known before the body is stored.
func Record(unit string, n int, body []byte) *store.Record {
	return &store.Record{
		ID: fmt.Sprintf("%s-%d", unit, n), Job: Job, Batch: unit, URL: "http://x.test/", Method: "GET",
		Outcome: store.OK, Bytes: int64(len(body)), SHA256: digest(body),
	}
}

func digest(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:])
}

// Commit stores unit number i, once: that it was there already is no error. Bodies of several units have one URL.
func Commit(ctx context.Context, s store.Store, i int, bodies [][]byte) error {
	unit := Unit(i)
	u, err := s.Begin(ctx, Job, unit)
	if err != nil {
		return err
	}
	defer func() { _ = u.Discard() }()
	a := &store.Account{V: store.AccountVersion, Job: Job, Batch: unit, Delivery: "d"}
	for n, data := range bodies {
		r := Record(unit, n, data)
		ref, err := put(ctx, u, fmt.Sprintf("http://x.test/%d/%d", i%7, n), data)
		if err != nil {
			return err
		}
		r.Body = ref.Body
		if err := u.Add(r); err != nil {
			return err
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded})
	}
	_, _, err = u.Commit(ctx, a)
	return err
}

func put(ctx context.Context, u store.Unit, url string, data []byte) (store.BodyRef, error) {
	w, err := u.Body(ctx, store.BodyMeta{ContentType: "text/html", URL: url})
	if err != nil {
		return store.BodyRef{}, err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return store.BodyRef{}, err
	}
	return w.Finish()
}

// WantWhole demands that every unit is listed once and has all of its records and bodies, and returns which are there.
// bodies returns those of unit number i, whose records are as Record makes them.
func WantWhole(t *testing.T, s store.Store, bodies func(i int) [][]byte) map[int]bool {
	t.Helper()
	seen := make(map[int]bool)
	for unit, err := range s.Units(t.Context(), Job) {
		if err != nil {
			t.Fatal(err)
		}
		i, _ := strconv.Atoi(strings.TrimPrefix(unit, "b"))
		if seen[i] {
			t.Errorf("unit %s is listed twice", unit)
		}
		seen[i] = true
		want, n := bodies(i), 0
		for r, err := range s.Records(t.Context(), Job, unit) {
			if err != nil {
				t.Errorf("unit %s: %v", unit, err)
				break
			}
			if n >= len(want) || r.ID != fmt.Sprintf("%s-%d", unit, n) {
				t.Errorf("unit %s: record %d is %s", unit, n, r.ID)
				break
			}
			if sum := digest(want[n]); r.SHA256 != sum || r.Bytes != int64(len(want[n])) {
				t.Errorf("record %s is of %d bytes with digest %s, want %d with %s", r.ID, r.Bytes, r.SHA256, len(want[n]), sum)
			}
			WantBody(t, s, r.Body, want[n])
			n++
		}
		if n != len(want) {
			t.Errorf("unit %s has %d records, want %d", unit, n, len(want))
		}
	}
	return seen
}

// WantBody demands that a body has these bytes and no others.
func WantBody(t *testing.T, s store.Store, body string, want []byte) {
	t.Helper()
	r, err := s.OpenBody(t.Context(), Job, body)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = r.Close() }()
	if got, err := io.ReadAll(io.LimitReader(r, int64(len(want))+1)); err != nil || !bytes.Equal(got, want) {
		t.Errorf("body %s has %d bytes (error %v), want %d", body, len(got), err, len(want))
	}
}

// WantAcknowledged demands that what was acknowledged is among what was seen.
func WantAcknowledged(t *testing.T, seen map[int]bool, acked []int) {
	t.Helper()
	for _, i := range acked {
		if !seen[i] {
			t.Errorf("unit %d was acknowledged and is gone", i)
		}
	}
}

// WantFinished runs a child that is not killed and demands that it commits all units.
func (c Child) WantFinished(t *testing.T, units int) {
	t.Helper()
	if rest, died := c.Acknowledged(t); died || len(rest) != units {
		t.Errorf("the second run committed %d units, want %d", len(rest), units)
	}
}
