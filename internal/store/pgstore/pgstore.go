// Package pgstore keeps a store in PostgreSQL, 13 or newer, in tables of one schema that analysts can query.
//
//	jobs      job, when it was first seen
//	units     one row for each batch that was worked: its account; a unit exists once its row does
//	records   one row for each record, in typed columns
//	bodies    bodies, in rows of up to 1 MiB; none with bodies=off
//	latest    a view: the record with the highest generation of each request
//
// writing, parts, identity and schema_version are the store's own. migrations has the definitions.
//
// It promises that a unit becomes visible with all its records and bodies in one transaction, that the first committed
// unit of a name wins, that a record comes back as it was given (what typed columns cannot hold, such as U+0000, is
// kept beside them), and that a unit whose Commit returned without error is as durable as the server's
// synchronous_commit says. Units that are committed at the same time share a transaction. A connection is held only
// while one is needed, and every call has a limit in time.
//
// It does not promise that identical bodies are stored once: within a unit they are, across units they are not,
// because commits would have to wait for each other. It does not work through a proxy that gives each transaction
// another server connection.
package pgstore

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5/pgxpool"
)

// The values of Options.Sync.
const (
	SyncBatch = "batch" // as durable as the server is set to be; the default
	SyncOff   = "off"   // synchronous_commit=off: the last second may be lost if the server crashes, nothing is torn
)

// Options are the options of Open. The zero value is a durable store of an unnamed worker.
type Options struct {
	Sync   string // SyncBatch or SyncOff; "" means SyncBatch
	Worker string // names this worker to the server, and in what it leaves unfinished; "" means "worker"
	// MustExist refuses a schema that is not there, for those who only read: nothing is made or migrated.
	MustExist bool
}

// Store is a store in a PostgreSQL schema. It implements store.Store, store.Resumer and store.Verifier.
type Store struct {
	target Target
	worker string
	pool   *pgxpool.Pool

	mu       sync.Mutex
	closed   bool
	live     map[key]bool    // keys of the units that have not ended
	jobs     map[string]bool // whose row is there
	identity string          // once known

	commits  *committer
	holdings *holdings
	step     func(name string) // called between the steps of a commit; set by tests only
}

var (
	_ store.Store    = (*Store)(nil)
	_ store.Resumer  = (*Store)(nil)
	_ store.Verifier = (*Store)(nil)
	_ store.Bodiless = (*Store)(nil)
)

// key names a unit's or a part's rows: a UUID of version 7 (RFC 9562, section 5.7), so that rows written at about the
// same time lie side by side in an index.
type key [16]byte

func newKey() key {
	var k key
	rand.Read(k[6:]) // never fails
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(time.Now().UnixMilli()))
	copy(k[:6], ms[2:])
	k[6] = k[6]&0x0f | 0x70
	k[8] = k[8]&0x3f | 0x80
	return k
}

// Bodiless reports whether the URL says that bodies are not stored.
func (s *Store) Bodiless() bool { return !s.target.Bodies }

// Open opens the store that a URL of the form of Parse names. Unless it must exist, its tables are made or brought
// up to date. An error says what to do.
func Open(ctx context.Context, rawURL string, o Options) (*Store, error) {
	if o.Sync != "" && o.Sync != SyncBatch && o.Sync != SyncOff {
		return nil, fmt.Errorf("open store: unknown sync %q, want %q or %q", o.Sync, SyncBatch, SyncOff)
	}
	if o.Worker == "" {
		o.Worker = "worker"
	}
	t, err := Parse(rawURL)
	if err != nil {
		return nil, fmt.Errorf("open %w", err)
	}
	cfg, err := t.config(o)
	if err != nil {
		return nil, fmt.Errorf("open %w", err)
	}
	pool, err := pgxpool.NewWithConfig(ctx, cfg) // connects to nothing
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", t.name, err)
	}
	s := &Store{target: t, worker: text(o.Worker), pool: pool, live: make(map[key]bool), jobs: make(map[string]bool)}
	s.commits = &committer{s: s, lanes: max(1, min(maxLanes, int(cfg.MaxConns)-2))}
	s.holdings = &holdings{s: s}
	if err := s.prepare(ctx, o.MustExist); err != nil {
		pool.Close()
		return nil, fmt.Errorf("open store %s: %w", t.name, err)
	}
	return s, nil
}

// String returns the URL that the store was opened with, without secrets.
func (s *Store) String() string { return s.target.name }

// Close waits for commits under way. Units that have not ended can only be discarded afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	s.commits.running.Wait()
	s.holdings.close()
	s.pool.Close()
	return nil
}

// errClosed is returned by what is called after Close.
var errClosed = errors.New("the store is closed")

// Begin starts a unit. It asks nothing of the server.
func (s *Store) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := checkNames(job, name); err != nil {
		return nil, fmt.Errorf("begin unit: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil, fmt.Errorf("begin unit %s: %w", name, errClosed)
	}
	u := &unit{s: s, job: job, name: name, key: newKey()}
	s.live[u.key] = true
	return u, nil
}

func checkNames(job, unit string) error {
	if err := store.CheckName("job", job); err != nil {
		return err
	}
	return store.CheckName("unit", unit)
}

// ended forgets a unit, so that Sweep may remove what it left.
func (s *Store) ended(k key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, k)
}

func (s *Store) isLive(k key) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[k]
}

// at marks a step of a commit.
func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}
