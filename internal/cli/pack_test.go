package cli

import (
	"context"
	"errors"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/progress"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warcstore"
)

// Ctrl-C while the store packs ends the run as it does at any other moment: what is not packed is packed by the next.
func TestCtrlCWhilePackingInterruptsTheRun(t *testing.T) {
	s, err := warcstore.Open(t.Context(), t.TempDir(), warcstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	storeUnit(t, s, "b1", 0, store.OK)
	l := &local{member: &member{store: s}, producer: &producer{job: "spring"}}
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errInterrupted)
	err = l.pack(ctx)
	var exit *exitError
	if !errors.Is(err, errInterrupted) || !errors.As(l.exit(progress.Summary{}, err), &exit) || exit.code != ExitInterrupted {
		t.Errorf("pack = %v, want what ends a run that was interrupted", err)
	}
	if err := l.pack(t.Context()); err != nil {
		t.Errorf("packing later: %v", err)
	}
	if files, err := s.Packed(t.Context(), "spring"); err != nil || len(files) == 0 {
		t.Errorf("packed later are %q, %v", files, err)
	}
}
