package export

import (
	"bufio"
	"bytes"
	"cmp"
	"container/heap"
	"errors"
	"io"
	"os"
	"slices"
)

// sorterBytes is how much of an index is sorted in memory at once: about 300,000 lines. A job of a hundred million
// requests then has 400 runs, which is also how many files are open while they are merged.
const sorterBytes = 64 << 20

// sorter sorts lines of which there may be more than fit into memory: runs are sorted, put aside in files, and merged.
type sorter struct {
	dir   string // for what is put aside
	limit int    // bytes of a run; 0: sorterBytes
	lines [][]byte
	chunk []byte // in which the next lines are kept
	size  int
	runs  []*os.File
}

// add takes a line with its line break.
func (s *sorter) add(line []byte) error {
	s.keep(line)
	s.size += len(line)
	if s.size < cmp.Or(s.limit, sorterBytes) {
		return nil
	}
	f, err := os.CreateTemp(s.dir, ".index-*")
	if err != nil {
		return err
	}
	s.runs = append(s.runs, f)
	w := bufio.NewWriterSize(f, 256<<10)
	if err := s.flush(w); err != nil {
		return err
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err = f.Seek(0, io.SeekStart)
	return err
}

// keep copies a line: thousands share an allocation.
func (s *sorter) keep(line []byte) {
	if cap(s.chunk)-len(s.chunk) < len(line) {
		s.chunk = make([]byte, 0, max(1<<20, len(line)))
	}
	begin := len(s.chunk)
	s.chunk = append(s.chunk, line...)
	s.lines = append(s.lines, s.chunk[begin:])
}

// flush writes the lines in memory, sorted.
func (s *sorter) flush(w io.Writer) error {
	slices.SortFunc(s.lines, bytes.Compare)
	for _, line := range s.lines {
		if _, err := w.Write(line); err != nil {
			return err
		}
	}
	clear(s.lines)
	s.lines, s.chunk, s.size = s.lines[:0], nil, 0
	return nil
}

// writeTo writes all lines to a new file, sorted, and makes it durable.
func (s *sorter) writeTo(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	w := bufio.NewWriterSize(f, 256<<10)
	if err = s.merge(w); err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	s.abort()
	return errors.Join(err, f.Close())
}

func (s *sorter) merge(w io.Writer) error {
	if len(s.runs) == 0 {
		return s.flush(w)
	}
	var rest bytes.Buffer
	if err := s.flush(&rest); err != nil {
		return err
	}
	runs := []io.Reader{&rest}
	for _, run := range s.runs {
		runs = append(runs, run)
	}
	return MergeLines(w, runs...)
}

// MergeLines merges sorted lines, such as those of CDXJ indexes, into one sorted whole. Memory grows with the number of
// readers alone.
func MergeLines(w io.Writer, sorted ...io.Reader) error {
	var m merging
	for _, r := range sorted {
		if err := m.begin(bufio.NewReaderSize(r, 64<<10)); err != nil {
			return err
		}
	}
	heap.Init(&m)
	for len(m) > 0 {
		if _, err := w.Write(m[0].line); err != nil {
			return err
		}
		switch err := m[0].next(); {
		case err == io.EOF:
			heap.Pop(&m)
		case err != nil:
			return err
		default:
			heap.Fix(&m, 0)
		}
	}
	return nil
}

// abort removes what was put aside.
func (s *sorter) abort() {
	for _, run := range s.runs {
		_ = run.Close()
		_ = os.Remove(run.Name())
	}
	s.runs = nil
}

// run is a sorted run being read.
type run struct {
	r    *bufio.Reader
	line []byte
}

func (r *run) next() (err error) {
	r.line, err = r.r.ReadBytes('\n')
	return err
}

// merging is a heap of runs by their next lines.
type merging []*run

func (m *merging) begin(r *bufio.Reader) error {
	n := &run{r: r}
	err := n.next()
	if err == nil {
		*m = append(*m, n)
	}
	if err == io.EOF {
		return nil
	}
	return err
}

// Len implements heap.Interface.
func (m merging) Len() int { return len(m) }

// Less implements heap.Interface.
func (m merging) Less(i, j int) bool { return bytes.Compare(m[i].line, m[j].line) < 0 }

// Swap implements heap.Interface.
func (m merging) Swap(i, j int) { m[i], m[j] = m[j], m[i] }

// Push implements heap.Interface.
func (m *merging) Push(x any) { *m = append(*m, x.(*run)) }

// Pop implements heap.Interface.
func (m *merging) Pop() any {
	last := (*m)[len(*m)-1]
	*m = (*m)[:len(*m)-1]
	return last
}
