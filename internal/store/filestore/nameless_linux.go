package filestore

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// writeNameless writes data to a new file without a name, which the kernel drops if nobody links it. The file lies on
// the file system of folder, which must exist.
func writeNameless(folder string, data []byte) (fd int, err error) {
	fd, err = retry(func() (int, error) {
		return unix.Open(folder, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	})
	if err != nil {
		return -1, err
	}
	if err := writeAll(fd, data); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// linkNameless gives the file a name, which must be free.
func linkNameless(fd int, to string) error {
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

func closeNameless(fd int) error { return unix.Close(fd) }

// isNoNameless says that the file system has no nameless files (NFS, older overlayfs), or that a name cannot be given
// because /proc is not mounted.
func isNoNameless(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL)
}

// namelessLimit is how many files a store may hold open for bodies that wait for their commit: a quarter of what the
// process may open, because connections need the rest.
func namelessLimit() int64 {
	var limit unix.Rlimit
	if unix.Access("/proc/self/fd", unix.X_OK) != nil || unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) != nil {
		return 0
	}
	return int64(min(limit.Cur/4, 1<<14))
}
