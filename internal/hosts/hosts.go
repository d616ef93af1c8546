// Package hosts decides who may talk to a host, and when.
//
// It promises that no more requests are in service at a host than its limit says and that they begin no faster than
// its rate. For now that holds per worker (Local); the visit is the seam behind which it will hold for the fleet.
package hosts

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Limits are what a host is asked to bear.
type Limits struct {
	Rate  float64 // requests per second, 0 = no limit
	Burst int     // requests that may go at once after a pause; less than 1 counts as 1
	Conns int     // requests in service at once, 0 = no limit
}

// Unlimited reports whether the limits hold nothing back.
func (l Limits) Unlimited() bool { return l.Rate == 0 && l.Conns == 0 }

// Visit is one batch being worked at a host. Its methods may be called from many goroutines.
type Visit interface {
	// Permit waits until one more request may begin: for a free place among those in service, then for its turn.
	// The caller calls release when the request is no longer in service. On an error nothing is held.
	Permit(ctx context.Context) (release func(), err error)
	// Turn waits for the turn of one more exchange under a permit already held: a redirect hop.
	Turn(ctx context.Context) error
	// Leave ends the visit, after its permits are released.
	Leave()
}

// BusyError says that a visit should not wait in its slot: the host has enough visitors.
type BusyError struct {
	Host  string
	After time.Duration // when to ask again
}

// Error names the host whose line it is.
func (e *BusyError) Error() string { return fmt.Sprintf("in line: %s", e.Host) }

// IsBusy reports whether err is a *BusyError.
func IsBusy(err error) (*BusyError, bool) {
	var busy *BusyError
	ok := errors.As(err, &busy)
	return busy, ok
}
