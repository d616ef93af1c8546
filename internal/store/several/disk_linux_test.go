package several

import (
	"errors"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
)

func TestASecondStoreThatIsFullForAWhileLosesNothing(t *testing.T) {
	dir := disktest.Small(t, 1<<20)
	one, two := folder(t, t.TempDir()), folder(t, dir)
	s := New(Options{}, one, two)
	committed(t, s, "b1", "d1", page{"a", "alpha"})
	ready, account := begun(t, s, "b2", "d2", page{"b", "beta"})
	free := disktest.Fill(t, dir)

	_, _, err := ready.Commit(t.Context(), account)
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Errorf("Commit = %v, want it to say that %s is full", err, dir)
	}
	if err := ready.Discard(); err != nil {
		t.Error(err)
	}
	if err := s.Check(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Check = %v, want it to fail as long as a store is full", err)
	}
	if _, err := s.Account(t.Context(), job, "b2"); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("Account = %v, want no account that is not everywhere", err)
	}

	free()
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with space again: %v", err)
	}
	if a, err := s.Account(t.Context(), job, "b2"); err != nil || a.Delivery != "d2" {
		t.Errorf("Account with space again = %v, %v", a, err)
	}
	wantSame(t, one, two, 2)
}
