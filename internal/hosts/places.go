package hosts

import (
	"context"
	"slices"
	"sync"
)

// places is a semaphore whose size may change while it is in use: those who hold a place keep it, and until enough
// have given theirs back nobody else gets one. Those who wait are served in turn. The zero value has no limit.
type places struct {
	mu    sync.Mutex
	limit int // 0 = none
	taken int
	line  []chan struct{} // closed as its owner gets a place
}

// take waits for a place. On an error none is held.
func (p *places) take(ctx context.Context) error {
	p.mu.Lock()
	if len(p.line) == 0 && p.room() {
		p.taken++
		p.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	p.line = append(p.line, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.giveUp(turn)
	return context.Cause(ctx)
}

// giveUp leaves the line, and passes a place on that was given at that very moment.
func (p *places) giveUp(turn chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if i := slices.Index(p.line, turn); i >= 0 {
		p.line = slices.Delete(p.line, i, i+1)
		return
	}
	p.taken--
	p.admit()
}

func (p *places) free() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	p.admit()
}

func (p *places) resize(limit int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.limit = limit
	p.admit()
}

// shrink takes away the places that are free, but one, unless somebody waits for one, and returns how many there are.
func (p *places) shrink() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit > 0 && len(p.line) == 0 {
		p.limit = min(p.limit, max(1, p.taken))
	}
	return p.limit
}

func (p *places) room() bool { return p.limit == 0 || p.taken < p.limit }

// admit gives places to those in line while there are any.
func (p *places) admit() {
	for len(p.line) > 0 && p.room() {
		close(p.line[0])
		p.line = p.line[1:]
		p.taken++
	}
}
