package s3store

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/minio/minio-go/v7"
)

// rollBack is how far back Sweep looks for units whose writer died between its account and its records. Workers sweep
// every hour, so that each unit is looked at by somebody; Verify looks at all.
const rollBack = 3 * time.Hour

// Sweep removes what dead workers left in a job, as far as it was last changed longer than olderThan ago by the server's
// clock and belongs to nothing alive in this Store: large bodies that were uploaded and not committed, uploads that were
// not completed, and bodies whose transfer was cut and that nobody holds. It writes the records of units whose writer
// died before it did. It returns how many things it removed. olderThan should exceed the longest life of a unit.
//
// It makes one call for each thousand objects and one for each thing it removes; more for each cut transfer.
func (s *Store) Sweep(ctx context.Context, job string, olderThan time.Duration) (removed int, err error) {
	if err := store.CheckName("job", job); err != nil {
		return 0, fmt.Errorf("sweep: %w", err)
	}
	now := s.now(ctx, s.keys.identity())
	sw := s.newSweep(job, now, olderThan)
	for _, step := range []func(context.Context) error{sw.objects, sw.probes, sw.parts, sw.uploads} {
		if err == nil {
			err = step(ctx)
		}
	}
	if err == nil {
		err = s.rollForward(ctx, job, now.Add(-rollBack))
	}
	if err != nil {
		return sw.removed, fmt.Errorf("sweep job %s: %w", job, err)
	}
	return sw.removed, nil
}

// now returns the server's time, which comes with an object.
func (s *base) now(ctx context.Context, key string) time.Time {
	if o, err := s.c.get(ctx, key, 4096); err == nil {
		return o.now
	}
	return time.Now() // a store without identity holds nothing; other errors come again at the next call
}

// sweep is one call of Sweep.
type sweep struct {
	s       *base
	job     string
	before  time.Time
	kept    map[string]bool // ids of uploads, and keys of objects, that parts refer to which stay; and states not understood
	removed int
}

func (s *base) newSweep(job string, now time.Time, olderThan time.Duration) *sweep {
	// The server's clock shows whole seconds.
	return &sweep{s: s, job: job, before: now.Add(time.Second - olderThan), kept: make(map[string]bool)}
}

func (sw *sweep) isOld(t time.Time) bool { return !t.After(sw.before) }

func (sw *sweep) remove(ctx context.Context, key string) error {
	err := sw.s.c.remove(ctx, key)
	if err == nil {
		sw.removed++
	}
	return err
}

