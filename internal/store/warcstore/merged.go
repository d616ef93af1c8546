package warcstore

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// The endings of what lies beside a merged file, and what an index of units begins with.
const (
	unitsExt  = ".units"
	cdxjExt   = ".cdxj"
	unitsForm = "fetchfleet-units" // then version, name and size of the file, number of units
)

// unitsVersion is the version of the unit index that this code writes, and the newest that it reads.
const unitsVersion = 1

// every is how many lines of an index lie between two that are kept in memory: a look-up reads about 3 KiB.
const every = 64

// entry is one line of an index: where a unit lies in its merged file. Lines are sorted by unit.
type entry struct {
	unit       string
	base, size int64
}

func (e entry) append(b []byte) []byte {
	b = append(append(b, e.unit...), ' ')
	b = append(strconv.AppendInt(b, e.base, 10), ' ')
	return append(strconv.AppendInt(b, e.size, 10), '\n')
}

func parseEntry(line []byte) (e entry, ok bool) {
	f := strings.Fields(string(line))
	if len(f) != 3 {
		return e, false
	}
	var err1, err2 error
	e.unit = f[0]
	e.base, err1 = strconv.ParseInt(f[1], 10, 64)
	e.size, err2 = strconv.ParseInt(f[2], 10, 64)
	return e, err1 == nil && err2 == nil && e.base >= 0 && e.size > 0
}

// mergedFile is a merged file by its index, which never changes once it is there.
type mergedFile struct {
	index string // path of the index
	file  string // path of the merged file
	size  int64  // of the merged file
	count int    // units
	first int64  // where lines begin in the index
	end   int64  // of the index
	marks []mark // every 64th line
	last  string // the last unit: files of one merge hold ranges that do not overlap, and most are passed over by it
}

type mark struct {
	unit   string
	offset int64
}

// place is where a merged unit lies.
type place struct {
	file       string
	base, size int64
}

// merges keeps the indexes that were read, by path.
type merges struct {
	mu    sync.Mutex
	files map[string]*mergedFile
}

// maxMerges is how many indexes are kept in memory: each is about 1 % of the index it is of.
const maxMerges = 4096

// mergedFiles lists the merged files of a job, by name. It looks at the folder each time: a job that was never merged
// costs one failing open(2).
func (s *Store) mergedFiles(job string) ([]*mergedFile, error) {
	folder := s.jobPath(job, mergedFolder)
	names, err := readNames(folder)
	if err != nil || len(names) == 0 {
		return nil, err
	}
	s.merged.mu.Lock()
	defer s.merged.mu.Unlock()
	if s.merged.files == nil || len(s.merged.files) > maxMerges {
		s.merged.files = make(map[string]*mergedFile)
	}
	var files []*mergedFile
	for _, name := range names {
		if !strings.HasSuffix(name, unitsExt) {
			continue
		}
		path := folder + sep + name
		f := s.merged.files[path]
		if f == nil {
			if f, err = loadUnits(path); err != nil {
				return nil, fmt.Errorf("%s: %w: repair it with fleet verify --repair", path, err)
			}
			s.merged.files[path] = f
		}
		files = append(files, f)
	}
	return files, nil
}

// readNames lists a folder, sorted. A folder that is missing is empty.
func readNames(folder string) ([]string, error) {
	f, err := os.Open(folder)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, disk.Trouble("open", folder, err)
	}
	defer func() { _ = f.Close() }()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, disk.Trouble("read", folder, err)
	}
	slices.Sort(names)
	return names, nil
}

// forget drops what is remembered of an index that is written anew.
func (s *Store) forget(index string) {
	s.merged.mu.Lock()
	defer s.merged.mu.Unlock()
	delete(s.merged.files, index)
}

// findMerged returns where a unit lies that was merged, or nil.
func (s *Store) findMerged(ctx context.Context, job, unit string) (*place, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	files, err := s.mergedFiles(job)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		e, ok, err := f.find(unit)
		if err != nil {
			return nil, disk.Trouble("read", f.index, err)
		}
		if ok {
			return &place{file: f.file, base: e.base, size: e.size}, nil
		}
	}
	return nil, nil
}

var errIndex = errors.New("the index of units is damaged")

