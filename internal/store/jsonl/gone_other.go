//go:build !windows

package jsonl

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// isGone tells an output that is lost for good from one that is in trouble, such as a full disk.
func isGone(err error) bool {
	return errors.Is(err, syscall.EPIPE) || errors.Is(err, io.ErrClosedPipe) || errors.Is(err, os.ErrClosed)
}
