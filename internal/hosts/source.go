package hosts

import (
	"cmp"
	"context"
	"time"
)

// Ask is what a batch asks of a host.
type Ask struct {
	Host     string
	Site     string // what its limits are kept for: see Addresses; "" = the host itself
	Batch    string // id of its task
	Visit    string // a name that no other visit has or had; asking again with it finds the same visit
	Queue    string // that its task is in
	Priority int    // of the queue, 0 first
	Job      string
	Want     int           // requests to begin, at least 1
	Limits   Limits        // as the job has them; the strictest of the jobs with work at the site hold
	Patience time.Duration // how long a host may bring nothing before its batches are given up; 0 = for ever
	Robots   bool          // robots.txt has to be known before anything else is fetched
	Care     time.Duration // for how long it has to ask although it has no limits, as the caller has heard: see StateKey
}

func (a *Ask) site() string { return cmp.Or(a.Site, a.Host) }

// StateKey is the key under which Redis has a hash of what is known of a site. Its field "care" says, in µs of Redis time,
// until when those without limits have to ask there, too, because others have limits or the host was in trouble: who asks
// Redis for something anyway may ask for that, too, and save a call.
func StateKey(site string) string { return "fetchfleet:host:" + site }

// Answer is what a Source says to an Ask: one of the three is set.
type Answer struct {
	Grant       *Grant
	Line        *Line
	Unavailable *UnavailableError
}

// Grant lets a visit in.
type Grant struct {
	Permits  int   // requests that may be in service at once
	Times    Times // the first send times
	Slowness float64
	Scout    bool // the visit is to fetch robots.txt and to say so with Source.Robots
	Probe    bool // nothing went well at the host lately: one request, and learn from it at once
}

// Line is a place in the line of a site.
type Line struct {
	Next        time.Duration // from now until somebody looks at the site; 0 = when somebody leaves
	PatienceEnd time.Duration // from now until the host counts as unavailable; 0 = nothing is wrong with it
	Length      int           // batches in line
}

// Times are send times, each of which one exchange may spend.
type Times struct {
	Interval time.Duration // between two of them; 0 = none are needed
	Burst    int
	Conns    int         // limit of the host, by all jobs with work there; 0 = none
	Permits  int         // that the visit has now; 0 = as before
	At       []time.Time // by the local clock, never earlier than by that of the source
	Begun    []Span      // with Leave: the exchanges begun since that was told last
	mark     string      // state of the bucket after the last
	read     time.Time   // when, by the local clock, the source's was at now
	now      int64       // µs
}

// Lesson is what an exchange taught about a host.
type Lesson string

// The lessons.
const (
	Asked    Lesson = "asked"    // the server named a pause (Retry-After)
	Overload Lesson = "overload" // 429 or 503 without one
	Failed   Lesson = "failed"   // no answer came: refused, timed out
	Well     Lesson = "ok"       // it went well, after others had not
	Nothing  Lesson = ""         // it says nothing about the host, and is not noted
)

// Source is where the limits are kept. Every method is one atomic step; all times are the source's own. A visit is told by
// what it asked with: its site and host, its name and its job.
type Source interface {
	// Enter lets a visit in, gives its batch a place in line, or gives it up. Asking twice does no harm.
	Enter(ctx context.Context, a Ask) (Answer, error)
	// Lease gives up to n further send times to a visit, and more permits if it has fewer than need; with n = 0 it is asked
	// for permits alone, which it may need when its last send time is far ahead. later says how long
	// the next one is away when that is too long to wait for in a slot; ErrLeft that the visit was ended by others.
	Lease(ctx context.Context, a Ask, n, need int) (t Times, later time.Duration, err error)
	// Leave gives permits back, or ends the visit when back is negative, and calls the next in line. unspent are the
	// last so many send times of t, t.Begun goes into the report; well is how many exchanges went well. sweep is when
	// to Sweep at the latest, from now; 0 = as usual.
	Leave(ctx context.Context, a Ask, back, unspent int, t Times, well int) (sweep time.Duration, err error)
	// Learn notes a lesson that a job was taught, for everybody, and returns how long the site is left alone now. Nothing
	// changes nothing and returns 0.
	Learn(ctx context.Context, a Ask, l Lesson, pause time.Duration) (time.Duration, error)
	// Robots notes what came of fetching robots.txt: text, or that it could not be had, and for how long that holds. The
	// second word of text goes into the report: file, all (it is allowed everything) or lost (no answer came). sweep is as
	// with Leave.
	Robots(ctx context.Context, a Ask, known bool, lasts time.Duration, text string) (sweep time.Duration, err error)
	// RobotsText returns what Robots noted last, "" when nothing (any more).
	RobotsText(ctx context.Context, host string) (string, error)
	// Sweep looks at the sites whose time has come, and returns when to do so again at the latest; 0 = as usual. What
	// was refused goes along with it, into the report.
	Sweep(ctx context.Context, refused ...Refusal) (time.Duration, error)
	// Vacate ends the visits of batches whose worker is dead.
	Vacate(ctx context.Context, batches []string) error
	// Cooled calls heard with each site that is to be left alone, and how long, until ctx ends.
	Cooled(ctx context.Context, heard func(site string, pause time.Duration)) error
}
