// Package verify reads everything of a job again, from any store, and says what is not as it was stored.
//
// It promises to name every account, record and body that is torn, missing, altered or not what the account says, and
// what the store's own check finds (store.Verifier). It may run beside the job: a unit counts once it is visible, and
// what is being written is no problem. It changes nothing unless it is asked to repair, and then only what the store
// can mend without losing anything that was committed.
//
// It does not know which requests there should be: that is held against the ledger by package audit.
package verify

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// ErrNoUnits says that a job has nothing in the store: most likely one of the two was named wrong.
var ErrNoUnits = errors.New("nothing of this job is in the store")

// Options say how to verify. The zero value reads every body and repairs nothing.
type Options struct {
	Bodies      Share // which bodies are read; the zero value: all
	Concurrency int   // bodies read at once; 0 = 4
	Repair      bool  // let the store mend what it can
	// Found gets every finding as it is made, one at a time; nil = nobody.
	Found func(store.Finding)
	// Progress gets the figures every quarter of a second, never beside Found; nil = nobody.
	Progress func(Figures)
}

// Figures are how much was read.
type Figures struct {
	Units     int64 `json:"units"`
	Records   int64 `json:"records"`
	Bodies    int64 `json:"bodies"`     // read; one to which many records refer is read once, see maxRemembered
	BytesRead int64 `json:"bytes_read"` // of bodies, decoded
	Unread    int64 `json:"unread"`     // references to bodies that Options.Bodies left out
	NotKept   int64 `json:"not_kept"`   // records of answers whose body the store does not keep
	Problems  int64 `json:"problems"`   // those not mended
	Mended    int64 `json:"mended"`
	Notes     int64 `json:"notes"`
}

// Report is what was found.
type Report struct {
	Job   string `json:"job"`
	Store string `json:"store"`
	Figures
	Findings []store.Finding `json:"findings,omitempty"` // the first MaxFindings
	More     int64           `json:"more,omitempty"`     // findings beyond those
}

// OK reports whether nothing is wrong, or nothing any more.
func (r *Report) OK() bool { return r.Problems == 0 }

// MaxFindings is how many findings a Report keeps; the rest are counted.
const MaxFindings = 1000

// Run verifies a job. The error says that the store cannot be read, or that it has nothing of the job (ErrNoUnits);
// the report is then what was seen so far. Memory grows with the job by about 40 bytes a record, by which one that is
// there twice is found, and not with its bodies.
func Run(ctx context.Context, s store.Store, job string, o Options) (*Report, error) {
	if o.Concurrency <= 0 {
		o.Concurrency = 4
	}
	v := &run{store: s, job: job, Options: o, seed: rand.Uint64(), recorded: make(map[key]struct{}),
		report: Report{Job: job, Store: s.String()}}
	stop := v.tell()
	err := v.all(ctx)
	stop()
	v.mu.Lock()
	defer v.mu.Unlock()
	v.report.Figures = v.figures()
	return &v.report, err
}

// run is one verification.
type run struct {
	Options
	store store.Store
	job   string
	seed  uint64 // makes each run read another sample

	recorded map[key]struct{} // request and generation of each record; used by the walk over the units alone
	met      remembered       // bodies read or being read; likewise

	units, records, bodies, bytes, unread, notKept atomic.Int64
	unitsInARow, bodiesInARow                      atomic.Int64 // that could not be read since one could

	mu                      sync.Mutex // guards what follows, and calls of Found and Progress
	report                  Report
	problems, mended, notes int64
}

// all reads the units and their bodies, and then asks the store for what no record shows.
func (v *run) all(ctx context.Context) error {
	if err := v.contents(ctx); err != nil {
		return err
	}
	if s, ok := v.store.(store.Verifier); ok {
		if err := s.Verify(ctx, v.job, v.Repair, v.found); err != nil {
			return fmt.Errorf("verify job %s: %w", v.job, err)
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.units.Load() == 0 && v.problems+v.mended+v.notes == 0 {
		return fmt.Errorf("job %s: %w %s: check the id, and --store", v.job, ErrNoUnits, v.store)
	}
	return nil
}

// contents walks over the units and hands their bodies to as many readers as are wanted.
func (v *run) contents(ctx context.Context) error {
	readers, ctx := errgroup.WithContext(ctx)
	refs := make(chan bodyRef)
	for range v.Concurrency {
		readers.Go(func() error { return v.readBodies(ctx, refs) })
	}
	readers.Go(func() error {
		defer close(refs)
		return v.walk(ctx, refs)
	})
	if err := readers.Wait(); err != nil {
		return fmt.Errorf("verify job %s: %w", v.job, err)
	}
	return nil
}

// found books a finding.
func (v *run) found(f store.Finding) {
	v.mu.Lock()
	defer v.mu.Unlock()
	switch {
	case f.Note:
		v.notes++
	case f.Mended:
		v.mended++
	default:
		v.problems++
	}
	if len(v.report.Findings) < MaxFindings {
		v.report.Findings = append(v.report.Findings, f)
	} else {
		v.report.More++
	}
	if v.Found != nil {
		v.Found(f)
	}
}

// mostInARow is how many things in a row may be unreadable before the store itself is doubted: a disk that died, a
// server that went away.
const mostInARow = 20

// failed books that something could not be read; inARow counts its kind. Its error says that the store is to be given up.
func (v *run) failed(ctx context.Context, where string, err error, inARow *atomic.Int64) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	kind := "torn"
	switch {
	case errors.Is(err, store.ErrNotFound) || errors.Is(err, fs.ErrNotExist):
		kind = "missing"
	case errors.Is(err, store.ErrRecord):
		kind = "structure"
	}
	v.found(store.Finding{Kind: kind, Where: where, What: err.Error()})
	if kind != "torn" || inARow.Add(1) < mostInARow {
		return nil
	}
	inARow.Store(0)
	if sick := v.store.Check(ctx); sick != nil {
		return fmt.Errorf("gave up after %d things in a row that could not be read, since the store is in trouble: %w", mostInARow, sick)
	}
	return nil
}

// figures are those of now. The caller holds v.mu.
func (v *run) figures() Figures {
	return Figures{Units: v.units.Load(), Records: v.records.Load(), Bodies: v.bodies.Load(), BytesRead: v.bytes.Load(),
		Unread: v.unread.Load(), NotKept: v.notKept.Load(), Problems: v.problems, Mended: v.mended, Notes: v.notes}
}

// tell calls Progress until the returned function is called, which waits for its last call.
func (v *run) tell() (stop func()) {
	if v.Progress == nil {
		return func() {}
	}
	done, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		every := time.NewTicker(250 * time.Millisecond)
		defer every.Stop()
		for {
			select {
			case <-every.C:
			case <-done:
				return
			}
			v.mu.Lock()
			v.Progress(v.figures())
			v.mu.Unlock()
		}
	}()
	return func() { close(done); <-ended }
}
