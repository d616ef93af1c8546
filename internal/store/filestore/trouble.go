package filestore

import (
	"errors"
	"fmt"
	"os"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// trouble wraps an error of the file system with what was done, where, and what a person can do about it.
func trouble(op, path string, err error) error {
	switch {
	case isFull(err):
		return fmt.Errorf("%s: no space left on %s: free some; a running worker then goes on by itself: %w", op, path, err)
	case isReadOnly(err):
		return fmt.Errorf("%s: %s is on a read-only file system: mount it writable or choose another folder: %w",
			op, path, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: no permission for %s: give this user (uid %d) the right to write there: %w",
			op, path, os.Getuid(), err)
	case isIOError(err):
		return fmt.Errorf("%s: the disk under %s reports errors: check it before going on: %w", op, path, err)
	case isTooManyFiles(err):
		return fmt.Errorf("%s %s: too many open files: raise the limit (ulimit -n): %w", op, path, err)
	}
	return fmt.Errorf("%s %s: %w", op, path, err)
}

// bodyTrouble is trouble, but a name that the file system refuses is the matter of that one record.
func bodyTrouble(op, path string, err error) error {
	if isBadName(err) {
		return fmt.Errorf("%s %s: %w (%w)", op, path, store.ErrRecord, err)
	}
	return trouble(op, path, err)
}
