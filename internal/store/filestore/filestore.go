// Package filestore keeps a store in a folder of a file system.
//
//	DIR/.fetchfleet-store             the store's identity
//	DIR/JOB/accounts/UNIT.json        accounts: a unit exists once its account does
//	DIR/JOB/records/UNIT.jsonl        records, one JSON object a line; none where a unit holds no record
//	DIR/JOB/bodies/ab/SHA256.EXT      bodies, named by their digest
//	DIR/JOB/bodies/HOST/PATH          bodies, named by their URL (Options.Names); a job may hold both kinds
//	DIR/JOB/parts/REQUEST.part        beginnings of large bodies whose transfer was cut, see package parts
//	DIR/JOB/tmp/WORKER~RUN~N…         what is being written: worker, run of the worker, number of the unit in it
//
// On Linux a small body has no name at all before it is whole (O_TMPFILE).
//
// It promises that under accounts, records and bodies no torn file is ever seen, that the first committed unit of a
// name wins, and, unless Sync is "off", that a unit whose Commit returned without error survives a loss of power.
// Many workers on many machines may share one folder, if its file system has link(2) and disk.Rename(2) that are atomic
// for all of them (local ones, NFS). What a crash leaves under tmp is finished by the next reader or removed by Sweep.
//
// A flush that failed is not forgotten (disk.Syncer): units that had begun are fetched again, and what lies in place since
// before it is replaced, not trusted.
//
// It does not promise that every file under bodies belongs to a record: a unit that lost the race for its name, or
// that was discarded or died before its commit, leaves whole bodies behind.
package filestore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// The values of Options.Sync.
const (
	SyncBatch = "batch" // commits that come together share one flush; the default
	SyncOff   = "off"   // nothing is flushed: units survive a crash of the program but not one of the machine
)

// The values of Options.Names.
const (
	NamesDigest = "digest" // bodies/ab/SHA256.EXT: the same bytes are one file; the default
	NamesPath   = "path"   // bodies/HOST/PATH: as a person would expect, see pathName
)

// Options are the options of Open. The zero value is a durable store of an unnamed worker.
type Options struct {
	Names  string // NamesDigest or NamesPath, of new bodies; "" means NamesDigest
	Sync   string // SyncBatch or SyncOff; "" means SyncBatch
	Worker string // names this worker in temporary names; "" means "worker"
}

// Store is a store in a folder. It implements store.Store.
type Store struct {
	dir    string
	folder *disk.Folder
	byName bool   // bodies are named by their URLs
	run    string // WORKER~RUN, the beginning of every temporary name of this Store value
	sync   *disk.Syncer

	mu       sync.Mutex
	closed   bool
	units    int64           // begun so far
	live     map[string]bool // stems of the units that have not ended
	identity string          // once known

	named atomic.Bool // whether bodies are written to tmp first, because there are no nameless files here

	commits sync.WaitGroup
	step    func(name string) // called between the steps of a commit; set by tests only
}

var _ store.Store = (*Store)(nil)

// Open opens the store in dir, which is made if it does not exist. It writes nothing else: a folder that can only be
// read can be opened and read from. Check tells whether it can be written to.
func Open(ctx context.Context, dir string, o Options) (*Store, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if o.Sync != "" && o.Sync != SyncBatch && o.Sync != SyncOff {
		return nil, fmt.Errorf("open store: unknown sync %q, want %q or %q", o.Sync, SyncBatch, SyncOff)
	}
	if o.Names != "" && o.Names != NamesDigest && o.Names != NamesPath {
		return nil, fmt.Errorf("open store: unknown names %q, want %q or %q", o.Names, NamesDigest, NamesPath)
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", dir, err)
	}
	if _, err := os.Stat(filepath.Join(abs, warcLayout)); err == nil { // two kinds would take each other's files away
		return nil, fmt.Errorf("open store file:%s: the folder holds a store of WARC files: name it as warc:DIR, or choose another folder", abs)
	}
	folder, err := disk.OpenFolder(abs)
	if err != nil {
		return nil, err
	}
	s := &Store{dir: abs, byName: o.Names == NamesPath, run: disk.RunName(o.Worker), folder: folder, live: make(map[string]bool)}
	s.named.Store(!disk.HasProc())
	if o.Sync != SyncOff {
		s.sync = folder.Syncer()
	}
	return s, nil
}

// String returns "file:" and the absolute path of the folder.
func (s *Store) String() string { return "file:" + s.dir }

// Dir returns the absolute path of the folder.
func (s *Store) Dir() string { return s.dir }

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

// Check writes, flushes, links and removes a small file, and says what is wrong if it cannot.
func (s *Store) Check(ctx context.Context) error { return s.folder.Check(ctx, s.run) }

// Begin starts a unit. It touches no file.
func (s *Store) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkNames(job, name); err != nil {
		return nil, fmt.Errorf("begin unit: %w", err)
	}
	stem, err := s.begin()
	if err != nil {
		return nil, fmt.Errorf("begin unit %s: %w", name, err)
	}
	return &unit{s: s, job: job, name: name, stem: stem, since: s.sync.Mark()}, nil
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

// enter counts a commit that Close must wait for; the caller calls s.commits.Done.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return disk.ErrClosed
	}
	s.commits.Add(1)
	return nil
}

// at marks a step of the recipe.
func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}
