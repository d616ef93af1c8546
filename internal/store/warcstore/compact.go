package warcstore

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// mergeSize is how large merged files become unless Options say otherwise: the size that archives exchange.
const mergeSize = 1_000_000_000

// Compact merges the units of a job into files of about Options.MergeSize. The recipe, of each file:
//
//  1. Write aside: a warcinfo record and the units, byte for byte, one behind another; the sorted CDXJ of their captures;
//     the index that says where each unit begins. All of it is made durable, whatever Sync says, because what it replaces
//     was durable long ago.
//  2. Put CDXJ and file in place. link(2) takes no name that is taken.
//  3. Put the index in place: from here on the units are merged, and readers take them from the merged file.
//  4. Remove their own files.
//
// A crash before 3 leaves a file without index, which the next Compact gives one; after 3 it leaves units with a file of
// their own as well, which it removes. So nothing is lost and nothing is seen twice.
func (s *Store) Compact(ctx context.Context, job string) error {
	err := store.CheckName("job", job)
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = s.compact(ctx, job)
	}
	if err != nil {
		return fmt.Errorf("merge units of job %s: %w", job, err)
	}
	return nil
}

func (s *Store) compact(ctx context.Context, job string) error {
	if _, err := os.Stat(filepath.Join(s.dir, job)); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return s.locked(job, func() error {
		if err := s.finishMerges(ctx, job); err != nil {
			return err
		}
		if _, err := s.removeOrphans(ctx, job); err != nil {
			return err
		}
		names, err := s.unmerged(ctx, job)
		var damaged error
		for err == nil && len(names) > 0 {
			var bad error
			names, bad, err = s.mergeOne(ctx, job, names)
			damaged = errors.Join(damaged, bad)
		}
		return errors.Join(err, damaged)
	})
}

// locked calls do with the job's lock, or returns store.ErrBusy.
func (s *Store) locked(job string, do func() error) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.commits.Done()
	path := s.jobPath(job, mergeLock)
	lock, taken, err := disk.TryLock(path)
	if err != nil {
		return disk.Trouble("lock", path, err)
	}
	if !taken {
		return fmt.Errorf("%s is locked by another: %w", path, store.ErrBusy)
	}
	err = do()
	return errors.Join(err, lock.Close())
}

// unmerged lists the units that have a file of their own, sorted.
func (s *Store) unmerged(ctx context.Context, job string) ([]string, error) {
	var names []string
	for unit, err := range s.looseUnits(ctx, job) {
		if err != nil {
			return nil, err
		}
		names = append(names, unit)
	}
	slices.Sort(names)
	return names, nil
}

// removeOrphans removes the own files of units that were merged.
func (s *Store) removeOrphans(ctx context.Context, job string) (removed int, err error) {
	kind, err := s.kind(ctx)
	if err != nil {
		return 0, err
	}
	for unit, err := range s.looseUnits(ctx, job) {
		if err != nil {
			return removed, err
		}
		p, err := s.findMerged(ctx, job, unit)
		if err != nil {
			return removed, err
		}
		if p == nil {
			continue
		}
		if err := disk.RemoveTmp(s.unitPath(job, unit, kind)); err != nil {
			return removed, err
		}
		removed++
	}
	return removed, nil
}

// finishMerges gives an index to merged files that have none, and removes the CDXJ of those that never came.
func (s *Store) finishMerges(ctx context.Context, job string) error {
	err := s.removeLoneCDXJ(ctx, job)
	if err != nil {
		return err
	}
	lacking, err := s.withoutIndex(ctx, job)
	for _, path := range lacking {
		if err == nil {
			err = s.writeUnits(ctx, job, path)
		}
	}
	return err
}

func (s *Store) removeLoneCDXJ(ctx context.Context, job string) error {
	kind, err := s.kind(ctx)
	if err != nil {
		return err
	}
	folder := s.jobPath(job, mergedFolder)
	names, err := readNames(folder)
	for _, name := range names {
		stem, ok := strings.CutSuffix(name, cdxjExt)
		if _, found := slices.BinarySearch(names, stem+kind.Ext()); ok && !found && err == nil {
			err = disk.RemoveTmp(folder + sep + name)
		}
	}
	return err
}

