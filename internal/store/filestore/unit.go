package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// spillAt is how many bytes of records a unit keeps in memory. A batch of 32 pages has about 32 KiB of them.
const spillAt = 1 << 20

// linesSize is what most batches need for their records; the buffers are reused.
const linesSize = 32 << 10

var lines = sync.Pool{New: func() any { return new([linesSize]byte) }}

// errEnded is returned by a unit that was committed or discarded.
var errEnded = errors.New("the unit has ended")

// unit is a unit being written. A Commit that failed may be tried again, and nothing is fetched twice for a full disk, but
// for a flush that failed.
type unit struct {
	s         *Store
	job, name string
	stem      string // begins each of its temporary names: WORKER~RUN~N
	since     disk.Mark

	mu      sync.Mutex
	ended   bool
	tmps    int             // bodies written aside so far
	aside   []asideBody     // large bodies waiting to be put in place
	have    map[string]bool // the names of aside and of those in place
	records []byte          // lines not yet spilled
	count   int             // records added
	spill   string          // where earlier lines are, if they grew beyond spillAt
	commits int             // commits tried
}

// Body starts a body.
func (u *unit) Body(ctx context.Context, meta store.BodyMeta) (store.BodyWriter, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, fmt.Errorf("start body in unit %s: %w", u.name, errEnded)
	}
	u.tmps++
	return &body{u: u, n: u.tmps, ext: extension(meta), path: u.s.pathOf(meta), buf: getBuffer()}, nil
}

// Add takes a record. A record that no line of JSON can hold is refused with store.ErrRecord.
func (u *unit) Add(r *store.Record) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return fmt.Errorf("add record to unit %s: %w", u.name, errEnded)
	}
	if u.records == nil {
		u.records = lines.Get().(*[linesSize]byte)[:0]
	}
	before := len(u.records)
	line, err := store.AppendRecord(u.records, r)
	if err != nil {
		return fmt.Errorf("add record %.80q: %w (%w)", r.ID, store.ErrRecord, err)
	}
	u.records = append(line, '\n')
	if len(u.records) > spillAt {
		if err := u.spillRecords(); err != nil {
			u.records = u.records[:before] // the caller may add it again
			return err
		}
	}
	u.count++
	return nil
}

// spillRecords moves the lines in memory to a temporary file.
func (u *unit) spillRecords() error {
	path := u.s.tmpPath(u.job, u.stem+tmpSpill)
	if u.spill != "" {
		path = u.spill
	}
	if err := appendFile(u.s, u.jobTmp(), path, u.records, u.spill == ""); err != nil {
		return disk.Trouble("write records", path, err)
	}
	u.spill = path
	u.records = u.records[:0]
	return nil
}

// appendFile appends data to a file and leaves the file as it was if it cannot.
func appendFile(s *Store, folder, path string, data []byte, create bool) error {
	flags := os.O_WRONLY
	if create {
		flags |= os.O_CREATE | os.O_EXCL
	}
	var f *os.File
	err := s.folder.In(folder, func() (err error) {
		f, err = os.OpenFile(path, flags, 0o644)
		return err
	})
	if err != nil {
		return err
	}
	end, err := f.Seek(0, 2)
	if err == nil {
		_, err = f.Write(data)
	}
	if err != nil {
		err = errors.Join(err, f.Truncate(end))
	}
	if err = errors.Join(err, f.Close()); err != nil && create {
		_ = os.Remove(path)
	}
	return err
}

// put books a body that is in place.
func (u *unit) put(name string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return errEnded
	}
	u.hold(name)
	return nil
}

// hold notes a body. The caller holds u.mu.
func (u *unit) hold(name string) {
	if u.have == nil {
		u.have = make(map[string]bool, 32) // as many as most batches have
	}
	u.have[name] = true
}

// take books a body that was written aside. Books are kept by name: the same bytes are stored once in a unit.
func (u *unit) take(b asideBody) (kept bool, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return false, errEnded
	}
	if u.have[b.body] {
		return false, nil
	}
	u.hold(b.body)
	u.aside = append(u.aside, b)
	return true, nil
}

// keep is take, and removes what the unit does not need or cannot have any more.
func (u *unit) keep(b asideBody) error {
	kept, err := u.take(b)
	if kept {
		return nil
	}
	if derr := disk.RemoveTmp(b.tmp); err == nil {
		err = derr
	}
	if err != nil {
		return fmt.Errorf("finish body in unit %s: %w", u.name, err)
	}
	return nil
}

// has reports whether the unit has a body of that name already.
func (u *unit) has(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.have[name]
}

// Discard drops the unit and what it wrote aside.
func (u *unit) Discard() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil
	}
	return u.drop()
}

// drop ends the unit and removes its temporary files. The caller holds u.mu.
func (u *unit) drop() error {
	u.ended = true
	var failed error
	for _, b := range u.aside {
		failed = errors.Join(failed, disk.RemoveTmp(b.tmp))
	}
	if u.spill != "" {
		failed = errors.Join(failed, disk.RemoveTmp(u.spill))
	}
	if cap(u.records) == linesSize {
		lines.Put((*[linesSize]byte)(u.records[:linesSize]))
	}
	u.aside, u.have, u.records, u.spill = nil, nil, nil, ""
	u.s.ended(u.stem)
	return failed
}

func (u *unit) jobTmp() string { return u.s.jobPath(u.job, tmpFolder) }

func (u *unit) bodyTmp(n int) string {
	return u.s.tmpPath(u.job, u.stem+"~"+strconv.Itoa(n)+tmpBody)
}

// nextTmp returns the path of one more body of the unit.
func (u *unit) nextTmp() string {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.tmps++
	return u.bodyTmp(u.tmps)
}
