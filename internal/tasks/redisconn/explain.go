package redisconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/redis/go-redis/v9"
)

// Errors that Explain adds, for callers that decide by them.
var (
	ErrUnreachable = errors.New("redis is not reachable")        // worth another try later
	ErrPassword    = errors.New("redis refuses the credentials") // not before somebody changes them
	ErrVersion     = errors.New("redis is too old")              // not before somebody upgrades it
)

// Explain turns the usual failures of Redis into errors that say what is wrong and what to do. Any other error, and
// nil, is returned as it is. The original stays wrapped.
func Explain(err error) error { return explain(err, "") }

// explain knows the server's address where the error does not.
func explain(err error, addr string) error {
	var op *net.OpError
	var dns *net.DNSError
	if errors.As(err, &op) && op.Addr != nil {
		addr = op.Addr.String()
	}
	at := "Redis"
	if addr != "" {
		at = "Redis at " + addr
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, ErrUnreachable), errors.Is(err, ErrPassword), errors.Is(err, ErrVersion):
		return err
	case errors.As(err, &dns):
		return fault(ErrUnreachable, err, "no host %q for Redis: check --redis URL", dns.Name)
	case isRefused(err):
		return fault(ErrUnreachable, err, "no %s: start one or give --redis URL", at)
	case redis.IsAuthError(err) && !strings.Contains(err.Error(), "NOAUTH"):
		return fault(ErrPassword, err, "wrong user or password for %s: check --redis URL", at)
	case redis.HasErrorPrefix(err, "NOAUTH"), redis.IsAuthError(err):
		return fault(ErrPassword, err, "%s wants a password: give --redis redis://:PASSWORD@HOST:PORT/DB", at)
	case redis.HasErrorPrefix(err, "NOPERM"):
		return fault(ErrPassword, err, "the user of %s may not run a command that is needed", at)
	case redis.IsLoadingError(err):
		return fault(ErrUnreachable, err, "%s is still loading its data: wait and try again", at)
	case redis.IsReadOnlyError(err):
		return fault(ErrUnreachable, err, "%s is a read-only replica: give the master, or a redis-sentinel:// URL", at)
	case redis.IsOOMError(err):
		return fault(ErrUnreachable, err, "%s is out of memory: raise its maxmemory", at)
	case isTimeout(err):
		return fault(ErrUnreachable, err, "%s does not answer in time: check the network and --redis URL", at)
	case strings.Contains(err.Error(), "all sentinels specified in configuration are unreachable"):
		return fault(ErrUnreachable, err, "no sentinel answers: check --redis URL and its master name")
	case strings.Contains(err.Error(), "first record does not look like a TLS handshake"):
		return fault(ErrUnreachable, err, "%s does not speak TLS: write redis:// instead of rediss://", at)
	}
	return err
}

// isRefused looks at the text as well, because Windows has a number and a sentence of its own and sentinel errors keep
// nothing but text.
func isRefused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || strings.Contains(err.Error(), "connection refused") ||
		strings.Contains(err.Error(), "actively refused")
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &timeout) && timeout.Timeout()
}

// explained is an error with a message for people, a kind for callers, and its cause for logs.
type explained struct {
	message     string
	kind, cause error
}

func fault(kind, cause error, format string, args ...any) error {
	return &explained{message: fmt.Sprintf(format, args...), kind: kind, cause: cause}
}

// Error is the message with the cause in brackets.
func (e *explained) Error() string { return fmt.Sprintf("%s (%v)", e.message, e.cause) }

// Unwrap returns the kind and the cause.
func (e *explained) Unwrap() []error { return []error{e.kind, e.cause} }
