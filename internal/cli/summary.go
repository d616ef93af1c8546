package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/progress"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

// pack has the store pack what the job has left there, where it does that.
func (l *local) pack(ctx context.Context) error {
	c, ok := l.member.store.(store.Compactor)
	if !ok {
		return nil
	}
	switch err := c.Compact(ctx, string(l.producer.job)); {
	case err == nil, errors.Is(err, store.ErrBusy):
		return nil
	case ctx.Err() != nil: // what is not packed now is packed by the next run or export
		return context.Cause(ctx)
	default:
		return fmt.Errorf("pack the store: %w", err)
	}
}

// results writes results.jsonl and gathers the summary from it.
func (l *local) results(ctx context.Context) (progress.Summary, error) {
	path := filepath.Join(l.Out, "results.jsonl")
	latency := &progress.Latency{}
	err := writeAtomically(path, func(w io.Writer) error {
		return writeResults(ctx, w, l.member.kept(), l.producer.job, func(r *store.Record) {
			l.producer.since.saw(r)
			if r.Timings != nil && r.FetchedAt.After(l.began) {
				latency.Observe(hostOf(r), time.Duration(r.Timings.Total*float64(time.Millisecond)))
			}
		})
	})
	if err != nil {
		return progress.Summary{}, fmt.Errorf("write the results: %w", err)
	}
	s := progress.SummaryOf(string(l.producer.job), l.last, time.Since(l.began))
	s.Latency, s.Output = latency, path
	s.Earlier = l.earlier
	return s, nil
}

func (l *local) show(s progress.Summary, interrupted error) error {
	if l.Quiet && !l.JSON {
		return nil
	}
	s.State = stateAfter(s.State, interrupted)
	if errors.Is(interrupted, errInterrupted) {
		s.Notes = append(s.Notes, "run the same command again to continue")
	} else if interrupted != nil {
		s.Notes = append(s.Notes, "what was done is safe: mend what is wrong and run the same command again to continue")
	} else if failed := s.Outcomes["failed"] + s.Outcomes["http_error"]; failed > 0 && !l.once {
		s.Notes = append(s.Notes, fmt.Sprintf("--retry-failed takes the %d that failed again", failed))
	}
	if since := l.producer.since; since != nil && interrupted == nil {
		s.Notes = append(s.Notes, since.told(l.producer.enqueuer.Counts())...)
	}
	if l.held.Load()*2 > l.looks.Load() {
		s.Notes = append(s.Notes, "host limits held the run back: --host-rate and --host-conns change them")
	}
	if l.JSON {
		return s.WriteJSON(l.w.Stdout)
	}
	return s.WriteText(l.summaryTo())
}

func stateAfter(state string, interrupted error) string {
	switch {
	case errors.Is(interrupted, errInterrupted):
		return "interrupted"
	case interrupted != nil:
		return "stopped"
	}
	return state
}

func (l *local) exit(s progress.Summary, interrupted error) error {
	switch {
	case errors.Is(interrupted, errInterrupted):
		return &exitError{code: ExitInterrupted}
	case interrupted != nil:
		return interrupted
	case s.BadLines > 0, s.Outcomes["ok"] < sum(s.Outcomes):
		return &exitError{code: ExitIncomplete}
	}
	return nil
}

func sum(counts map[string]int64) int64 {
	var n int64
	for _, count := range counts {
		n += count
	}
	return n
}
