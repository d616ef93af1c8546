package rules

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxFile is the largest file read, in bytes: a million rules and more.
	maxFile = 64 << 20
	// young is the age below which a file may still change without a trace: some file systems keep times in steps of
	// up to 2 s.
	young = 2 * time.Second
	// defaultInterval is how often Watch looks, unless told otherwise.
	defaultInterval = 2 * time.Second
)

type digest = [sha256.Size]byte

// File is a Table that follows its file. A nil File has no rules.
type File struct {
	path  string
	warn  func(error)
	table atomic.Pointer[Table]

	mu      sync.Mutex  // held by one check at a time
	seen    fs.FileInfo // of the file read last
	settled bool        // seen can be trusted: what is written from now on shows in it
	latest  digest      // of the text read last
	judged  digest      // of the version judged last, right or wrong
	trouble string      // why the file could not be read, as told; "" when it could
}

// Open reads the rules of path. It fails if the file cannot be read or is wrong. Later versions that are wrong are
// reported through warn, which may be nil, is called from Watch's goroutine, and hears of every version once.
func Open(path string, warn func(error)) (*File, error) {
	f := &File{path: path, warn: warn}
	info, data, err := read(path)
	if err != nil {
		return nil, err
	}
	table, err := Parse(path, bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	f.note(info, data)
	f.judged = f.latest
	f.table.Store(table)
	return f, nil
}

// For returns what holds for host now. See Table.For.
func (f *File) For(host string) Rule { return f.Table().For(host) }

// Table returns the rules in force; it is nil for a nil File.
func (f *File) Table() *Table {
	if f == nil {
		return nil
	}
	return f.table.Load()
}

// Watch looks at the file every interval (0: 2 s) and puts a new version in force, until ctx ends: at the next look a file
// renamed over the old one, a look later one written in place. While the file is missing or wrong, the version before stays
// in force. What was no regular file when opened, a pipe, is not looked at again.
func (f *File) Watch(ctx context.Context, interval time.Duration) {
	if interval <= 0 {
		interval = defaultInterval
	}
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			f.check()
		}
	}
}

var errNotRegular = errors.New("not a regular file any more")

// check puts a new version of the file in force, if there is one and it is right.
func (f *File) check() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.seen.Mode().IsRegular() {
		return // a pipe gives its rules once
	}
	info, err := os.Stat(f.path)
	if err == nil && !info.Mode().IsRegular() {
		err = &fs.PathError{Op: "read", Path: f.path, Err: errNotRegular}
	}
	if err != nil {
		f.report(err)
		return
	}
	if f.unchanged(info) {
		return
	}
	info, data, err := read(f.path)
	if err != nil {
		f.report(err)
		return
	}
	f.trouble = ""
	if f.note(info, data) {
		f.judge(data)
	}
}

// judge puts data in force if it is right.
func (f *File) judge(data []byte) {
	f.judged = f.latest
	table, err := Parse(f.path, bytes.NewReader(data))
	if err != nil {
		f.tell(err)
		return
	}
	f.table.Store(table)
}

func (f *File) unchanged(info fs.FileInfo) bool {
	return f.settled && f.trouble == "" && os.SameFile(info, f.seen) &&
		info.Size() == f.seen.Size() && info.ModTime().Equal(f.seen.ModTime())
}

// note remembers what has been read, and reports whether it is a new version and whole. A file put in the place of another
// is whole at once. One that is written anew in place may be read between the writes, so it counts once two checks in a row
// found the same.
func (f *File) note(info fs.FileInfo, data []byte) bool {
	replaced := f.seen == nil || !os.SameFile(info, f.seen)
	before := f.latest
	f.seen, f.latest = info, sha256.Sum256(data)
	whole := replaced || f.latest == before
	f.settled = whole && time.Since(info.ModTime()) > young
	return whole && f.latest != f.judged
}

// report tells that the file cannot be read, once for every reason.
func (f *File) report(err error) {
	if f.trouble == err.Error() {
		return
	}
	f.trouble = err.Error()
	f.tell(err)
}

func (f *File) tell(err error) {
	if f.warn != nil {
		f.warn(fmt.Errorf("the rules read before stay in force: %w", err))
	}
}

var errTooLarge = errors.New("larger than 64 MiB")

// read returns the whole file and how it was before it was read: what is written meanwhile shows as a change.
func read(path string) (fs.FileInfo, []byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = file.Close() }() // only read from
	info, err := file.Stat()
	if err != nil {
		return nil, nil, err
	}
	data, err := io.ReadAll(io.LimitReader(file, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = &fs.PathError{Op: "read", Path: path, Err: errTooLarge}
	}
	return info, data, err
}
