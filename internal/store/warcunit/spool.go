package warcunit

import (
	"bytes"
	"errors"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

const (
	// spillAt is what a spool keeps in memory at most.
	spillAt = 1 << 20
	// freeSize is what every spool may keep; more is asked of the budget, in steps of it.
	freeSize = 64 << 10
	// budgetSize is what all spools of a store together keep beyond freeSize each. It is what a crowd of large bodies at
	// once costs; a lone one has its megabyte.
	budgetSize = 24 << 20
)

// budget is memory that many share. The zero value is full.
type budget struct{ used atomic.Int64 }

func (b *budget) take(n int64) bool {
	if b.used.Add(n) <= budgetSize {
		return true
	}
	b.used.Add(-n)
	return false
}

func (b *budget) give(n int64) { b.used.Add(-n) }

// buffers are those that spools begin with.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, 16<<10); return &b }}

// spool keeps what is written in memory first, and in a temporary file when it grows. A write that fails leaves it as it
// was. It is used by one goroutine at a time.
type spool struct {
	s       *Workshop
	path    string // of the file, if there will be one
	unnamed bool   // whether the file loses its name at once
	flushed func(p []byte)

	mem  []byte
	held int64 // taken of the budget
	file *os.File
	size int64 // in file
}

// Size is how many bytes were written.
func (sp *spool) Size() int64 { return sp.size + int64(len(sp.mem)) }

// Write appends.
func (sp *spool) Write(p []byte) (int, error) {
	if sp.mem == nil {
		sp.mem = (*buffers.Get().(*[]byte))[:0]
	}
	if len(sp.mem)+len(p) > spillAt && len(sp.mem) > 0 {
		if err := sp.flush(); err != nil {
			return 0, err
		}
	}
	before := len(sp.mem)
	sp.mem = append(sp.mem, p...)
	if sp.fits() {
		return len(p), nil
	}
	if err := sp.flush(); err != nil {
		sp.mem = sp.mem[:before]
		return 0, err
	}
	return len(p), nil
}

// fits reports whether what is in memory may stay there.
func (sp *spool) fits() bool {
	n := int64(len(sp.mem))
	if n > spillAt {
		return false
	}
	need := (n - 1) / freeSize * freeSize
	if need <= sp.held {
		return true
	}
	if !sp.s.memory.take(need - sp.held) {
		return false
	}
	sp.held = need
	return true
}

// toFile moves what is in memory to the file, which it makes at first.
func (sp *spool) toFile() error {
	if sp.file != nil && len(sp.mem) == 0 {
		return nil
	}
	return sp.flush()
}

func (sp *spool) flush() error {
	if sp.file == nil {
		if err := sp.create(); err != nil {
			return disk.Trouble("create temporary file", sp.path, err)
		}
	}
	if err := sp.stream(func(w io.Writer) error { _, err := w.Write(sp.mem); return err }); err != nil {
		return err
	}
	if sp.flushed != nil {
		sp.flushed(sp.mem)
	}
	sp.mem = sp.mem[:0]
	return nil
}

// stream appends what do writes to the file, or nothing where it fails.
func (sp *spool) stream(do func(io.Writer) error) error {
	_, err := sp.file.Seek(sp.size, io.SeekStart)
	if err == nil {
		err = do(sp.file)
	}
	end := sp.size
	if err == nil {
		end, err = sp.file.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		return disk.Trouble("write", sp.path, errors.Join(err, sp.file.Truncate(sp.size)))
	}
	sp.size = end
	return nil
}

// create makes the file. Where an open file can lose its name it does, so that a crash leaves nothing of it.
func (sp *spool) create() error {
	f, err := sp.s.Create(sp.path)
	if err != nil {
		return err
	}
	sp.file = f
	if sp.unnamed && runtime.GOOS != "windows" {
		return os.Remove(sp.path)
	}
	return nil
}

// reader reads what was written, from a byte on.
func (sp *spool) reader(from int64) io.Reader {
	if sp.file == nil {
		return bytes.NewReader(sp.mem[from:])
	}
	return io.MultiReader(io.NewSectionReader(sp.file, from, sp.size-from), bytes.NewReader(sp.mem))
}

// drop forgets everything and gives back what it holds. It may be called again.
func (sp *spool) drop() error {
	var err error
	if sp.file != nil {
		_ = sp.file.Close() // nothing of it is needed
		if !sp.unnamed || runtime.GOOS == "windows" {
			err = disk.RemoveTmp(sp.path)
		}
	}
	sp.s.memory.give(sp.held)
	if cap(sp.mem) > 0 && cap(sp.mem) <= 2*freeSize {
		b := sp.mem[:0]
		buffers.Put(&b)
	}
	sp.mem, sp.file, sp.size, sp.held = nil, nil, 0, 0
	return err
}
