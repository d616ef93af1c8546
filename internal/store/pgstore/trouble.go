package pgstore

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// The conditions of PostgreSQL's appendix A that are told apart.
const (
	wrongPassword    = "28P01"
	notAuthorised    = "28000"
	noDatabase       = "3D000"
	noPrivilege      = "42501"
	noTable          = "42P01"
	readOnly         = "25006"
	diskFull         = "53100"
	outOfMemory      = "53200"
	tooManyConns     = "53300"
	statementTimeout = "57014"
	lockTimeout      = "55P03"
	startingUp       = "57P03"
	unknownSetting   = "42704"
	badSetting       = "22023"
)

// advice is what a person can do about a condition.
var advice = map[string]string{
	wrongPassword: "the server does not accept this user and password: give them in the URL, in PGUSER and PGPASSWORD or in ~/.pgpass",
	notAuthorised: "the server does not let this user in from here: see its pg_hba.conf, or choose another user or sslmode",
	noDatabase:    "there is no such database: make it with createdb, or name another in the URL",
	noPrivilege:   "this user may not do that: let its owner grant it (for a new schema: GRANT CREATE ON DATABASE … TO …), or make the schema for it",
	noTable:       "a table is missing: was the schema dropped? Start a worker to make it again, or restore it",
	readOnly:      "the server takes no writes, as a standby does: name the primary, or use target_session_attrs=read-write with several hosts",
	diskFull:      "the server's disk is full: free some; a running worker then goes on by itself",
	outOfMemory:   "the server is out of memory: a running worker goes on by itself when it has some again",
	tooManyConns: "the server has no connection left: raise its max_connections, or lower pool_max_conns in the URL; " +
		"a running worker goes on by itself when there is one",
	statementTimeout: "the server was too slow: see what it is busy with (pg_stat_activity)",
	lockTimeout:      "somebody holds a lock on the tables for long: see pg_locks",
	startingUp:       "the server is starting or shutting down: a running worker goes on by itself when it is ready",
}

// trouble wraps an error of the server or of the way to it with what was done and what a person can do about it.
func trouble(op string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", op, err)
	}
	if code := sqlState(err); advice[code] != "" {
		return fmt.Errorf("%s: %s: %w", op, advice[code], err)
	}
	if told := aboutURL(err); told != "" {
		return fmt.Errorf("%s: %s: %w", op, told, err)
	}
	if away(err) {
		return fmt.Errorf("%s: the server cannot be reached: see whether it runs and listens where the URL says; "+
			"a running worker goes on by itself when it does: %w", op, err)
	}
	return fmt.Errorf("%s: %w", op, err)
}

// sqlState returns the server's code of an error, "" where it did not come from a server.
func sqlState(err error) string {
	var pg *pgconn.PgError
	if errors.As(err, &pg) {
		return pg.Code
	}
	return ""
}

// aboutURL says what to change in the URL of a server that is there but takes no connection by it, "" where that is not
// what an error means.
func aboutURL(err error) string {
	var connect *pgconn.ConnectError
	if !errors.As(err, &connect) {
		return ""
	}
	switch code := sqlState(err); {
	case code == unknownSetting || code == badSetting:
		return "the server does not take a parameter of the URL: correct it, or leave it out"
	case code == "" && strings.Contains(err.Error(), "server refused TLS connection") && !strings.Contains(err.Error(), "dial error"):
		return "the server speaks no TLS: let it (ssl = on), or write sslmode=disable where the way to it is safe"
	}
	return ""
}

// away reports whether an error is one of the network, or of a server that went.
func away(err error) bool {
	var connect *pgconn.ConnectError
	var network net.Error
	code := sqlState(err)
	return errors.As(err, &connect) || errors.As(err, &network) || pgconn.Timeout(err) || errors.Is(err, pgconn.ErrConnClosed) ||
		errors.Is(err, context.DeadlineExceeded) || strings.HasPrefix(code, "08") || code == "57P01" || code == "57P02"
}

// isOurs reports whether an error is about what was sent and not about the state of the server: another try of the same
// would fail again (classes 21 to 23 and 42 of appendix A, but privileges).
func isOurs(err error) bool {
	code := sqlState(err)
	if len(code) != 5 || code == noPrivilege || code == noTable {
		return false
	}
	switch code[:2] {
	case "21", "22", "23", "42", "54":
		return true
	}
	return code == "40P01" // a deadlock, which fewer units in one transaction do not have
}
