//go:build unix

package disk

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// WriteFile makes a new file with data in it. It goes past package os because a body is mostly one small file, and
// os.File costs an epoll registration, a finalizer and four allocations more than the three calls that are needed.
func WriteFile(path string, data []byte) error {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_CLOEXEC, 0o644)
	})
	if err != nil {
		return err
	}
	if err := writeAll(fd, data); err != nil {
		_ = unix.Close(fd)
		return err
	}
	// After EINTR the descriptor is gone on Linux and nothing is lost; any other error is the file's (NFS, quotas).
	if err := unix.Close(fd); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	return nil
}

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		n, err := retry(func() (int, error) { return unix.Write(fd, data) })
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// Rename is rename(2), without the look at the target that package os takes.
func Rename(from, to string) error {
	_, err := retry(func() (int, error) { return 0, unix.Rename(from, to) })
	return err
}

// IsFull says that there is no space, or none for this user.
func IsFull(err error) bool {
	return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT)
}

// IsReadOnly says that the file system is mounted read-only.
func IsReadOnly(err error) bool { return errors.Is(err, unix.EROFS) }

// IsIOError says that the disk failed.
func IsIOError(err error) bool { return errors.Is(err, unix.EIO) }

// IsTooManyFiles says that a limit on open files is reached.
func IsTooManyFiles(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE)
}

// IsBadName says that the file system refuses a name.
func IsBadName(err error) bool {
	return errors.Is(err, unix.ENAMETOOLONG) || errors.Is(err, unix.EILSEQ)
}

// IsNoLinks says that a file system has no hard links. EPERM is what Linux says of FAT.
func IsNoLinks(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENOTSUP) || errors.Is(err, unix.EOPNOTSUPP) ||
		errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EMLINK)
}

// SyncFile flushes a file or folder.
func SyncFile(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
