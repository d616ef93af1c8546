package jsonl

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// errNoData is ERROR_NO_DATA: the pipe is being closed.
const errNoData = syscall.Errno(232)

// isGone tells an output that is lost for good from one that is in trouble, such as a full disk.
func isGone(err error) bool {
	return errors.Is(err, syscall.ERROR_BROKEN_PIPE) || errors.Is(err, errNoData) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, os.ErrClosed)
}
