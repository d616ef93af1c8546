package several

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// errEnded is returned by a unit that was committed or discarded.
var errEnded = errors.New("the unit has ended")

// Begin starts a unit in every store.
func (s *Store) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	first, err := s.first.Begin(ctx, job, name)
	if err != nil {
		return nil, err
	}
	u := &unit{s: s, job: job, name: name, first: first, rest: make([]copied, len(s.rest))}
	for i, m := range s.rest {
		begun, err := m.Begin(ctx, job, name)
		if err != nil {
			return nil, errors.Join(m.wrap(err), u.Discard())
		}
		u.rest[i] = copied{to: m, unit: begun, bodies: map[bodyKey]string{}}
		u.tee = u.tee || !m.bodiless
	}
	return u, nil
}

// unit is a unit being written to every store. A Commit that failed may be tried again.
type unit struct {
	s         *Store
	job, name string
	first     store.Unit
	rest      []copied
	tee       bool // some of the rest keep bodies

	mu     sync.Mutex
	ended  bool
	winner *store.Account // once the first store has decided
	won    bool
	absent []*store.Record // whose bodies no writer of this unit wrote: they are copied once the first has committed
}

var _ store.ExchangeKeeper = (*unit)(nil)

// copied is what a unit becomes in a later store.
type copied struct {
	to     *later
	unit   store.Unit         // nil before it was begun
	bodies map[bodyKey]string // where the bodies of the first store lie in this one; guarded by unit.mu
	filled int                // how many of unit.absent were added
	done   bool               // it is committed
}

// bodyKey tells the bodies of a unit apart as the first store's records do. The place alone is not enough: a first store
// that keeps no bodies has none.
type bodyKey struct{ body, sha256 string }

// KeepsExchanges reports whether any store keeps them; the others are not bothered with what only those want.
func (u *unit) KeepsExchanges() bool {
	return keepsExchanges(u.first) || u.restKeeps()
}

func (u *unit) restKeeps() bool {
	for i := range u.rest {
		if !u.rest[i].to.bodiless && keepsExchanges(u.rest[i].unit) {
			return true
		}
	}
	return false
}

func keepsExchanges(u store.Unit) bool {
	k, ok := u.(store.ExchangeKeeper)
	return ok && k.KeepsExchanges()
}

// Add takes a record as the first store has it. An error that wraps store.ErrRecord is the first store's.
func (u *unit) Add(r *store.Record) error {
	if err := u.first.Add(r); err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.elsewhere(r) {
		u.absent = append(u.absent, r)
		return nil
	}
	for i := range u.rest {
		if err := u.rest[i].add(u.s, r); err != nil {
			return u.rest[i].to.wrap(err)
		}
	}
	return nil
}

// elsewhere reports whether a record's body was not written through this unit: it is that of an earlier job, or was put
// into the first store in another way. The caller holds u.mu.
func (u *unit) elsewhere(r *store.Record) bool {
	if !u.tee || r.Body == "" {
		return false
	}
	for i := range u.rest {
		if u.rest[i].to.bodiless {
			continue
		}
		_, known := u.rest[i].bodies[bodyKey{r.Body, r.SHA256}]
		return !known || r.BodyOf() != u.job
	}
	return false
}

// add adds a record whose body is known.
func (c *copied) add(s *Store, r *store.Record) error {
	if body := c.bodies[bodyKey{r.Body, r.SHA256}]; !c.to.bodiless && body != r.Body {
		its := *r
		its.Body = body
		r = &its
	}
	return s.addTo(c.to, c.unit, r)
}

// Commit commits to the first store, which decides, and then to the rest. When it fails after that, the unit is visible
// in the first store and not everywhere: the next Commit goes on, and so does whoever asks for its account.
func (u *unit) Commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, errEnded)
	}
	if u.winner == nil {
		winner, won, err := u.first.Commit(ctx, a)
		if err != nil {
			return nil, false, err
		}
		u.winner, u.won = winner, won
	}
	u.s.at("first")
	if err := u.commitRest(ctx); err != nil {
		return nil, false, copyTrouble(fmt.Errorf("unit %s is in %s and not everywhere else: %w", u.name, u.s.first, err))
	}
	u.ended = true
	return u.winner, u.won, nil
}

// commitRest brings the rest to where the first store is: with this unit, or with the winner's.
func (u *unit) commitRest(ctx context.Context) error {
	if !u.won {
		_ = u.discardRest() // what it fails to remove, Sweep will
		return u.s.copyMissing(ctx, u.job, u.name, u.winner)
	}
	for i := range u.rest {
		c := &u.rest[i]
		if c.done {
			continue
		}
		if err := u.commitTo(ctx, c); err != nil {
			return c.to.wrap(err)
		}
		c.done = true
		u.s.at("later")
	}
	return nil
}

func (u *unit) commitTo(ctx context.Context, c *copied) error {
	if err := u.fill(ctx, c); err != nil {
		return err
	}
	theirs, _, err := c.unit.Commit(ctx, u.winner)
	if errors.Is(err, store.ErrRecord) { // nobody can say which record it is
		u.s.note(c.to.wrap(err))
		_ = c.unit.Discard()
		return u.s.copyUnit(ctx, c.to, u.job, u.winner, true)
	}
	if err == nil {
		u.s.compare(c.to, u.winner, theirs)
	}
	return err
}

// fill adds the records whose bodies are taken from the first store.
func (u *unit) fill(ctx context.Context, c *copied) error {
	for ; c.filled < len(u.absent); c.filled++ {
		if err := u.s.copyRecord(ctx, c.to, c.unit, u.absent[c.filled], false); err != nil {
			return err
		}
	}
	return nil
}

// Discard drops the unit in every store that has not committed it.
func (u *unit) Discard() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.ended = true
	return errors.Join(u.first.Discard(), u.discardRest())
}

func (u *unit) discardRest() error {
	var err error
	for i := range u.rest {
		if c := &u.rest[i]; c.unit != nil {
			err = errors.Join(err, c.to.wrap(c.unit.Discard()))
		}
	}
	return err
}
