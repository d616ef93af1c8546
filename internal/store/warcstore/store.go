// Package warcstore keeps a store as WARC files in a folder of a file system.
//
//	DIR/.fetchfleet-warc              identity, layout version and compression of the store
//	DIR/JOB/units/UNIT.warc.gz        units, one file each (.warc.zst with zstd)
//	DIR/JOB/warc/JOB-00001.warc.gz    units that were merged, one behind another, after a warcinfo record
//	DIR/JOB/warc/JOB-00001.cdxj       sorted index of its captures, for replay tools
//	DIR/JOB/warc/JOB-00001.units      which units are in it and where each begins
//	DIR/JOB/parts/REQUEST.part        beginnings of large bodies, as sent (package parts)
//	DIR/JOB/tmp/WORKER~RUN~N…         what is being written: worker, run of the worker, number of the unit in it
//	DIR/JOB/.merge                    locked by whoever merges
//
// A unit holds response, request, revisit, resource and conversion records in the order in which the answers ended, then
// metadata records with the unit's store.Records, one field each, then one with the account. These are
// application/warc-fields, whose values are JSON, because tools that make indexes pass over that type. The last record has
// a mark (package warc) from which account and records are found without reading the rest. The Body of a record is "UNIT#OFFSET", the offset of a
// record of the unit, and stays valid when the unit is merged; "../JOB/UNIT#OFFSET" is a body of another job of the store.
//
// It promises that a unit appears in one step and whole, that the first one of a name wins, also when it was merged long
// ago, and, unless Sync is "off", that a unit whose Commit returned without error survives a loss of power. Bodies are kept
// as they were sent and decoded when they are read. What had the same payload as an answer before it in the job is a
// revisit record, whose body is the earlier one. Many workers on many machines may share the folder, if its file system has
// link(2), rename(2) and flock(2) that are atomic for all of them.
//
// It does not promise that an answer without a record (a redirect, one that was cut) is kept when its unit was handed back
// or lost the race for its name.
package warcstore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// The values of Options.Sync.
const (
	SyncBatch = "batch" // commits that come together share one flush; the default
	SyncOff   = "off"   // nothing is flushed: units survive a crash of the program but not one of the machine
)

// Options are the options of Open. The zero value is a durable store of an unnamed worker, with gzip.
type Options struct {
	// Compress is "gzip" or "zstd". A store keeps what it was made with, and refuses the other; "" takes what it has,
	// and gzip for a new one.
	Compress string
	Sync     string // SyncBatch or SyncOff; "" means SyncBatch
	Worker   string // names this worker in temporary names; "" means "worker"
	// DedupeIndex is a CDXJ file of an earlier job of this store, or a folder of such: what has the same payload as an
	// answer in it becomes a revisit record. "" compares within a job only.
	DedupeIndex string
	// Decoded keeps a decoded copy of each coded body as well, as a conversion record.
	Decoded bool
	// MergeSize is how large merged files become, in bytes; 0 means 1 GB.
	MergeSize int64
	// Software is what warcinfo records name, "fetchfleet/1.2.3"; "" means "fetchfleet".
	Software string
	// MustExist refuses a folder in which there is no store of this kind yet, for those who only read.
	MustExist bool
}

// Store is a store of WARC files. It implements store.Store, store.Resumer, store.Verifier and store.Compactor.
type Store struct {
	dir    string
	o      Options
	run    string // WORKER~RUN, the beginning of every temporary name of this Store value
	sync   *disk.Syncer
	folder *disk.Folder
	shop   *warcunit.Workshop
	merged merges

	mu     sync.Mutex
	closed bool
	units  int64            // begun so far
	live   map[string]bool  // stems of the units that have not ended
	layout *warcunit.Layout // once known

	named atomic.Bool // whether units are written to tmp first, because there are no nameless files here

	commits sync.WaitGroup
	step    func(name string) // called between the steps of commits and merges; set by tests only
}

var (
	_ store.Verifier       = (*Store)(nil)
	_ store.Compactor      = (*Store)(nil)
	_ store.ExchangeKeeper = (*unit)(nil)
)

