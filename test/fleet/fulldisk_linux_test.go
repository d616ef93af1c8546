package fleet_test

import (
	"path/filepath"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
)

func fullDisk(t *testing.T) (store string, takeAway, giveBack func()) {
	dir := disktest.Small(t, 256<<20)
	var free func()
	return "warc:" + filepath.Join(dir, "store"), func() { free = disktest.Fill(t, dir) }, func() { free() }
}
