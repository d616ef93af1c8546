package filestore

import (
	"errors"
	"strconv"

	"golang.org/x/sys/unix"
)

// putNameless writes data to a new file without a name, which the kernel drops if nobody links it, and then links it.
// The folder must exist and the name be free.
func putNameless(to string, data []byte) error {
	fd, err := retry(func() (int, error) {
		return unix.Open(folderOf(to), unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	})
	if err != nil {
		return err
	}
	err = writeAll(fd, data)
	if err == nil {
		err = linkNameless(fd, to)
	}
	// After EINTR the descriptor is gone and nothing is lost; any other error is the file's (quotas).
	if cerr := unix.Close(fd); err == nil && !errors.Is(cerr, unix.EINTR) {
		err = cerr
	}
	return err
}

// linkNameless gives a file a name, which must be free. Kernels before 6.10 want a capability for the direct way and
// answer ENOENT without it, as they do when the folder is missing; the way through /proc is open to all.
func linkNameless(fd int, to string) error {
	err := unix.Linkat(fd, "", unix.AT_FDCWD, to, unix.AT_EMPTY_PATH)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

// isNoNameless says that the file system has no nameless files (NFS, older overlayfs), or that a name cannot be given
// because /proc is not mounted.
func isNoNameless(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL)
}

// hasProc says whether a nameless file can be given a name here.
func hasProc() bool { return unix.Access("/proc/self/fd", unix.X_OK) == nil }
