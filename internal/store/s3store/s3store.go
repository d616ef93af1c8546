// Package s3store keeps a store in a bucket of an S3 server: Amazon's or a compatible one.
//
//	PREFIX/.fetchfleet-store             the store's identity
//	PREFIX/JOB/accounts/UNIT.json        accounts, each with its unit's records: a unit exists once its account does
//	PREFIX/JOB/records/UNIT.jsonl        the records once more, one JSON object a line; none where a unit has no record
//	PREFIX/JOB/bodies/ab/SHA256.EXT      bodies, named by their digest
//	PREFIX/JOB/tmp/WORKER~RUN~N~M        large bodies being uploaded: worker, run of it, number of the unit, of the body
//	PREFIX/JOB/parts/REQUEST.json        what is known of a large body whose transfer was cut
//	PREFIX/JOB/parts/REQUEST.bytes       the upload of its beginning
//
// That is the layout of package filestore, so that a copy of PREFIX in a folder can be opened as file:DIR, and a folder
// copied to PREFIX as s3:.
//
// It promises that the first committed unit of a name wins (PUT with If-None-Match), that a unit is whole as soon as it
// is visible, that the server has checked the digest of every byte before it kept it, and that memory does not grow
// with bodies: what is not yet sent waits in nameless files, at most one piece (8 MiB) for each body under way. What a
// crash leaves is removed, or completed, by Sweep. A call to a server that is gone fails within about ten seconds.
//
// It needs a server with conditional PUTs: Amazon S3 (since 2024), MinIO, Ceph (since Squid), Cloudflare R2, versitygw.
// It does not promise that every object under bodies belongs to a record: a unit that lost the race for its name, or
// that was discarded or died before its commit, leaves whole bodies behind.
package s3store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// uploadsAtOnce is how many pieces and bodies of more than a buffer are sent at once by one Store.
const uploadsAtOnce = 4

// Store is a store in a bucket. It implements store.Store, store.Resumer and store.Verifier.
type Store struct {
	o      Options
	c      *client
	keys   layout
	run    string // WORKER~RUN, the beginning of every temporary name of this Store value
	slots  chan struct{}
	ctx    context.Context // ends with the Store: for what goes on beside calls
	cancel context.CancelFunc

	mu       sync.Mutex
	closed   bool
	units    int64           // begun so far
	live     map[string]bool // stems of the units that have not ended
	sending  map[string]bool // ids of the multipart uploads under way, and keys of parts that units adopted
	identity string          // once known
	keeps    bool            // the server is known to keep the condition of a PUT

	work      sync.WaitGroup // commits and held parts
	copyLimit int64
	lease     time.Duration          // how long a part is its holder's without being renewed
	piece     func(number int) int64 // size of a piece; tests make it smaller
	step      func(name string)      // called between the steps of a commit; set by tests only
}

var (
	_ store.Resumer  = (*Store)(nil)
	_ store.Verifier = (*Store)(nil)
)

// Open opens the store that the options name. It makes one call, which tells a bucket that is missing, keys that are
// wrong and a server that cannot be reached; it writes nothing. Check tells whether it can be written to.
func Open(ctx context.Context, o Options) (*Store, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("open store %s: %w", o, err)
	}
	if o.Format == FormatWARC {
		return nil, fmt.Errorf("open store %s: format=warc is not there yet: use format=file", o)
	}
	s, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("open store %s: %w", o, err)
	}
	return s, nil
}

func open(ctx context.Context, o Options) (*Store, error) {
	creds, err := findCredentials(ctx)
	if err != nil {
		return nil, err
	}
	used := o
	used.Region = regionOf(o)
	c, err := newClient(used, creds)
	if err != nil {
		return nil, err
	}
	life, cancel := context.WithCancel(context.Background())
	s := &Store{
		o: o, c: c, keys: newLayout(o.Prefix), run: runName(o.Worker), slots: make(chan struct{}, uploadsAtOnce),
		ctx: life, cancel: cancel, live: make(map[string]bool), sending: make(map[string]bool),
		copyLimit: copyLimit, lease: partLease, piece: pieceSize,
	}
	err = s.look(ctx)
	if err != nil {
		cancel()
		c.lines.close()
		return nil, err
	}
	return s, nil
}

// regionOf returns the region to sign for. Servers of one's own mostly have none, and take the usual one.
func regionOf(o Options) string {
	for _, region := range []string{o.Region, os.Getenv("AWS_REGION"), os.Getenv("AWS_DEFAULT_REGION")} {
		if region != "" {
			return region
		}
	}
	return "" // the server is asked
}

// look reads the identity, if there is one.
func (s *Store) look(ctx context.Context) error {
	id, err := s.readIdentity(ctx)
	switch {
	case isMissing(err) && s.o.MustExist:
		return fmt.Errorf("there is no store under this prefix: name the store that the workers were given: %w", err)
	case isMissing(err):
		return nil
	}
	s.identity = id
	return err
}

// String returns the store's URL. It holds no secret.
func (s *Store) String() string { return s.o.String() }

// Close waits for commits under way, and gives up the parts that are held. Units that have not ended can only be
// discarded afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	s.cancel()
	s.work.Wait()
	s.c.lines.close()
	return nil
}

// errClosed is returned by what is called after Close.
var errClosed = errors.New("the store is closed")

// Begin starts a unit. It makes no call.
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
	s.units++
	u := &unit{s: s, job: job, name: name, stem: s.run + "~" + strconv.FormatInt(s.units, 10)}
	s.live[u.stem] = true
	return u, nil
}

// ended forgets a unit, so that Sweep may remove what it left.
func (s *Store) ended(u *unit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, u.stem)
}

// sends notes a multipart upload that is under way or over, so that Sweep leaves it alone meanwhile.
func (s *Store) sends(id string, begun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begun {
		s.sending[id] = true
	} else {
		delete(s.sending, id)
	}
}

// isLive reports whether a temporary name is of a unit that has not ended.
func (s *Store) isLive(stem string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[stem]
}

func (s *Store) isSending(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sending[id]
}

// conditional reports whether the server is known to keep the condition of a PUT.
func (s *Store) conditional() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeps
}

func (s *Store) knowConditional() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeps = true
}

// enter counts work that Close must wait for; the caller calls s.work.Done.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.work.Add(1)
	return nil
}

// slot waits until something large may be sent. The caller calls free.
func (s *Store) slot(ctx context.Context) (free func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// at marks a step of the recipe.
func (s *Store) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}
