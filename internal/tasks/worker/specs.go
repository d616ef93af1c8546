package worker

import (
	"context"
	"sync"

	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// specs remembers the specs of jobs, which never change.
type specs struct {
	ledger *ledger.Ledger
	log    zerolog.Logger
	mu     sync.Mutex
	known  map[tasks.JobID]specEntry
}

type specEntry struct {
	spec tasks.Spec
	rule tasks.RetryRule
}

// knownSpecs is how many are remembered; a fleet rarely works on more jobs at once.
const knownSpecs = 1000

func newSpecs(l *ledger.Ledger, log zerolog.Logger) *specs {
	return &specs{ledger: l, log: log, known: map[tasks.JobID]specEntry{}}
}

func (s *specs) get(ctx context.Context, job tasks.JobID) (specEntry, error) {
	s.mu.Lock()
	e, ok := s.known[job]
	s.mu.Unlock()
	if ok {
		return e, nil
	}
	spec, err := s.ledger.Spec(ctx, job)
	if err != nil {
		return e, err
	}
	rule, err := spec.RetryOn.Compile()
	if err != nil {
		return e, err
	}
	e = specEntry{spec: spec, rule: rule}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.known) >= knownSpecs {
		clear(s.known)
	}
	if _, known := s.known[job]; spec.Insecure && !known {
		s.log.Warn().Str("job", string(job)).Msg("job verifies no certificates: whoever is on the way can read and change its answers")
	}
	s.known[job] = e
	return e, nil
}
