package filestore

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestFullDisk(t *testing.T) {
	dir := disktest.Small(t, 1<<20)
	s := openTest(t, dir, Options{})
	for claim, n := range map[string]int{"a streamed body": 3 << 20, "a body of many writes": 1<<20 + 1} {
		_, err := tryUnit(t, s, "b1", n)
		wantFull(t, claim, err, dir)
	}
	if left := tmpFiles(t, s, crashJob); len(left) > 0 {
		t.Errorf("bodies that did not fit left %q", left)
	}

	u, account := crashUnitBegun(t, s, 3)
	free := disktest.Fill(t, dir)
	wantFull(t, "Check", s.Check(t.Context()), dir)
	_, _, err := u.Commit(t.Context(), account)
	wantFull(t, "Commit", err, dir)
	if seen := wantUnitsWhole(t, s); len(seen) != 0 {
		t.Errorf("units %v are visible on a full disk", seen)
	}
	_, err = tryUnit(t, s, "b2", 60_000)
	wantFull(t, "a small body", err, dir)

	free()
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with space again: %v", err)
	}
	if _, won, err := u.Commit(t.Context(), account); err != nil || !won {
		t.Errorf("Commit of the same unit with space again: won %v, %v", won, err)
	}
	if seen := wantUnitsWhole(t, s); !seen[3] || len(tmpFiles(t, s, crashJob)) != 0 {
		t.Errorf("units %v are visible, tmp holds %q", seen, tmpFiles(t, s, crashJob))
	}
}

func wantFull(t *testing.T, what string, err error, dir string) {
	t.Helper()
	wantSays(t, what, err, "no space left on "+dir)
	if errors.Is(err, store.ErrRecord) || !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%s = %v, want an error of the store that wraps ENOSPC", what, err)
	}
}

func TestReadOnlyMount(t *testing.T) {
	dir := disktest.Small(t, 1<<20)
	s := openTest(t, dir, Options{})
	u, account := crashUnitBegun(t, s, 4)
	if _, _, err := u.Commit(t.Context(), account); err != nil {
		t.Fatal(err)
	}
	half, halfAccount := crashUnitBegun(t, s, 3)
	s.step = at("linked", func() {
		if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
			t.Errorf("remount: %v", err)
		}
	})
	_, _, err := half.Commit(t.Context(), halfAccount)
	wantSays(t, "Commit", err, "read-only")
	wantSays(t, "Check", s.Check(t.Context()), "read-only")
	_, err = tryUnit(t, s, "b1", 100)
	wantSays(t, "a unit", err, "read-only")

	// What was committed can be read, also the unit whose records could not be renamed any more.
	reader := openTest(t, dir, Options{Sync: SyncOff})
	if seen := wantUnitsWhole(t, reader); len(seen) != 2 {
		t.Errorf("units %v are visible, want 2", seen)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT, ""); err != nil {
		t.Fatal(err)
	}
	if err := half.Discard(); err != nil {
		t.Errorf("Discard: %v", err)
	}
	if seen := wantUnitsWhole(t, reader); len(seen) != 2 {
		t.Errorf("after Discard of a linked unit units %v are visible, want 2", seen)
	}
}
