package s3store

import (
	"bytes"
	"context"
	"crypto/md5" //nolint:gosec // it is what an ETag may be, and guards against nothing
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Verify reports what is not as it should be in a job: accounts that cannot be read, records objects that are missing,
// superfluous or not those of their account, bodies that no record refers to, and what was left behind. With repair it
// writes records objects anew from their accounts, and removes what was left behind; bodies that were cut stay, and so
// do those that no record refers to. Repair is for a job at which nobody works.
//
// It makes one call for each unit and one for each thousand objects, and keeps eight bytes in memory for each body.
func (s *Store) Verify(ctx context.Context, job string, repair bool, found func(store.Finding)) error {
	if err := store.CheckName("job", job); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	v := &verifier{s: s, job: job, repair: repair, found: found}
	for _, step := range []func(context.Context) error{v.units, v.bodies, v.temporaries, v.parts, v.uploads} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("verify job %s: %w", job, err)
		}
	}
	return nil
}

// verifier is one call of Verify.
type verifier struct {
	s       *Store
	job     string
	repair  bool
	found   func(store.Finding)
	digests []uint64        // the beginnings of the digests of the bodies that records refer to
	kept    map[string]bool // uploads and objects of parts
}

// mended calls mend if repair is wanted, and reports whether that succeeded.
func (v *verifier) mended(mend func() error) (bool, error) {
	if !v.repair {
		return false, nil
	}
	err := mend()
	return err == nil, err
}

// recordsObject is what a listing says of one.
type recordsObject struct {
	etag string
	size int64
}

// units reads every account and holds the records objects against them.
func (v *verifier) units(ctx context.Context) error {
	objects := make(map[string]recordsObject)
	folder := v.s.keys.folder(v.job, recordsFolder)
	for o, err := range v.s.c.list(ctx, folder) {
		if err != nil {
			return err
		}
		unit, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, folder), ".jsonl")
		if !ok || store.CheckName("unit", unit) != nil {
			v.found(store.Finding{Kind: "orphan", Where: o.Key, What: "is of no unit"})
			continue
		}
		objects[unit] = recordsObject{etag: strings.Trim(o.ETag, `"`), size: o.Size}
	}
	for unit, err := range v.s.Units(ctx, v.job) {
		if err != nil {
			return err
		}
		o, there := objects[unit]
		delete(objects, unit)
		if err := v.unit(ctx, unit, o, there); err != nil {
			return err
		}
	}
	for _, unit := range slices.Sorted(maps.Keys(objects)) {
		v.found(store.Finding{Kind: "orphan", Where: v.s.keys.records(v.job, unit), What: "has no account: the unit does not exist"})
	}
	return nil
}

// unit checks one unit.
func (v *verifier) unit(ctx context.Context, unit string, o recordsObject, there bool) error {
	key := v.s.keys.account(v.job, unit)
	account, err := v.s.c.get(ctx, key, maxAccount)
	if isMissing(err) {
		return nil // removed by hand meanwhile
	}
	if err != nil {
		return err
	}
	a, err := decodeAccount(key, account.data)
	if err != nil {
		return v.unread("torn", key, err)
	}
	if a.Job != v.job || a.Unit() != unit {
		v.found(store.Finding{Kind: "structure", Where: key, What: fmt.Sprintf("is the account of unit %s of job %s", a.Unit(), a.Job)})
	}
	if a.inside() {
		err = v.compare(ctx, unit, a, o, there)
	} else {
		a.Lines, err = v.s.lines(ctx, v.job, unit)
		if err != nil {
			return v.unread("missing", v.s.keys.records(v.job, unit), err)
		}
	}
	v.note(a.Lines)
	return err
}

// unread reports an object that is gone or not understood. Other errors are the store's trouble.
func (v *verifier) unread(kind, where string, err error) error {
	if !isMissing(err) && !errors.Is(err, errDamaged) {
		return err
	}
	v.found(store.Finding{Kind: kind, Where: where, What: err.Error()})
	return nil
}

// compare holds a records object against its account.
func (v *verifier) compare(ctx context.Context, unit string, a *storedAccount, o recordsObject, there bool) error {
	want, key := a.recordsFile(), v.s.keys.records(v.job, unit)
	if !there && len(want) == 0 {
		return nil
	}
	same, err := v.same(ctx, key, o, there, want)
	if same || err != nil {
		return err
	}
	f := store.Finding{Kind: "index", Where: key, What: "is not what the account holds"}
	mend := func() error { return v.s.putRecords(ctx, v.job, unit, want) }
	switch {
	case len(want) == 0:
		f.What = "is there, though the unit has no records"
		mend = func() error { return v.s.c.remove(ctx, key) }
	case !there: // its writer died; the account has them
		f.What, f.Note = "is not there yet; the account holds the records", true
	}
	f.Mended, err = v.mended(mend)
	v.found(f)
	return err
}

