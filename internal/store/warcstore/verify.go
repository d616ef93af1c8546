package warcstore

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// Kinds of findings.
const (
	temporaryKind = "temporary"
	orphanKind    = "orphan"
	indexKind     = "index"
	structureKind = warcunit.StructureKind
	missingKind   = "missing"
)

// verifyAge is how old a temporary file must be before a repair takes it for a dead worker's.
const verifyAge = time.Minute

// verifier is one pass over a job.
type verifier struct {
	s      *Store
	job    string
	kind   warc.Compression
	repair bool
	found  func(store.Finding)
}

// Verify reads every record of every unit of a job: that each is whole, has the digests it names, and lies where account,
// index and CDXJ say. With repair it writes indexes anew, removes the own files of units that were merged, and temporary
// files older than a minute; that excludes a Compact meanwhile, and store.ErrBusy says that there is one.
func (s *Store) Verify(ctx context.Context, job string, repair bool, found func(store.Finding)) error {
	err := store.CheckName("job", job)
	if err == nil {
		v := &verifier{s: s, job: job, repair: repair, found: found}
		if v.kind, err = s.kind(ctx); err == nil {
			err = v.run(ctx)
		}
	}
	if err != nil {
		return fmt.Errorf("verify job %s: %w", job, err)
	}
	return nil
}

func (v *verifier) run(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(v.s.dir, v.job)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if !v.repair {
		return v.all(ctx)
	}
	return v.s.locked(v.job, func() error { return v.all(ctx) })
}

// all looks at merged files first: what is found of the others rests on their indexes.
func (v *verifier) all(ctx context.Context) error {
	for _, part := range []func(context.Context) error{v.indexes, v.mergedUnits, v.looseUnits, v.parts, v.temporaries} {
		if err := part(ctx); err != nil {
			return err
		}
	}
	return nil
}

// report tells a finding; mend, if it is not nil, repairs it where that was asked for.
func (v *verifier) report(f store.Finding, mend func() error) error {
	if v.repair && mend != nil {
		if err := mend(); err != nil {
			return err
		}
		f.Mended = true
	}
	v.found(f)
	return nil
}

