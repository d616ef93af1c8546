package parts

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// closeFirst is true where a file that is open can be neither renamed nor removed. Somebody else may take it between
// the two; the call then fails, and the part is theirs.
const closeFirst = true

// lock takes the file for its holder, or returns store.ErrBusy. What is locked is one byte far behind all others, since
// a lock keeps others from reading, too.
func lock(file *os.File) error {
	const exclusive = windows.LOCKFILE_EXCLUSIVE_LOCK | windows.LOCKFILE_FAIL_IMMEDIATELY
	at := &windows.Overlapped{Offset: 0xfffffffe, OffsetHigh: 0x7fffffff}
	err := windows.LockFileEx(windows.Handle(file.Fd()), exclusive, 0, 1, 0, at)
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		return store.ErrBusy
	}
	return err
}

// syncFolder does nothing: NTFS journals its names in order.
func syncFolder(string) error { return nil }
