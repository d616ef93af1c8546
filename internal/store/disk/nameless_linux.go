package disk

import (
	"errors"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Nameless is a file without a name, which the kernel drops if nobody links it.
type Nameless struct{ fd int }

// OpenNameless makes one in a folder, which must exist.
func OpenNameless(folder string) (Nameless, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(folder, unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	})
	return Nameless{fd}, err
}

// Write appends.
func (f Nameless) Write(p []byte) (int, error) {
	if err := writeAll(f.fd, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// Link gives the file a name, which must be free. Kernels before 6.10 want a capability for the direct way and answer
// ENOENT without it, as they do when the folder is missing; the way through /proc is open to all.
func (f Nameless) Link(to string) error {
	err := unix.Linkat(f.fd, "", unix.AT_FDCWD, to, unix.AT_EMPTY_PATH)
	if !errors.Is(err, unix.ENOENT) {
		return err
	}
	return unix.Linkat(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(f.fd), unix.AT_FDCWD, to, unix.AT_SYMLINK_FOLLOW)
}

// Close closes the file. After EINTR the descriptor is gone and nothing is lost; any other error is the file's (quotas).
func (f Nameless) Close() error {
	if err := unix.Close(f.fd); !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

// PutNameless writes data to a new file without a name and then links it. The folder must exist and the name be free.
func PutNameless(to string, data []byte) error {
	f, err := OpenNameless(to[:strings.LastIndexByte(to, filepath.Separator)])
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Link(to)
	}
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// IsNoNameless says that the file system has no nameless files (NFS, older overlayfs), or that a name cannot be given
// because /proc is not mounted.
func IsNoNameless(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) || errors.Is(err, unix.EINVAL)
}

// HasProc says whether a nameless file can be given a name here.
func HasProc() bool { return unix.Access("/proc/self/fd", unix.X_OK) == nil }
