package warcstore

import (
	"bufio"
	"bytes"
	"container/heap"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"

	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// runSize is how many bytes of lines are sorted in memory at a time.
const runSize = 8 << 20

// sorter sorts lines of CDXJ bytewise, in runs on disk where they do not fit in memory.
type sorter struct {
	stem string // path that the names of runs begin with
	text []byte
	ends []int // of the lines in text
	runs []string
}

func newSorter(stem string) *sorter { return &sorter{stem: stem} }

// captures adds lines for the captures of a unit that begins at base in a file.
func (o *sorter) captures(list []warc.Capture, base int64, file string) error {
	for i := range list {
		o.text = warc.AppendCDXJ(o.text, &list[i], base, file)
		o.ends = append(o.ends, len(o.text))
		if len(o.text) >= runSize {
			if err := o.spill(); err != nil {
				return err
			}
		}
	}
	return nil
}

// sortedLines returns the lines in memory in order.
func (o *sorter) sortedLines() [][]byte {
	lines := make([][]byte, len(o.ends))
	from := 0
	for i, end := range o.ends {
		lines[i] = o.text[from:end]
		from = end
	}
	slices.SortFunc(lines, bytes.Compare)
	return lines
}

func (o *sorter) spill() error {
	path := o.stem + "~" + strconv.Itoa(len(o.runs)) + tmpMerge
	o.runs = append(o.runs, path)
	lines := o.sortedLines()
	err := o.create(path, func(w *bufio.Writer) error {
		for _, line := range lines {
			if _, err := w.Write(line); err != nil {
				return err
			}
		}
		return nil
	})
	o.text, o.ends = o.text[:0], o.ends[:0]
	return err
}

// create writes a file.
func (o *sorter) create(path string, write func(*bufio.Writer) error) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return disk.Trouble("create", path, err)
	}
	w := bufio.NewWriterSize(f, 64<<10)
	err = write(w)
	if err == nil {
		err = w.Flush()
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return disk.Trouble("write", path, err)
	}
	return nil
}

// writeTo writes all lines in order to a new file, durably.
func (o *sorter) writeTo(ctx context.Context, path string) error {
	return o.create(path, func(w *bufio.Writer) error {
		if len(o.runs) == 0 {
			for _, line := range o.sortedLines() {
				if _, err := w.Write(line); err != nil {
					return err
				}
			}
			return nil
		}
		if err := o.spill(); err != nil {
			return err
		}
		return o.mergeRuns(ctx, w)
	})
}

// run is one sorted file being read.
type run struct {
	r    *bufio.Reader
	line []byte
}

func (r *run) next() error {
	line, err := r.r.ReadBytes('\n')
	r.line = line
	return err
}

type runs []*run

// Len implements sort.Interface.
func (r runs) Len() int { return len(r) }

// Less implements sort.Interface.
func (r runs) Less(i, j int) bool { return bytes.Compare(r[i].line, r[j].line) < 0 }

// Swap implements sort.Interface.
func (r runs) Swap(i, j int) { r[i], r[j] = r[j], r[i] }

// Push implements heap.Interface.
func (r *runs) Push(x any) { *r = append(*r, x.(*run)) }

// Pop implements heap.Interface.
func (r *runs) Pop() any {
	last := (*r)[len(*r)-1]
	*r = (*r)[:len(*r)-1]
	return last
}

func (o *sorter) mergeRuns(ctx context.Context, w *bufio.Writer) error {
	var open runs
	for _, path := range o.runs {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer func() { _ = f.Close() }()
		r := &run{r: bufio.NewReaderSize(f, 64<<10)}
		if err := r.next(); err == nil {
			open = append(open, r)
		} else if err != io.EOF {
			return err
		}
	}
	heap.Init(&open)
	for len(open) > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := w.Write(open[0].line); err != nil {
			return err
		}
		switch err := open[0].next(); err {
		case nil:
			heap.Fix(&open, 0)
		case io.EOF:
			heap.Pop(&open)
		default:
			return err
		}
	}
	return nil
}

// close removes the runs.
func (o *sorter) close() {
	for _, path := range o.runs {
		_ = disk.RemoveTmp(path)
	}
}