// same reports whether an object has these bytes. The listing tells, where an ETag is the object's MD5; else it is read.
func (v *verifier) same(ctx context.Context, key string, o recordsObject, there bool, want []byte) (bool, error) {
	if !there || o.size != int64(len(want)) {
		return false, nil
	}
	sum := md5.Sum(want) //nolint:gosec // see above
	if o.etag == hex.EncodeToString(sum[:]) {
		return true, nil
	}
	have, err := v.s.c.get(ctx, key, maxAccount)
	if isMissing(err) {
		return false, nil
	}
	return bytes.Equal(have.data, want), err
}

// note notes the bodies that records of this job refer to.
func (v *verifier) note(lines []json.RawMessage) {
	for _, line := range lines {
		var r struct {
			Job     string `json:"job"`
			Body    string `json:"body"`
			BodyJob string `json:"body_job"`
		}
		if json.Unmarshal(line, &r) != nil || r.Body == "" || r.BodyJob != "" && r.BodyJob != v.job {
			continue
		}
		if d, ok := digestOf(r.Body); ok {
			v.digests = append(v.digests, d)
		}
	}
}

// digestOf returns the first eight bytes of the digest that names a body.
func digestOf(body string) (uint64, bool) {
	name, _, _ := strings.Cut(path.Base(body), ".")
	sum, err := hex.DecodeString(name)
	if err != nil || len(sum) < 8 {
		return 0, false
	}
	return binary.BigEndian.Uint64(sum), true
}

// bodies notes those that no record refers to. Whether those that records refer to are there and sound is checked by
// whoever reads them.
func (v *verifier) bodies(ctx context.Context) error {
	slices.Sort(v.digests)
	v.digests = slices.Compact(v.digests)
	for o, err := range v.s.c.list(ctx, v.s.keys.folder(v.job, bodiesFolder)) {
		if err != nil {
			return err
		}
		d, ok := digestOf(o.Key)
		if _, referred := slices.BinarySearch(v.digests, d); !ok || !referred {
			v.found(store.Finding{Kind: "orphan", Where: o.Key, What: "no record of this job refers to it", Note: true})
		}
	}
	return nil
}

// temporaries reports large bodies that wait for a commit.
func (v *verifier) temporaries(ctx context.Context) error {
	folder := v.s.keys.folder(v.job, tmpFolder)
	for o, err := range v.s.c.list(ctx, folder) {
		if err != nil {
			return err
		}
		if v.s.isLive(stemOf(strings.TrimPrefix(o.Key, folder))) {
			continue
		}
		if err := v.leftover(o.Key, "a body of a unit that was not committed", func() error { return v.s.c.remove(ctx, o.Key) }); err != nil {
			return err
		}
	}
	return nil
}

func (v *verifier) leftover(where, what string, mend func() error) error {
	mended, err := v.mended(mend)
	v.found(store.Finding{Kind: "temporary", Where: where, What: what, Note: true, Mended: mended})
	return err
}

// parts reports the beginnings of bodies whose transfer was cut. They stay.
func (v *verifier) parts(ctx context.Context) error { return v.cutTransfers(ctx, &v.s.base) }

func (v *verifier) cutTransfers(ctx context.Context, s *base) error {
	folder := s.keys.folder(v.job, partsFolder)
	v.kept = make(map[string]bool)
	var others []string
	for o, err := range s.c.list(ctx, folder) {
		if err != nil {
			return err
		}
		if !strings.HasSuffix(o.Key, partState) {
			others = append(others, o.Key)
			continue
		}
		h, _, err := s.readPart(ctx, o.Key)
		if err != nil {
			if err := v.unread("torn", o.Key, err); err != nil {
				return err
			}
			v.kept[o.Key] = true // with all that may be its
			continue
		}
		v.kept[h.Upload], v.kept[h.Key], v.kept[h.Tail] = true, true, true
		v.found(store.Finding{Kind: "temporary", Where: o.Key, Note: true,
			What: fmt.Sprintf("%d of %d bytes of a body whose transfer was cut", h.size(), h.Note.Length)})
	}
	for _, key := range others {
		if v.kept[key] || v.kept[stateOf(key)] || s.isSending(key) {
			continue
		}
		if err := v.leftover(key, "bytes of a transfer of which nothing else is known", func() error { return s.c.remove(ctx, key) }); err != nil {
			return err
		}
	}
	return nil
}

// uploads reports multipart uploads that nobody goes on with. They cost money and show in no listing.
func (v *verifier) uploads(ctx context.Context) error { return v.strayUploads(ctx, &v.s.base) }

func (v *verifier) strayUploads(ctx context.Context, s *base) error {
	for u, err := range s.strays(ctx, v.job, v.kept) {
		if err != nil {
			return err
		}
		if err := v.leftover(u.Key, "an upload that was not completed", func() error { return s.c.abort(ctx, u.Key, u.UploadID) }); err != nil {
			return err
		}
	}
	return nil
}
