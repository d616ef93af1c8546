//go:build !windows

package fetch

import "syscall"

// errnoClasses says what a system error means when it ends a dial or an exchange.
var errnoClasses = map[error]Class{
	syscall.ECONNREFUSED:  ConnectRefused,
	syscall.ENETUNREACH:   ConnectUnreachable,
	syscall.EHOSTUNREACH:  ConnectUnreachable,
	syscall.ENETDOWN:      ConnectUnreachable,
	syscall.EHOSTDOWN:     ConnectUnreachable,
	syscall.EADDRNOTAVAIL: ConnectUnreachable,
	syscall.EACCES:        ConnectUnreachable, // a firewall's answer
	syscall.EPERM:         ConnectUnreachable, // likewise
	syscall.EINVAL:        ConnectUnreachable, // a link-local address without a zone
	syscall.ETIMEDOUT:     ConnectTimeout,
	syscall.ECONNRESET:    Reset,
	syscall.ECONNABORTED:  Reset,
	syscall.EPIPE:         Reset,
}
