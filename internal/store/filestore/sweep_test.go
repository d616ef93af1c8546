package filestore

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

func TestSweepTakesOnlyWhatIsOldAndDead(t *testing.T) {
	dir := t.TempDir()
	mine, dead := openTest(t, dir, Options{Worker: "mine"}), openTest(t, dir, Options{Worker: "a.b/c~d"})
	alive, account := crashUnitBegun(t, mine, 4)
	abandoned, _ := crashUnitBegun(t, dead, 9)
	for _, u := range []store.Unit{alive, abandoned} {
		if err := u.(*unit).spillRecords(); err != nil {
			t.Fatal(err)
		}
	}
	probe := filepath.Join(dir, disk.ProbePrefix+"x")
	if err := os.WriteFile(probe, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	before := len(tmpFiles(t, mine, crashJob))
	if n, err := mine.Sweep(t.Context(), crashJob, time.Hour); err != nil || n != 0 {
		t.Errorf("Sweep of what is older than an hour = %d, %v, want none", n, err)
	}
	n, err := mine.Sweep(t.Context(), crashJob, 0)
	if err != nil {
		t.Fatal(err)
	}
	left := len(tmpFiles(t, mine, crashJob))
	if left != 2 || before != 4 || n != before-left+1 {
		t.Errorf("Sweep removed %d and left %d of %d, want the large body and the records of the live unit left", n, left, before)
	}
	if _, err := os.Stat(probe); err == nil {
		t.Error("an old probe is still there")
	}
	if _, won, err := alive.Commit(t.Context(), account); err != nil || !won {
		t.Errorf("Commit of the live unit: won %v, %v", won, err)
	}
	wantUnitsWhole(t, mine)
}

func TestSweepOfNothing(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	if n, err := s.Sweep(t.Context(), "no-such-job", 0); n != 0 || err != nil {
		t.Errorf("Sweep = %d, %v", n, err)
	}
	if _, err := s.Sweep(t.Context(), "../x", 0); err == nil {
		t.Error("Sweep took a bad name")
	}
}
