package disk

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// ByPath is false here: syncfs(2) flushes the whole file system at once, whatever a commit wrote and renamed.
const ByPath = false

// flusher returns the flush of a round. The folder stays open because the kernel reports a failed write-back once to
// each open file (Linux 5.8 and later).
func flusher(folder *os.File) func([]string) error {
	return func([]string) error {
		for {
			if err := unix.Syncfs(int(folder.Fd())); err != unix.EINTR {
				return err
			}
		}
	}
}

// namedAt returns when a file last got a name: link(2) sets the time of change.
func namedAt(fi os.FileInfo) (time.Time, bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}, false
	}
	return time.Unix(int64(st.Ctim.Sec), int64(st.Ctim.Nsec)), true //nolint:unconvert // 32 bits wide on some platforms
}
