//go:build unix

package parts

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// closeFirst is false where a file that is open can be renamed and removed.
const closeFirst = false

// lock takes the file for its holder, or returns store.ErrBusy. It ends when the file is closed, by whatever end.
func lock(file *os.File) error {
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EWOULDBLOCK):
			return store.ErrBusy
		default:
			return err
		}
	}
}

// syncFolder makes the names in a folder durable.
func syncFolder(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
