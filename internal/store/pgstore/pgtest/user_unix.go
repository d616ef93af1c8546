//go:build unix

package pgtest

import (
	"os"
	"os/exec"
	"os/user"
	"strconv"
	"syscall"
)

// immediate is the signal of "pg_ctl stop -m immediate".
const immediate = syscall.SIGQUIT

// other returns whom a server runs as where this process is root's, nil where it is not.
func other() *syscall.Credential {
	if os.Getuid() != 0 {
		return nil
	}
	for _, name := range []string{"postgres", "nobody"} {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		uid, uerr := strconv.ParseUint(u.Uid, 10, 32)
		gid, gerr := strconv.ParseUint(u.Gid, 10, 32)
		if uerr == nil && gerr == nil {
			return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		}
	}
	return nil
}

// giveAway makes files those of the server's user.
func giveAway(paths ...string) error {
	c := other()
	if c == nil {
		return nil
	}
	for _, path := range paths {
		if err := os.Chown(path, int(c.Uid), int(c.Gid)); err != nil {
			return err
		}
	}
	return nil
}

func asUser(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Credential: other()} }
