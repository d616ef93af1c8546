// Package hosts decides who may talk to a host, and when.
//
// It promises, for all workers that share one Source: no more requests are in service at a host than its limit says, they
// begin no faster than its rate, and what one exchange teaches (a pause asked for, an overload, silence, robots.txt) holds
// for everybody at once. Who has to wait for longer than a moment holds no slot meanwhile: its batch stands in the host's
// line, and whoever leaves calls the next.
//
// All this is kept for a site: the host itself, or on request (Addresses) the address that many hosts have in common. What
// robots.txt says, and what is reported, is each host's own.
//
// A Source keeps the limits and takes each step atomically, by its own clock: Redis for a fleet. Fleet is the worker's
// side: visits, permits and send times. It imports nothing of the trees that ask for visits.
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
	// The caller calls release when the request is no longer in service. On an error nothing is held; a *LaterError
	// says that the turn is too far away to wait for.
	Permit(ctx context.Context) (release func(), err error)
	// Turn waits for the turn of one more exchange under a permit already held: a redirect hop, robots.txt.
	Turn(ctx context.Context) error
	// Renew waits for another turn if the one taken then is too old to be used: by more than the pause between two requests.
	Renew(ctx context.Context, taken time.Time) error
	// Interval is the pause between two requests, 0 = none is needed.
	Interval() time.Duration
	// Learn tells everybody what an exchange taught. pause is what the server asked for.
	Learn(ctx context.Context, l Lesson, pause time.Duration)
	// Scout reports whether this visit is to fetch robots.txt, and to call Robots with what came of it, before it
	// fetches anything else.
	Scout() bool
	// Probe reports whether this visit is to find out if a host in trouble is back.
	Probe() bool
	// Conns is how many requests may be in service at the host, by all jobs with work there, as the visit heard last; 0 = it
	// knows of no limit. It may be called after Leave.
	Conns() int
	// Robots notes what came of fetching robots.txt. See Source.Robots.
	Robots(ctx context.Context, known bool, lasts time.Duration, text string) error
	// Leave ends the visit, after its permits are released.
	Leave()
}

// ErrLeft says that a visit was ended by others, who took its worker for dead.
var ErrLeft = errors.New("the visit was ended by others")

// BusyError says that a visit should not wait in its slot: its batch has a place in the host's line and will be called.
type BusyError struct {
	Host  string
	After time.Duration // when to ask again if no call comes
}

// Error names the host whose line it is.
func (e *BusyError) Error() string { return fmt.Sprintf("in line: %s", e.Host) }

// IsBusy reports whether err is a *BusyError.
func IsBusy(err error) (*BusyError, bool) {
	var busy *BusyError
	ok := errors.As(err, &busy)
	return busy, ok
}

// LaterError says that the next request may go too late to wait for it in a slot.
type LaterError struct {
	Host  string
	After time.Duration
}

// Error names the host and the wait.
func (e *LaterError) Error() string {
	return fmt.Sprintf("host %s takes the next request in %s", e.Host, e.After.Round(time.Second))
}

// UnavailableError says that a host brought nothing for longer than the job's patience.
type UnavailableError struct {
	Host   string
	Robots bool // it is robots.txt that cannot be had
	Since  time.Time
}

// Error says since when.
func (e *UnavailableError) Error() string {
	what := "no exchange went well"
	if e.Robots {
		what = "robots.txt could not be had"
	}
	return fmt.Sprintf("host %s: %s since %s", e.Host, what, e.Since.UTC().Format(time.RFC3339))
}
