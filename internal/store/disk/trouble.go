package disk

import (
	"errors"
	"fmt"
	"os"
)

// Trouble wraps an error of the file system with what was done, where, and what a person can do about it.
func Trouble(op, path string, err error) error {
	switch {
	case IsFull(err):
		return fmt.Errorf("%s: no space left on %s: free some; a running worker then goes on by itself: %w", op, path, err)
	case IsReadOnly(err):
		return fmt.Errorf("%s: %s is on a read-only file system: mount it writable or choose another folder: %w",
			op, path, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s: no permission for %s: give this user (uid %d) the right to write there: %w",
			op, path, os.Getuid(), err)
	case IsIOError(err):
		return fmt.Errorf("%s: the disk under %s reports errors: check it before going on: %w", op, path, err)
	case IsTooManyFiles(err):
		return fmt.Errorf("%s %s: too many open files: raise the limit (ulimit -n): %w", op, path, err)
	}
	return fmt.Errorf("%s %s: %w", op, path, err)
}

// NoLinks says what to do about a file system on which IsNoLinks is true.
func NoLinks(dir string, err error) error {
	return fmt.Errorf("the file system of %s does not allow hard links, which commits rely on: "+
		"choose a folder on another one: %w", dir, err)
}
