package disktest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// Lossy is a folder on a disk whose flushes can fail, to be given to what flushes in its place. It keeps the books of what
// would be there after a loss of power: what a flush that succeeded found, but for what a failed one has met. As in Linux,
// that is told once and lost, and no later flush brings it back.
type Lossy struct {
	t   testing.TB
	dir string

	mu      sync.Mutex
	fail    error
	files   []*seen
	durable map[string]*seen // names
	lost    map[string]*seen
}

// seen is a file that a flush has met. It is held open, so that no other file gets its number.
type seen struct {
	handle        *os.File
	info          os.FileInfo
	durable, lost bool
}

// NewLossy takes a folder, in which everything that is there lasts.
func NewLossy(t testing.TB, dir string) *Lossy {
	l := &Lossy{t: t, dir: dir, durable: map[string]*seen{}, lost: map[string]*seen{}}
	t.Cleanup(func() {
		for _, f := range l.files {
			_ = f.handle.Close()
		}
	})
	if err := l.Flush(nil); err != nil {
		t.Fatal(err)
	}
	return l
}

// FailNext makes the next flush fail.
func (l *Lossy) FailNext(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fail = err
}

// Flush is the flush of the whole folder, whatever the paths.
func (l *Lossy) Flush([]string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	err := l.fail
	l.fail = nil
	for path, f := range l.look() {
		name := l.lost[path] == f
		switch {
		case err != nil:
			f.lost = f.lost || !f.durable
			if l.durable[path] != f {
				l.lost[path] = f
			}
		case !f.lost && !name:
			f.durable = true
			l.durable[path] = f
		}
	}
	return err
}

// Cut is the loss of power: what does not last has no name any more, or no bytes.
func (l *Lossy) Cut() {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	for path, f := range l.look() {
		var err error
		switch {
		case strings.HasPrefix(path, openFiles):
		case l.durable[path] != f:
			err = os.Remove(path)
		case !f.durable:
			err = os.Truncate(path, 0)
		}
		if err != nil {
			l.t.Error(err)
		}
	}
}

// openFiles is where files are that have no name yet, where there are such.
const openFiles = "/proc/self/fd/"

// look returns the files that there are. The caller holds l.mu.
func (l *Lossy) look() map[string]*seen {
	now := make(map[string]*seen)
	err := filepath.WalkDir(l.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			if f := l.see(path); f != nil {
				now[path] = f
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	})
	if err != nil {
		l.t.Error(err)
	}
	for fd := range 1024 {
		path := openFiles + strconv.Itoa(fd)
		if to, err := os.Readlink(path); err == nil && strings.HasPrefix(to, l.dir) && strings.HasSuffix(to, " (deleted)") {
			if f := l.see(path); f != nil {
				now[path] = f
			}
		}
	}
	return now
}

// see returns the file of a name, nil if it is gone.
func (l *Lossy) see(path string) *seen {
	info, err := os.Stat(path)
	if err != nil {
		return nil
	}
	for _, f := range l.files {
		if os.SameFile(f.info, info) {
			return f
		}
	}
	handle, err := os.Open(path)
	if err != nil {
		return nil
	}
	if info, err = handle.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = handle.Close()
		return nil
	}
	f := &seen{handle: handle, info: info}
	l.files = append(l.files, f)
	return f
}