// objects removes large bodies that wait for a commit that will not come.
func (sw *sweep) objects(ctx context.Context) error {
	folder := sw.s.keys.folder(sw.job, tmpFolder)
	for o, err := range sw.s.c.list(ctx, folder) {
		if err != nil {
			return err
		}
		if sw.isOld(o.LastModified) && !sw.s.isLive(stemOf(strings.TrimPrefix(o.Key, folder))) {
			if err := sw.remove(ctx, o.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// probes removes what a Check left that was cut short.
func (sw *sweep) probes(ctx context.Context) error {
	for o, err := range sw.s.c.list(ctx, sw.s.keys.probe("")) {
		if err != nil {
			return err
		}
		if sw.isOld(o.LastModified) {
			if err := sw.remove(ctx, o.Key); err != nil {
				return err
			}
		}
	}
	return nil
}

// parts drops what is kept of bodies that nobody went on with. The states come before what they refer to.
func (sw *sweep) parts(ctx context.Context) error {
	s := sw.s
	folder := s.keys.folder(sw.job, partsFolder)
	var others []string
	for o, err := range s.c.list(ctx, folder) {
		if err != nil {
			return err
		}
		request, isState := strings.CutSuffix(strings.TrimPrefix(o.Key, folder), partState)
		switch {
		case isState:
			if err := sw.part(ctx, o.Key, request, sw.isOld(o.LastModified)); err != nil {
				return err
			}
		case sw.isOld(o.LastModified):
			others = append(others, o.Key)
		}
	}
	for _, key := range others {
		if !sw.kept[key] && !sw.kept[stateOf(key)] && !s.isSending(key) {
			if err := sw.remove(ctx, key); err != nil {
				return err
			}
		}
	}
	return nil
}

// part drops one part, after having taken it, so that nobody else has it; or notes what it refers to.
func (sw *sweep) part(ctx context.Context, key, request string, old bool) error {
	s := sw.s
	h, o, err := s.readPart(ctx, key)
	switch {
	case isMissing(err):
		return nil
	case errors.Is(err, errDamaged): // by a newer program, perhaps
		sw.kept[key] = true // with all that may be its
		return nil
	case err != nil:
		return err
	}
	if old && (h.Holder == "" || o.now.Sub(o.modified) >= s.lease) {
		p := &part{s: s, ctx: ctx, job: sw.job, request: request, key: key, etag: o.etag, state: heldPart{V: partVersion, Holder: s.run}}
		if err := p.save(ctx); err == nil {
			s.removePart(ctx, h)
			return sw.remove(ctx, key)
		}
	}
	sw.kept[h.Upload], sw.kept[h.Key], sw.kept[h.Tail] = true, true, true
	return nil
}

// uploads aborts multipart uploads that nobody goes on with.
func (sw *sweep) uploads(ctx context.Context) error {
	for u, err := range sw.s.strays(ctx, sw.job, sw.kept) {
		if err != nil {
			return err
		}
		if !sw.isOld(u.Initiated) {
			continue
		}
		if err := sw.s.c.abort(ctx, u.Key, u.UploadID); err != nil {
			return err
		}
		sw.removed++
	}
	return nil
}

// strays yields the multipart uploads of a job that are neither under way here nor kept for a part.
func (s *base) strays(ctx context.Context, job string, kept map[string]bool) iter.Seq2[minio.ObjectMultipartInfo, error] {
	return func(yield func(minio.ObjectMultipartInfo, error) bool) {
		for u, err := range s.c.uploads(ctx, s.keys.body(job, "")) {
			if err == nil && (kept[u.UploadID] || kept[stateOf(u.Key)] || s.isSending(u.UploadID)) {
				continue
			}
			if !yield(u, err) || err != nil {
				return
			}
		}
	}
}

// rollForward writes the records of units that were committed since then and have none under records.
func (s *Store) rollForward(ctx context.Context, job string, since time.Time) error {
	for unit, err := range s.withoutRecords(ctx, job, since) {
		if err != nil {
			return err
		}
		a, err := s.readAccount(ctx, job, unit)
		if err != nil {
			return err
		}
		if a.Records > 0 && a.inside() {
			if err := s.putRecords(ctx, job, unit, a.recordsFile()); err != nil {
				return err
			}
		}
	}
	return nil
}

// withoutRecords yields the units whose account was written since then and that have nothing under records, because
// they have no record or because their writer died. Both listings come in nearly the same order and are read side by
// side, so that only the names of the moment are in memory.
func (s *Store) withoutRecords(ctx context.Context, job string, since time.Time) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		records, stop := iter.Pull2(s.names(ctx, s.keys.folder(job, recordsFolder), ".jsonl"))
		defer stop()
		accounts := s.keys.folder(job, accountsFolder)
		var missing []string
		early := make(map[string]bool) // records that were listed before their accounts
		for o, err := range s.c.list(ctx, accounts) {
			if err != nil {
				yield("", err)
				return
			}
			unit, ok := strings.CutSuffix(strings.TrimPrefix(o.Key, accounts), ".json")
			if !ok || store.CheckName("unit", unit) != nil {
				continue
			}
			found, err := advance(records, early, unit)
			if err != nil {
				yield("", err)
				return
			}
			if !found && !o.LastModified.Before(since) {
				missing = append(missing, unit)
			}
		}
		for _, unit := range missing {
			if !early[unit] && !yield(unit, nil) {
				return
			}
		}
	}
}

// advance reads names until it has met unit or one that comes after it, and reports whether it has met it.
func advance(next func() (string, error, bool), met map[string]bool, unit string) (bool, error) {
	for !met[unit] {
		name, err, ok := next()
		if err != nil || !ok {
			return false, err
		}
		met[name] = true
		if name > unit {
			break
		}
	}
	found := met[unit]
	delete(met, unit)
	return found, nil
}