// indexes compares indexes with the merged files that they are of.
func (v *verifier) indexes(ctx context.Context) error {
	folder := v.s.jobPath(v.job, mergedFolder)
	names, err := readNames(folder)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(names))
	for _, name := range names {
		there[name] = true
	}
	for _, name := range names {
		path := folder + sep + name
		stem, isFile := strings.CutSuffix(name, v.kind.Ext())
		unitsStem, isUnits := strings.CutSuffix(name, unitsExt)
		cdxjStem, isCDXJ := strings.CutSuffix(name, cdxjExt)
		switch {
		case isFile:
			err = v.indexesOf(ctx, path, there[stem+unitsExt])
		case isUnits && !there[unitsStem+v.kind.Ext()]:
			err = v.report(store.Finding{Kind: missingKind, Where: path, What: "the merged file that it is the index of is not there"}, nil)
		case isCDXJ && !there[cdxjStem+v.kind.Ext()]: // it is placed before its file
			err = v.report(store.Finding{Kind: orphanKind, Where: path, Note: true,
				What: "the merged file that it is the index of is not there (yet): a merge is under way, or died"},
				func() error { return disk.RemoveTmp(path) })
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// allLoose reports whether every unit of a merged file has a file of its own still: then nothing needs the merged one.
func (v *verifier) allLoose(list []entry) bool {
	for _, e := range list {
		if _, err := os.Stat(v.s.unitPath(v.job, e.unit, v.kind)); err != nil {
			return false
		}
	}
	return true
}

func (v *verifier) indexesOf(ctx context.Context, path string, hasUnits bool) error {
	list, size, err := v.s.indexOf(ctx, path)
	if err != nil {
		return v.damaged(path, err)
	}
	index := stemPath(path) + unitsExt
	f := store.Finding{Kind: indexKind, Where: index}
	if !hasUnits { // it is placed after its file, and units are removed after it
		f.What, f.Note = "the index of "+filepath.Base(path)+" is missing", v.allLoose(list)
	} else if data, err := os.ReadFile(index); err != nil {
		return disk.Trouble("read", index, err)
	} else if !bytes.Equal(data, encodeUnits(filepath.Base(path), size, list)) {
		f.What = "it does not fit " + filepath.Base(path)
	}
	if f.What != "" {
		if err := v.report(f, func() error { return v.s.putUnits(v.job, path, size, list) }); err != nil {
			return err
		}
	}
	return v.cdxj(ctx, path, list)
}

// cdxj makes the CDXJ of a merged file anew and compares.
func (v *verifier) cdxj(ctx context.Context, path string, list []entry) error {
	stem, err := v.s.begin()
	if err != nil {
		return err
	}
	defer v.s.ended(stem)
	tmp := v.s.tmpPath(v.job, stem+tmpMerge)
	if !v.repair { // who only looks may not be able to write there
		dir, err := os.MkdirTemp("", "fetchfleet-verify-")
		if err != nil {
			return disk.Trouble("create", os.TempDir(), err)
		}
		defer func() { _ = os.RemoveAll(dir) }()
		tmp = filepath.Join(dir, "cdxj")
	}
	lines := newSorter(tmp)
	defer lines.close()
	defer func() { _ = disk.RemoveTmp(tmp) }()
	f, err := os.Open(path)
	if err != nil {
		return disk.Trouble("open", path, err)
	}
	defer func() { _ = f.Close() }()
	for _, e := range list {
		a, _, err := warcunit.ReadStored(f, v.kind, e.base+e.size)
		if err != nil {
			return v.damaged(path, err)
		}
		if err := lines.captures(a.Captures, e.base, filepath.Base(path)); err != nil {
			return err
		}
	}
	if v.repair {
		if err := v.s.folder.In(filepath.Dir(tmp), func() error { return lines.writeTo(ctx, tmp) }); err != nil {
			return err
		}
	} else if err := lines.writeTo(ctx, tmp); err != nil {
		return err
	}
	to := stemPath(path) + cdxjExt
	same, err := sameFiles(tmp, to)
	if err != nil || same {
		return err
	}
	return v.report(store.Finding{Kind: indexKind, Where: to, What: "it does not fit " + filepath.Base(path)},
		func() error { return disk.Rename(tmp, to) })
}

// sameFiles compares two files; one that is missing is another.
func sameFiles(a, b string) (bool, error) {
	fa, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer func() { _ = fa.Close() }()
	fb, err := os.Open(b)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { _ = fb.Close() }()
	bufA, bufB := make([]byte, 64<<10), make([]byte, 64<<10)
	for {
		n, errA := io.ReadFull(fa, bufA)
		m, errB := io.ReadFull(fb, bufB)
		if n != m || !bytes.Equal(bufA[:n], bufB[:m]) {
			return false, nil
		}
		if errA != nil || errB != nil {
			ended := errA == io.EOF || errA == io.ErrUnexpectedEOF
			return ended && errA == errB, nil
		}
	}
}

// mergedUnits reads every unit that was merged.
func (v *verifier) mergedUnits(ctx context.Context) error {
	files, err := v.s.mergedFiles(v.job)
	if err != nil { // told already
		return nil //nolint:nilerr // an index that cannot be read is a finding of indexes
	}
	for _, m := range files {
		f, err := os.Open(m.file)
		if errors.Is(err, os.ErrNotExist) {
			continue // told already
		}
		if err != nil {
			return disk.Trouble("open", m.file, err)
		}
		for e, err := range m.units(ctx) {
			if err == nil {
				err = v.unit(ctx, openedIn(f, v.kind, e.base, e.size, true), e.unit)
			}
			if err != nil {
				_ = f.Close()
				return err
			}
		}
		_ = f.Close()
	}
	return nil
}

// looseUnits reads every unit that has a file of its own.
func (v *verifier) looseUnits(ctx context.Context) error {
	for unit, err := range v.s.looseUnits(ctx, v.job) {
		if err != nil {
			return err
		}
		path := v.s.unitPath(v.job, unit, v.kind)
		if p, err := v.s.findMerged(ctx, v.job, unit); err == nil && p != nil {
			err := v.report(store.Finding{Kind: orphanKind, Where: path, What: "it was merged into " + filepath.Base(p.file) + ", by somebody who died; the next merge removes it", Note: true},
				func() error { return disk.RemoveTmp(path) })
			if err != nil {
				return err
			}
			continue
		}
		f, err := os.Open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // merged meanwhile
		}
		if err != nil {
			return disk.Trouble("open", path, err)
		}
		fi, err := f.Stat()
		if err == nil {
			err = v.unit(ctx, openedIn(f, v.kind, 0, fi.Size(), false), unit)
		}
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// unit reads one unit whole.
func (v *verifier) unit(ctx context.Context, o *opened, name string) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	where := o.Name()
	if o.merged {
		where += " (unit " + name + ")"
	}
	f, err := o.Verify(where, v.job, name)
	if err != nil || f == nil {
		return err
	}
	return v.report(*f, nil)
}

// damaged tells a finding from trouble with the store.
func (v *verifier) damaged(where string, err error) error {
	if errors.Is(err, errIndex) {
		return v.report(store.Finding{Kind: structureKind, Where: where, What: err.Error()}, nil)
	}
	f, err := warcunit.Damaged(where, err)
	if err != nil {
		return err
	}
	return v.report(*f, nil)
}

// parts notes bodies that wait for another attempt.
func (v *verifier) parts(ctx context.Context) error {
	n, size, err := v.s.parts(v.job).Count(ctx)
	if err != nil || n == 0 {
		return err
	}
	return v.report(store.Finding{Kind: temporaryKind, Where: v.s.jobPath(v.job, partsFolder), Note: true,
		What: fmt.Sprintf("bodies that are being fetched or wait for another attempt: %d, %d bytes so far", n, size)}, nil)
}

// temporaries tells of what is under tmp: it may be a worker's that lives.
func (v *verifier) temporaries(ctx context.Context) error {
	folder := v.s.jobPath(v.job, tmpFolder)
	for e, err := range disk.Entries(ctx, folder) {
		if err != nil {
			return err
		}
		f := store.Finding{Kind: temporaryKind, Where: folder + sep + e.Name(), What: "left by a worker that died, or being written", Note: true}
		mend := func() error { return disk.RemoveTmp(f.Where) }
		if !v.s.isStale(folder, e, time.Now().Add(-verifyAge)) {
			mend = nil
		}
		if err := v.report(f, mend); err != nil {
			return err
		}
	}
	return nil
}
