// Package store is where fetched bytes come to rest. It knows nothing of HTTP or of queues.
//
// A store keeps, for every batch that was worked, one unit: the records of the requests that ended in it, their
// bodies, and the batch's account. A unit becomes visible in one step, under its own name, also when it holds no
// record; the first committed unit of a name wins and is never changed. Drivers are held to that by package storetest.
package store

import (
	"context"
	"errors"
	"io"
	"iter"
	"time"
)

// Errors that callers tell apart. Drivers wrap them.
var (
	// ErrNotFound says that no committed unit (or body) of that name exists.
	ErrNotFound = errors.New("not found")
	// ErrRecord marks an error that belongs to one record alone (a name too long, invalid text): the request that
	// met it fails, the store is sound.
	ErrRecord = errors.New("record refused")
)

// Store is one place where units are kept. All methods may be called from many goroutines.
// An error that wraps neither ErrNotFound nor ErrRecord means that the store itself is in trouble (full, read-only,
// unreachable): nothing was made visible, and the caller may try again later.
type Store interface {
	// String names the store as it was given, without secrets: "file:/data".
	String() string
	// Identity returns the store's lasting identity, made at its first use and the same from every worker.
	Identity(ctx context.Context) (string, error)
	// Check reports whether the store could take a unit now. It writes and removes something small.
	Check(ctx context.Context) error
	// Begin starts a unit. Nothing of it is visible before Commit.
	Begin(ctx context.Context, job, unit string) (Unit, error)
	// Account returns the account of a committed unit, or ErrNotFound.
	Account(ctx context.Context, job, unit string) (*Account, error)
	// Units yields the name of every committed unit of a job, in no order.
	Units(ctx context.Context, job string) iter.Seq2[string, error]
	// Records yields the records of a committed unit, or ErrNotFound.
	Records(ctx context.Context, job, unit string) iter.Seq2[*Record, error]
	// OpenBody opens a body by the Body field of its record. The caller closes it.
	OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error)
	// Sweep removes what units left behind that were begun longer ago than olderThan and never committed. A unit that
	// is still being written by someone then fails, cleanly, so olderThan must exceed the longest visit of a job that
	// is going on. It returns how many things were removed.
	Sweep(ctx context.Context, job string, olderThan time.Duration) (removed int, err error)
	// Close waits for commits under way and releases what the store holds.
	Close() error
}

// Unit is one batch being stored. Body and Add may be called from several goroutines; Commit and Discard end it,
// once, after all body writers have ended.
type Unit interface {
	// Body starts one body. Bytes are streamed: memory does not grow with the body.
	Body(ctx context.Context, meta BodyMeta) (BodyWriter, error)
	// Add takes the record of a request that ended. An error that wraps ErrRecord leaves the unit usable.
	Add(r *Record) error
	// Commit makes the unit visible with its account, durably as far as the store was configured for. Won says
	// whether this unit is the one now visible; if another of its name was there first, this one is dropped and
	// the winner's account is returned.
	Commit(ctx context.Context, account *Account) (winner *Account, won bool, err error)
	// Discard drops everything. It is safe after Commit, where it does nothing.
	Discard() error
}

// BodyMeta is what a driver may use to name and describe a body.
type BodyMeta struct {
	URL         string    // the URL that answered
	ContentType string    // the Content-Type field as received, may be empty
	Exchange    *Exchange // what was said on the wire; nil where nobody kept it, as in a copy from another store
	// Hop says that the answer was one on the way (a redirect), or is kept for the exchange alone: no record will refer
	// to it. Only units that keep exchanges (ExchangeKeeper) are given such bodies.
	Hop bool
	// Refers is the earlier answer that a 304 of Exchange says is unchanged; nil where nobody knows it.
	Refers *Capture
}

// Capture is one earlier answer to a request.
type Capture struct {
	URL    string    // that answered
	At     time.Time // when it was asked
	SHA256 string    // lower-case hex digest of its payload as sent, "" when unknown
}

// BodyWriter takes the decoded bytes of one body.
type BodyWriter interface {
	io.Writer
	// Finish ends the body and says how a record refers to it.
	Finish() (BodyRef, error)
	// Abort drops the body. It is safe after Finish, where it does nothing.
	Abort()
}

// BodyRef is how a record refers to its body.
type BodyRef struct {
	Bytes  int64  // decoded length
	SHA256 string // lower-case hex digest of the decoded bytes
	Body   string // where it is, relative to the job ("bodies/ab/abcd….html"); empty when there are no bytes
}
