package s3store

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"time"
)

// uploadsAtOnce is how many pieces and bodies of more than a buffer are sent at once by one store.
const uploadsAtOnce = 4

// base is what a store in a bucket is made of, whatever its format.
type base struct {
	o      Options
	c      *client
	keys   layout
	run    string // WORKER~RUN, the beginning of every temporary name of this store value
	slots  chan struct{}
	ctx    context.Context // ends with the store: for what goes on beside calls
	cancel context.CancelFunc

	mu      sync.Mutex
	closed  bool
	units   int64           // begun so far
	live    map[string]bool // stems of the units that have not ended
	sending map[string]bool // ids of the multipart uploads under way, and keys of parts that units adopted
	keeps   bool            // the server is known to keep the condition of a PUT

	work  sync.WaitGroup         // commits and held parts
	piece func(number int) int64 // size of a piece; tests make it smaller
	lease time.Duration          // how long a part is its holder's without being renewed
	step  func(name string)      // called between the steps of a commit; set by tests only
}

// connect fills the base. It makes no call to the server.
func (s *base) connect(ctx context.Context, o Options) error {
	creds, err := findCredentials(ctx)
	if err != nil {
		return err
	}
	used := o
	used.Region = regionOf(o)
	c, err := newClient(used, creds)
	if err != nil {
		return err
	}
	s.o, s.c, s.keys, s.run = o, c, newLayout(o.Prefix), runName(o.Worker)
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.slots, s.live, s.sending = make(chan struct{}, uploadsAtOnce), make(map[string]bool), make(map[string]bool)
	s.piece, s.lease = pieceSize, partLease
	return nil
}

// disconnect undoes connect.
func (s *base) disconnect() {
	s.cancel()
	s.c.lines.close()
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

// lookOutside is for a prefix under which there is no store of this format, as missing says: one of another format there is
// refused by its mark, and none at all where there must be one.
func (s *base) lookOutside(ctx context.Context, mark, parameter string, missing error) error {
	_, err := s.c.head(ctx, mark)
	switch {
	case err == nil:
		return fmt.Errorf("the store under this prefix has another format: write %s, or choose another prefix", parameter)
	case !isMissing(err):
		return err
	case s.o.MustExist:
		return fmt.Errorf("there is no store under this prefix: name the store that the workers were given: %w", missing)
	}
	return nil
}

// String returns the store's URL. It holds no secret.
func (s *base) String() string { return s.o.String() }

// Close waits for commits under way, and gives up the parts that are held. Units that have not ended can only be
// discarded afterwards.
func (s *base) Close() error {
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

// begin returns the stem of a unit, whose temporary names Sweep leaves alone until it has ended.
func (s *base) begin() (stem string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return "", errClosed
	}
	s.units++
	stem = s.run + "~" + strconv.FormatInt(s.units, 10)
	s.live[stem] = true
	return stem, nil
}

// ended forgets a unit, so that Sweep may remove what it left.
func (s *base) ended(stem string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.live, stem)
}

// errClosed is returned by what is called after Close.
var errClosed = errors.New("the store is closed")

// sends notes a multipart upload that is under way or over, so that Sweep leaves it alone meanwhile.
func (s *base) sends(id string, begun bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if begun {
		s.sending[id] = true
	} else {
		delete(s.sending, id)
	}
}

// isLive reports whether a temporary name is of a unit that has not ended.
func (s *base) isLive(stem string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[stem]
}

func (s *base) isSending(id string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sending[id]
}

// conditional reports whether the server is known to keep the condition of a PUT.
func (s *base) conditional() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keeps
}

func (s *base) knowConditional() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.keeps = true
}

// enter counts work that Close must wait for; the caller calls s.work.Done.
func (s *base) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return errClosed
	}
	s.work.Add(1)
	return nil
}

// slot waits until something large may be sent. The caller calls free.
func (s *base) slot(ctx context.Context) (free func(), err error) {
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// at marks a step of the recipe.
func (s *base) at(step string) {
	if s.step != nil {
		s.step(step)
	}
}
