package worker

import (
	"context"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// crashes is how many deliveries of a batch may begin and vanish before the next splits it, or fails its one request.
const crashes = 3

// suspects are the batches under way at this worker whose deliveries vanished before. Whoever is in flight beside a
// request that ends its worker vanishes with it and would in the end be taken for the cause. So a batch of one, which
// would fail, goes alone among the suspects; a batch of more, which would only be split, goes beside others of its kind.
// A batch that is not suspected yet may still be in flight beside them.
type suspects struct {
	mu     sync.Mutex
	alone  bool
	beside int
}

func (s *suspects) tryAlone() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone || s.beside > 0 {
		return false
	}
	s.alone = true
	return true
}

func (s *suspects) leaveAlone() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.alone = false
}

func (s *suspects) tryBeside() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.alone {
		return false
	}
	s.beside++
	return true
}

func (s *suspects) leaveBeside() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beside--
}

// hasCompany reports whether batches are under way beside which others may go.
func (s *suspects) hasCompany() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.beside > 0
}

// How long a suspect waits for its turn. Waiting in a visit is cheap, and who is deferred comes behind all that is pending.
const (
	turnPatience = 10 * time.Second
	// companyPatience is how long a batch of one puts up with being kept from its turn by batches of more. They may take
	// long; others of one follow one another fast.
	companyPatience = 2 * time.Second
	turnInterval    = 20 * time.Millisecond
)

// begin begins the delivery, unless so many have vanished that its batch is a suspect.
func (d *delivery) begin(ctx context.Context) error {
	if err := d.count(ctx, ledger.Start{Suspect: crashes - 1}); err != nil {
		return err
	}
	if d.state.State == ledger.BatchSuspect {
		return d.lastChance(ctx)
	}
	return d.proceed(ctx)
}

// lastChance works a batch whose next crash decides on it. Turns are taken before the delivery is counted. A batch of one
// that company has kept from its turn goes beside it, and then a crash does not decide yet.
func (d *delivery) lastChance(ctx context.Context) error {
	alone := d.single != "" && d.turnAlone(ctx)
	switch {
	case alone:
		defer d.suspects.leaveAlone()
	case d.turnBeside(ctx):
		defer d.suspects.leaveBeside()
	default:
		return inTurn()
	}
	if d.single != "" { // the shorter it is under way, the less often it is when its worker vanishes for another reason
		d.number = 0
	}
	if err := d.count(ctx, ledger.Start{Company: !alone}); err != nil {
		return err
	}
	return d.proceed(ctx)
}

// splitOff works a batch that came of one whose workers vanished. It may hold the cause, so it keeps clear of those on
// their last chance from the first; and once a worker has vanished with it, it is a suspect itself.
func (d *delivery) splitOff(ctx context.Context) error {
	if !d.turnBeside(ctx) {
		return inTurn()
	}
	release := sync.OnceFunc(d.suspects.leaveBeside)
	defer release()
	if err := d.count(ctx, ledger.Start{Suspect: 1}); err != nil {
		return err
	}
	if d.state.State == ledger.BatchSuspect {
		release()
		return d.lastChance(ctx)
	}
	return d.proceed(ctx)
}

// inTurn defers a suspect whose turn did not come.
func inTurn() error {
	return deferBatch(time.Second, "put off: its workers vanished, so it takes turns with others like it")
}

func (d *delivery) turnAlone(ctx context.Context) bool {
	var company time.Time // since when there has been some
	return d.turn(ctx, func() (got, giveUp bool) {
		switch {
		case d.suspects.tryAlone():
			return true, false
		case !d.suspects.hasCompany():
			company = time.Time{}
		case company.IsZero():
			company = time.Now()
		}
		return false, !company.IsZero() && time.Since(company) > companyPatience
	})
}

func (d *delivery) turnBeside(ctx context.Context) bool {
	return d.turn(ctx, func() (got, giveUp bool) { return d.suspects.tryBeside(), false })
}

// turn tries again and again to take the turn of a suspect.
func (d *delivery) turn(ctx context.Context, try func() (got, giveUp bool)) bool {
	look := time.NewTicker(turnInterval)
	defer look.Stop()
	for end := time.After(turnPatience); ; {
		if got, giveUp := try(); got || giveUp {
			return got
		}
		select {
		case <-look.C:
		case <-end:
			return false
		case <-ctx.Done():
			return false
		case <-d.stopping.Done():
			return false
		}
	}
}

// condemned reports whether so many deliveries have vanished that the batch is not tried again. For a batch of one those
// do not count at first that vanished beside other suspects.
func (d *delivery) condemned() bool {
	vanished := d.state.Begun - 1
	if d.single != "" && vanished < 2*crashes {
		vanished -= d.state.Company
	}
	return vanished >= crashes
}