// withoutIndex lists the merged files that have no index.
func (s *Store) withoutIndex(ctx context.Context, job string) ([]string, error) {
	kind, err := s.kind(ctx)
	if err != nil {
		return nil, err
	}
	folder := s.jobPath(job, mergedFolder)
	names, err := readNames(folder)
	var lacking []string
	for _, name := range names {
		stem, ok := strings.CutSuffix(name, kind.Ext())
		if _, found := slices.BinarySearch(names, stem+unitsExt); ok && !found {
			lacking = append(lacking, folder+sep+name)
		}
	}
	return lacking, err
}

// writeUnits writes the index of a merged file anew.
func (s *Store) writeUnits(ctx context.Context, job, path string) error {
	list, size, err := s.indexOf(ctx, path)
	if err != nil {
		return err
	}
	return s.putUnits(job, path, size, list)
}

// putUnits puts an index in place, durably.
func (s *Store) putUnits(job, path string, size int64, list []entry) error {
	index := stemPath(path) + unitsExt
	tmp := s.tmpPath(job, s.run+"~"+disk.RandomHex(4)+tmpMerge)
	data := encodeUnits(filepath.Base(path), size, list)
	err := s.folder.In(filepath.Dir(tmp), func() error { return disk.WriteFile(tmp, data) })
	if err == nil {
		err = disk.SyncFile(tmp)
	}
	if err == nil {
		err = disk.Rename(tmp, index)
	}
	if err == nil {
		err = disk.SyncFile(filepath.Dir(index))
	}
	if err != nil {
		_ = disk.RemoveTmp(tmp)
		return disk.Trouble("write index", index, err)
	}
	s.forget(index)
	return nil
}

// stemPath cuts the ending off the path of a merged file.
func stemPath(path string) string {
	return strings.TrimSuffix(strings.TrimSuffix(path, warc.Gzip.Ext()), warc.Zstd.Ext())
}

// merge is one merged file being written.
type merge struct {
	s         *Store
	job, name string // "JOB-00001.warc.gz"
	kind      warc.Compression
	stem      string // of temporary names
	out       *os.File
	size      int64
	list      []entry
	index     *sorter // lines of CDXJ
}

// mergeOne merges as many units as fit one file and returns the others. bad are the units that cannot be read and are left.
func (s *Store) mergeOne(ctx context.Context, job string, names []string) (rest []string, bad, err error) {
	stem, err := s.begin()
	if err != nil {
		return nil, nil, err
	}
	defer s.ended(stem)
	m := &merge{s: s, job: job, stem: stem}
	m.index = newSorter(s.tmpPath(job, stem))
	defer m.close()
	if err := m.create(ctx); err != nil {
		return nil, nil, err
	}
	limit := cmp.Or(s.o.MergeSize, mergeSize)
	for len(names) > 0 && (m.size < limit || len(m.list) == 0) {
		name := names[0]
		names = names[1:]
		damaged, err := m.add(ctx, name)
		if err != nil {
			return nil, bad, err
		}
		bad = errors.Join(bad, damaged)
	}
	if len(m.list) == 0 {
		return names, bad, nil
	}
	s.at("merged")
	if err := m.place(ctx); err != nil {
		return nil, bad, err
	}
	return names, bad, m.removeUnits(context.WithoutCancel(ctx)) // what is begun here is ended: it takes a moment
}

// create begins the file with a warcinfo record.
func (m *merge) create(ctx context.Context) (err error) {
	if m.kind, err = m.s.kind(ctx); err != nil {
		return err
	}
	if m.name, err = m.s.nextName(m.job, m.kind); err != nil {
		return err
	}
	path := m.tmp(tmpMerge)
	err = m.s.folder.In(filepath.Dir(path), func() (err error) {
		m.out, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		return err
	})
	if err != nil {
		return disk.Trouble("create", path, err)
	}
	info := m.kind.Append(nil, warcInfo(m.s.o.Software, m.job, m.name))
	if _, err := m.out.Write(info); err != nil {
		return disk.Trouble("write", path, err)
	}
	m.size = int64(len(info))
	return nil
}

// nextName returns the name of a job's next merged file.
func (s *Store) nextName(job string, kind warc.Compression) (string, error) {
	names, err := readNames(s.jobPath(job, mergedFolder))
	last := 0
	for _, name := range names {
		number, _, _ := strings.Cut(strings.TrimPrefix(name, job+"-"), ".")
		if n, err := strconv.Atoi(number); err == nil {
			last = max(last, n)
		}
	}
	return fmt.Sprintf("%s-%05d%s", job, last+1, kind.Ext()), err
}

