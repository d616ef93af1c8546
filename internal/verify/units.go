package verify

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// key names a thing in 16 bytes.
type key [16]byte

// keyOf is the digest of texts; where it begins and ends matters to none of them.
func (v *run) keyOf(n int64, texts ...string) key {
	h := sha256.New()
	var numbers [16]byte
	binary.LittleEndian.PutUint64(numbers[:8], v.seed)
	binary.LittleEndian.PutUint64(numbers[8:], uint64(n))
	h.Write(numbers[:])
	for _, text := range texts {
		_, _ = io.WriteString(h, text) // a hash takes everything
		h.Write([]byte{0})
	}
	return key(h.Sum(nil)[:16])
}

// walk reads every unit. The bodies of a unit are handed on after its records were read, so that no reader waits for
// what the walk holds open.
func (v *run) walk(ctx context.Context, refs chan<- bodyRef) error {
	for name, err := range v.store.Units(ctx, v.job) {
		if err != nil {
			return err
		}
		bodies, err := v.unit(ctx, name)
		if err != nil {
			return err
		}
		for _, b := range bodies {
			select {
			case refs <- b:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
	}
	return nil
}

// unit checks an account and its records, and returns the bodies to be read for them.
func (v *run) unit(ctx context.Context, name string) ([]bodyRef, error) {
	v.units.Add(1)
	a, err := v.store.Account(ctx, v.job, name)
	if err != nil {
		return nil, v.failed(ctx, "unit "+name, err, &v.unitsInARow)
	}
	u := &unit{run: v, name: name, account: a, want: make(map[string]*store.Entry, len(a.Entries))}
	u.entries()
	for r, err := range v.store.Records(ctx, v.job, name) {
		if err != nil {
			// What follows the damage is missing because of it, and is not named one by one.
			return u.bodies, v.failed(ctx, "unit "+name, fmt.Errorf("%w (%d records could be read, the account names %d)", err, u.read, len(u.want)), &v.unitsInARow)
		}
		v.records.Add(1)
		u.read++
		u.record(r)
	}
	for id := range u.want {
		if !u.has[id] {
			u.wrong("missing", "the account names request %s as recorded, but its record is not there", id)
		}
	}
	v.unitsInARow.Store(0)
	return u.bodies, nil
}

// unit is a unit being checked.
type unit struct {
	*run
	name    string
	account *store.Account
	want    map[string]*store.Entry // those recorded, by request
	has     map[string]bool         // requests whose record was seen
	read    int
	bodies  []bodyRef
}

func (u *unit) wrong(kind, format string, args ...any) {
	u.found(store.Finding{Kind: kind, Where: "unit " + u.name, What: fmt.Sprintf(format, args...)})
}

// entries checks that the account is of its unit, and notes what should be recorded.
func (u *unit) entries() {
	u.has = make(map[string]bool, len(u.account.Entries))
	if a := u.account; a.Job != u.job || a.Unit() != u.name {
		u.wrong("structure", "its account is of unit %s of job %s", a.Unit(), a.Job)
	}
	named := make(map[string]bool, len(u.account.Entries))
	for i, e := range u.account.Entries {
		if named[e.ID] {
			u.wrong("structure", "the account names request %s twice", e.ID)
		}
		named[e.ID] = true
		switch e.Fate {
		case store.Recorded:
			u.want[e.ID] = &u.account.Entries[i]
		case store.ToRetry, store.HandedBack:
		default:
			u.wrong("structure", "the account says %q of request %s: no such fate is known", e.Fate, e.ID)
		}
	}
}

// record checks one record against its account and the records before it.
func (u *unit) record(r *store.Record) {
	u.once(r)
	e := u.want[r.ID]
	if e == nil {
		u.wrong("structure", "request %s is recorded, but not in the account", r.ID)
	} else if e.Outcome != r.Outcome || e.Bytes != r.NewBytes() {
		u.wrong("structure", "request %s: its record says %s and %d bytes, the account %s and %d", r.ID, r.Outcome, r.NewBytes(), e.Outcome, e.Bytes)
	}
	if a := u.account; r.Job != u.job || r.Batch != a.Batch || r.Generation != a.Generation {
		u.wrong("structure", "request %s: its record is of batch %s, generation %d, job %s", r.ID, r.Batch, r.Generation, r.Job)
	}
	u.body(r)
}

// once finds a second record of a request in one generation, in this unit or in another.
func (u *unit) once(r *store.Record) {
	k := u.keyOf(int64(r.Generation), "record", r.ID)
	if _, before := u.recorded[k]; before {
		where := "the other is in another unit"
		if u.has[r.ID] {
			where = "both are in this unit"
		}
		u.wrong("structure", "request %s has two records of generation %d: %s", r.ID, r.Generation, where)
	}
	u.recorded[k] = struct{}{}
	u.has[r.ID] = true
}

// emptyDigest is the SHA-256 of nothing.
const emptyDigest = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

// body notes the body of a record to be read, unless it was or is not to be.
func (u *unit) body(r *store.Record) {
	if r.Body == "" {
		switch {
		case r.Bytes > 0:
			u.notKept.Add(1)
		case r.SHA256 != "" && r.SHA256 != emptyDigest:
			u.wrong("digest", "request %s: its record has no bytes and the digest %s of some", r.ID, r.SHA256)
		}
		return
	}
	b := bodyRef{job: r.BodyOf(), body: r.Body, bytes: r.Bytes, sha256: r.SHA256, request: r.ID, unit: u.name}
	k := u.keyOf(b.bytes, "body", b.job, b.body, b.sha256)
	if !u.Bodies.takes(k) {
		u.unread.Add(1)
		return
	}
	if u.met.add(k) {
		u.bodies = append(u.bodies, b)
	}
}
