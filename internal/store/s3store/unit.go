package s3store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// linesSize is what most batches need for their records; the buffers are reused.
const linesSize = 32 << 10

var lineBuffers = sync.Pool{New: func() any { return new([linesSize]byte) }}

// maxAside is how many bodies of a unit wait in spools for its commit. Each is an open file. Further ones are put in
// place at once, where they stay without a record if the unit does not come to its commit.
const maxAside = 8

// errEnded is returned by a unit that was committed or discarded.
var errEnded = errors.New("the unit has ended")

// unit is a unit being written. A Commit that failed may be tried again; nothing is fetched twice for a server that
// was away.
type unit struct {
	s         *Store
	job, name string
	stem      string // begins each of its temporary names: WORKER~RUN~N

	mu      sync.Mutex
	ended   bool
	tmps    int             // bodies begun so far
	aside   []*asideBody    // large bodies waiting to be put in place
	have    map[string]bool // the names of aside and of those in place
	records []byte          // lines
	count   int             // records added
	commits int             // commits tried
}

// asideBody is a large body that is whole but not yet in place.
type asideBody struct {
	body  string // the Body field of its record
	kind  string // Content-Type
	size  int64
	spool *spool // where it is, or:
	tmp   string // key of an object with its bytes
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
	return &body{ctx: ctx, u: u, n: u.tmps, meta: meta, buf: getBuffer()}, nil
}

// Add takes a record. A record that no line of JSON can hold is refused with store.ErrRecord.
func (u *unit) Add(r *store.Record) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return fmt.Errorf("add record to unit %s: %w", u.name, errEnded)
	}
	if u.records == nil {
		u.records = lineBuffers.Get().(*[linesSize]byte)[:0]
	}
	line, err := store.AppendRecord(u.records, r)
	if err != nil {
		return fmt.Errorf("add record %.80q: %w (%w)", r.ID, store.ErrRecord, err)
	}
	u.records = append(line, '\n')
	u.count++
	return nil
}

// putBody puts a body under the name of its digest, unless it is there: then it has the same bytes.
func (u *unit) putBody(ctx context.Context, name string, p payload, kind string) error {
	_, err := u.s.c.put(ctx, u.s.keys.body(u.job, name), p, kind, condition{absent: true})
	if errors.Is(err, errTaken) {
		return nil
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

// has reports whether the unit has a body of that name already.
func (u *unit) has(name string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.have[name]
}

// take books a body that was written aside, which is the unit's from here on. The same bytes are kept once in a unit.
func (u *unit) take(ctx context.Context, b *asideBody) error {
	keep, err := u.keep(b)
	if keep || err != nil {
		if err != nil {
			_ = u.s.drop(b)
		}
		return err
	}
	if !u.has(b.body) {
		if err := u.s.place(ctx, u, b); err != nil {
			_ = u.s.drop(b)
			return err
		}
		return u.put(b.body)
	}
	return u.s.drop(b)
}

// keep holds a body for the commit, if it is a new one and the unit does not hold too many.
func (u *unit) keep(b *asideBody) (bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return false, fmt.Errorf("finish body in unit %s: %w", u.name, errEnded)
	}
	if u.have[b.body] || b.spool != nil && len(u.aside) >= maxAside {
		return false, nil
	}
	u.hold(b.body)
	u.aside = append(u.aside, b)
	return true, nil
}

// place puts a body that was written aside in place, and forgets where it was. It can be repeated.
func (s *Store) place(ctx context.Context, u *unit, b *asideBody) error {
	free, err := s.slot(ctx)
	if err != nil {
		return err
	}
	defer free()
	to := s.keys.body(u.job, b.body)
	if b.spool != nil {
		if err := u.putBody(ctx, b.body, b.spool.payload(), b.kind); err != nil {
			return err
		}
		return s.drop(b)
	}
	if there, err := s.c.head(ctx, to); err != nil && !isMissing(err) {
		return err
	} else if err != nil || there.size != b.size {
		if err := s.c.copyTo(ctx, copying{from: b.tmp, to: to, size: b.size, kind: b.kind, limit: s.copyLimit, note: s.sends}); err != nil {
			return err
		}
	}
	_ = s.drop(b) // what it fails to remove, Sweep will
	return nil
}

// drop removes what was written aside.
func (s *Store) drop(b *asideBody) error {
	b.spool.close()
	b.spool = nil
	if b.tmp == "" {
		return nil
	}
	s.sends(b.tmp, false)
	return s.c.remove(context.WithoutCancel(s.ctx), b.tmp)
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

// drop ends the unit and removes what it wrote aside. The caller holds u.mu.
func (u *unit) drop() error {
	u.ended = true
	var failed error
	for _, b := range u.aside {
		failed = errors.Join(failed, u.s.drop(b))
	}
	if cap(u.records) == linesSize {
		lineBuffers.Put((*[linesSize]byte)(u.records[:linesSize]))
	}
	u.aside, u.have, u.records = nil, nil, nil
	u.s.ended(u.stem)
	return failed
}

func (u *unit) bodyTmp(n int) string { return u.stem + "~" + strconv.Itoa(n) }