// warcInfo returns a warcinfo record (section 6.2).
func warcInfo(software, job, name string) []byte {
	block := fmt.Appendf(nil, "software: %s\r\nformat: WARC File Format 1.1\r\n"+
		"conformsTo: http://iipc.github.io/warc-specifications/specifications/warc-format/warc-1.1/\r\nisPartOf: %s\r\n",
		cmp.Or(software, "fetchfleet"), job)
	h := &warc.Header{Type: warc.Info, ID: warc.NewID(), Date: time.Now(), Filename: name, BlockDigest: sha256.Sum256(block), ContentType: warc.Fields}
	return append(append(h.Append(nil, int64(len(block))), block...), warc.End...)
}

func (m *merge) tmp(ext string) string { return m.s.tmpPath(m.job, m.stem+ext) }

// add appends a unit. damaged says that it cannot be read: it stays where it is, for somebody to look at.
func (m *merge) add(ctx context.Context, name string) (damaged, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	path := m.s.unitPath(m.job, name, m.kind)
	if p, err := m.s.findMerged(ctx, m.job, name); err != nil {
		return nil, err
	} else if p != nil { // a late commit, which has lost and is about to be taken back
		return nil, disk.RemoveTmp(path)
	}
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) { // such a one, taken back
		return nil, nil
	}
	if err != nil {
		return nil, disk.Trouble("open", path, err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, disk.Trouble("stat", path, err)
	}
	a, mark, err := warcunit.ReadStored(f, m.kind, fi.Size())
	if err == nil && (mark.Whole != fi.Size() || a.Unit() != name) {
		err = fmt.Errorf("%w: it is unit %s, of %d bytes", warc.ErrDamaged, a.Unit(), mark.Whole)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err), nil
	}
	if n, err := io.Copy(m.out, f); err != nil || n != fi.Size() {
		return nil, disk.Trouble("merge", path, cmp.Or(err, io.ErrUnexpectedEOF))
	}
	m.list = append(m.list, entry{unit: name, base: m.size, size: fi.Size()})
	err = m.index.captures(a.Captures, m.size, m.name)
	m.size += fi.Size()
	return nil, err
}

// place is steps 1 to 3.
func (m *merge) place(ctx context.Context) error {
	folder := m.s.jobPath(m.job, mergedFolder)
	to := folder + sep + m.name
	cdxj := m.tmp("~cdxj" + tmpMerge)
	err := m.index.writeTo(ctx, cdxj)
	if err == nil {
		err = m.out.Sync()
	}
	m.s.at("durable merge")
	if err == nil {
		err = m.s.folder.In(folder, func() error { return disk.Rename(cdxj, stemPath(to)+cdxjExt) })
	}
	m.s.at("cdxj placed")
	if err == nil {
		err = os.Link(m.tmp(tmpMerge), to)
	}
	m.s.at("file placed")
	if err != nil {
		return disk.Trouble("put merged file in place", to, err)
	}
	if err := m.s.putUnits(m.job, to, m.size, m.list); err != nil {
		return err
	}
	m.s.at("index placed")
	return nil
}

// removeUnits is step 4.
func (m *merge) removeUnits(ctx context.Context) error {
	for i, e := range m.list {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := disk.RemoveTmp(m.s.unitPath(m.job, e.unit, m.kind)); err != nil {
			return err
		}
		if i == 0 {
			m.s.at("first unit removed")
		}
	}
	m.s.at("units removed")
	return nil
}

// close removes what was written aside.
func (m *merge) close() {
	if m.out != nil {
		_ = m.out.Close()
		_ = disk.RemoveTmp(m.tmp(tmpMerge))
	}
	_ = disk.RemoveTmp(m.tmp("~cdxj" + tmpMerge))
	m.index.close()
}

// infoLength returns the length of the warcinfo record that a merged file begins with.
func infoLength(f io.ReaderAt) (int64, error) {
	r := warc.NewReader(io.NewSectionReader(f, 0, 1<<20))
	defer r.Close()
	rec, err := r.Next()
	if err == nil && rec.Type() != warc.Info {
		err = fmt.Errorf("%w: it begins with a %.20q record", warc.ErrDamaged, rec.Type())
	}
	if err == nil {
		err = rec.Finish()
	}
	if err != nil {
		return 0, err
	}
	return rec.Length, nil
}