// loadUnits reads an index once, for its marks.
func loadUnits(path string) (*mergedFile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r := bufio.NewReaderSize(f, 64<<10)
	m := &mergedFile{index: path}
	head, err := r.ReadString('\n')
	if err != nil {
		return nil, errIndex
	}
	fields := strings.Fields(head)
	if len(fields) != 5 || fields[0] != unitsForm {
		return nil, errIndex
	}
	if v, err := strconv.Atoi(fields[1]); err != nil || v > unitsVersion {
		return nil, fmt.Errorf("the index of units has version %s, this program knows %d: use a newer one", fields[1], unitsVersion)
	}
	m.file = filepath.Join(filepath.Dir(path), filepath.Base(fields[2]))
	var err1, err2 error
	m.size, err1 = strconv.ParseInt(fields[3], 10, 64)
	m.count, err2 = strconv.Atoi(fields[4])
	m.first = int64(len(head))
	m.end = m.first
	if err1 != nil || err2 != nil {
		return nil, errIndex
	}
	return m, m.loadMarks(r)
}

func (m *mergedFile) loadMarks(r *bufio.Reader) error {
	last := ""
	for n := 0; ; n++ {
		line, err := r.ReadSlice('\n')
		if err == io.EOF && len(line) == 0 && n == m.count {
			m.last = last
			return nil
		}
		if err != nil {
			return errIndex
		}
		name, _, _ := bytes.Cut(line, []byte(" "))
		if string(name) <= last && n > 0 {
			return errIndex
		}
		last = string(name)
		if n%every == 0 {
			m.marks = append(m.marks, mark{unit: last, offset: m.end})
		}
		m.end += int64(len(line))
	}
}

// find looks a unit up.
func (m *mergedFile) find(unit string) (entry, bool, error) {
	i, found := slices.BinarySearchFunc(m.marks, unit, func(k mark, unit string) int { return strings.Compare(k.unit, unit) })
	if !found {
		i--
	}
	if i < 0 || unit > m.last {
		return entry{}, false, nil
	}
	end := m.end
	if i+1 < len(m.marks) {
		end = m.marks[i+1].offset
	}
	lines := make([]byte, end-m.marks[i].offset)
	f, err := os.Open(m.index)
	if err != nil {
		return entry{}, false, err
	}
	defer func() { _ = f.Close() }()
	if _, err := f.ReadAt(lines, m.marks[i].offset); err != nil {
		return entry{}, false, err
	}
	for line := range bytes.Lines(lines) {
		e, ok := parseEntry(line)
		if !ok {
			return entry{}, false, errIndex
		}
		if e.unit == unit {
			return e, true, nil
		}
	}
	return entry{}, false, nil
}

// units yields every entry of the index.
func (m *mergedFile) units(ctx context.Context) iter.Seq2[entry, error] {
	return func(yield func(entry, error) bool) {
		f, err := os.Open(m.index)
		if err != nil {
			yield(entry{}, disk.Trouble("open", m.index, err))
			return
		}
		defer func() { _ = f.Close() }()
		lines := bufio.NewScanner(io.NewSectionReader(f, m.first, m.end-m.first))
		for lines.Scan() {
			e, ok := parseEntry(lines.Bytes())
			if err = ctx.Err(); err == nil && !ok {
				err = fmt.Errorf("%s: %w", m.index, errIndex)
			}
			if !yield(e, err) || err != nil {
				return
			}
		}
		if err := lines.Err(); err != nil {
			yield(entry{}, disk.Trouble("read", m.index, err))
		}
	}
}

// indexOf returns what the index of a merged file should be, from the file: units are found from the last one, by their
// marks, down to the warcinfo record.
func (s *Store) indexOf(ctx context.Context, path string) ([]entry, int64, error) {
	kind, err := s.kind(ctx)
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, disk.Trouble("open", path, err)
	}
	defer func() { _ = f.Close() }()
	fi, err := f.Stat()
	if err != nil {
		return nil, 0, disk.Trouble("stat", path, err)
	}
	info, err := infoLength(f)
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	var list []entry
	for end := fi.Size(); end > info; {
		if err := ctx.Err(); err != nil {
			return nil, 0, err
		}
		a, m, err := warcunit.ReadStored(f, kind, end)
		if err == nil && store.CheckName("unit", a.Unit()) != nil {
			err = errIndex
		}
		if err != nil {
			return nil, 0, fmt.Errorf("%s: unit that ends at %d: %w", path, end, err)
		}
		end -= m.Whole
		list = append(list, entry{unit: a.Unit(), base: end, size: m.Whole})
	}
	slices.SortFunc(list, func(a, b entry) int { return strings.Compare(a.unit, b.unit) })
	return list, fi.Size(), nil
}

// encodeUnits returns an index of units.
func encodeUnits(file string, size int64, list []entry) []byte {
	b := fmt.Appendf(make([]byte, 0, 64*(len(list)+1)), "%s %d %s %d %d\n", unitsForm, unitsVersion, file, size, len(list))
	for _, e := range list {
		b = e.append(b)
	}
	return b
}