// Open opens the store in dir, which is made if it does not exist. It writes nothing else: a folder that can only be
// read can be opened and read from. Check tells whether it can be written to.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Sync != "" && o.Sync != SyncBatch && o.Sync != SyncOff {
		return nil, fmt.Errorf("open store: unknown sync %q, want %q or %q", o.Sync, SyncBatch, SyncOff)
	}
	if o.Compress != "" && !slices.Contains(warc.Compressions, warc.Compression(o.Compress)) {
		return nil, fmt.Errorf("open store: unknown compress %q, want %q or %q", o.Compress, warc.Gzip, warc.Zstd)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(abs, fileIdentity)); err == nil { // two kinds would take each other's files away
		return nil, fmt.Errorf("open store warc:%s: the folder holds a store of files, not of WARC files: name it as file:DIR, or choose another folder", abs)
	}
	if o.MustExist {
		if _, err := os.Stat(filepath.Join(abs, layoutFile)); errors.Is(err, os.ErrNotExist) {
			return nil, fmt.Errorf("open store warc:%s: there is no WARC store in this folder: name the store that the workers were given: %w", abs, err)
		}
	}
	folder, err := disk.OpenFolder(abs)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: abs, o: o, run: disk.RunName(o.Worker), folder: folder, live: make(map[string]bool)}
	s.named.Store(!disk.HasProc())
	s.shop = &warcunit.Workshop{Decoded: o.Decoded, Named: true, Tmp: s.tmpPath, Create: s.create, Open: s.open, Ended: s.ended}
	if o.Sync != SyncOff {
		s.sync = folder.Syncer()
	}
	if err := s.prepare(ctx); err != nil {
		_ = folder.Close()
		return nil, fmt.Errorf("open store warc:%s: %w", abs, err)
	}
	return s, nil
}

// prepare reads what is there.
func (s *Store) prepare(ctx context.Context) error {
	if _, err := s.readLayout(ctx); err != nil {
		return err
	}
	return s.loadIndex(ctx, s.o.DedupeIndex)
}

// String returns "warc:" and the absolute path of the folder.
func (s *Store) String() string { return "warc:" + s.dir }

// Dir returns the absolute path of the folder.
func (s *Store) Dir() string { return s.dir }

// Check writes, flushes, links and removes a small file, and says what is wrong if it cannot.
func (s *Store) Check(ctx context.Context) error { return s.folder.Check(ctx, s.run) }

// Close waits for commits under way. Units that have not ended can only be discarded afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.commits.Wait()
	s.sync.Close()
	return s.folder.Close()
}

// Begin starts a unit. The first one of a store writes the store's identity.
func (s *Store) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := warcunit.CheckNames(job, name); err != nil {
		return nil, fmt.Errorf("begin unit: %w", err)
	}
	l, err := s.agree(ctx)
	if err != nil {
		return nil, fmt.Errorf("begin unit %s: %w", name, err)
	}
	stem, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("begin unit %s: %w", name, err)
	}
	return &unit{Unit: s.shop.NewUnit(job, name, stem, l.Compress), s: s, job: job, name: name, stem: stem, since: s.sync.Mark(), kind: l.Compress}, nil
}

// create makes a temporary file.
func (s *Store) create(path string) (f *os.File, err error) {
	err = s.folder.In(filepath.Dir(path), func() (err error) {
		f, err = os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o644)
		return err
	})
	return f, err
}

// OpenBody opens a body by the Body field of its record, decoded. Its last Read fails if the record is damaged.
func (s *Store) OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error) {
	return s.shop.OpenBody(ctx, job, body)
}

// begin returns a stem for temporary names that are not to be swept.
func (s *Store) begin() (stem string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", disk.ErrClosed
	}
	s.units++
	stem = s.run + "~" + strconv.FormatInt(s.units, 10)
	s.live[stem] = true
	return stem, nil
}

// ended forgets a stem, so that Sweep may remove what was left under it.
func (s *Store) ended(stem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, stem)
}

// enter counts what Close must wait for; the caller calls s.commits.Done.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return disk.ErrClosed
	}
	s.commits.Add(1)
	return nil
}

// at marks a step of a recipe.
func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}
