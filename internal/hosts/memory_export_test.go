package hosts

import "fmt"

// Left says what a Memory still holds for anybody, "" for nothing.
func (m *Memory) Left() (left string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for name, h := range m.sites {
		if len(h.line)+len(h.visits)+len(h.jobs) > 0 || !h.due.IsZero() || h.scout != "" {
			left += fmt.Sprintf("%s: %d in line, %d visits, %d jobs, due %s, scout %q, called %q at %s, until %s, next %s, slow %v\n", name, len(h.line), len(h.visits), len(h.jobs), h.due, h.scout, h.called, h.calledAt, h.until,
				h.next(h.terms(m.now()), m.now()), h.tempo)
		}
	}
	return left
}
