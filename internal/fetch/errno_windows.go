package fetch

import "golang.org/x/sys/windows"

// errnoClasses says what a system error means when it ends a dial or an exchange.
var errnoClasses = map[error]Class{
	windows.WSAECONNREFUSED:  ConnectRefused,
	windows.WSAENETUNREACH:   ConnectUnreachable,
	windows.WSAEHOSTUNREACH:  ConnectUnreachable,
	windows.WSAENETDOWN:      ConnectUnreachable,
	windows.WSAEHOSTDOWN:     ConnectUnreachable,
	windows.WSAEADDRNOTAVAIL: ConnectUnreachable,
	windows.WSAEACCES:        ConnectUnreachable,
	windows.WSAEINVAL:        ConnectUnreachable,
	windows.WSAETIMEDOUT:     ConnectTimeout,
	windows.WSAECONNRESET:    Reset,
	windows.WSAECONNABORTED:  Reset,
	windows.WSAENETRESET:     Reset,
}
