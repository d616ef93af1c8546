//go:build !linux

package disk

import (
	"errors"
	"os"
	"slices"
	"time"
)

// ByPath is true where no call flushes a file system as a whole and waits: files and folders are flushed one by one.
const ByPath = true

// flusher returns the flush of a round: each file and folder once.
func flusher(*os.File) func([]string) error {
	return func(paths []string) error {
		slices.Sort(paths)
		for _, p := range slices.Compact(paths) {
			// What is gone is its owner's Trouble, who will miss it; the rest of the round is not to suffer.
			if err := SyncFile(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	}
}

// namedAt does not know.
func namedAt(os.FileInfo) (time.Time, bool) { return time.Time{}, false }
