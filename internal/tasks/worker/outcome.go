package worker

import (
	"fmt"
	"strconv"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// Error classes that are not an exchange's. With fetch's classes and "http_STATUS" they are all there are.
const (
	classCrashed           = "crashed"            // its worker died each time it was tried
	classHostUnavailable   = "host_unavailable"   // it met nothing but waits for longer than the job's patience
	classRobotsUnavailable = "robots_unavailable" // robots.txt could not be had for longer than the job's patience
	classRobots            = "robots"             // robots.txt does not allow it
	classBlocked           = "blocked"            // the fleet's rules do not allow it
	classStore             = "store"              // the store refused its record
	classBodyLost          = "body_lost"          // the body to send is no longer in Redis
)

const (
	// freeWaits is how many waits in a row cost no attempt; from the next on each does.
	freeWaits = 9
	// maxRetryAfter caps what a server may ask for.
	maxRetryAfter = time.Hour
)

// limitedRetries are the classes that are tried again fewer times than the job says: attempts in all.
var limitedRetries = map[string]int{string(fetch.DNSNotFound): 2}

// retried are the statuses and error classes that are tried again, unless the job's --retry-on says otherwise.
var retried = map[string]bool{
	"408": true, "425": true, "429": true, "500": true, "502": true, "503": true, "504": true,
	string(fetch.DNSTemporary): true, string(fetch.DNSNotFound): true,
	string(fetch.ConnectRefused): true, string(fetch.ConnectUnreachable): true, string(fetch.ConnectTimeout): true,
	string(fetch.TLSTimeout): true, string(fetch.HeaderTimeout): true, string(fetch.IdleTimeout): true,
	string(fetch.Proxy): true, string(fetch.PoolTimeout): true,
	string(fetch.TooSlow): true, string(fetch.TotalTimeout): true, string(fetch.Reset): true, string(fetch.BodyCut): true, string(fetch.Other): true,
	string(fetch.Auth): true,
}

// unsent are the classes of requests that were given up without having been sent.
var unsent = map[string]bool{classRobots: true, classBlocked: true, classHostUnavailable: true, classRobotsUnavailable: true}

// told are the statuses by which a server asks to wait: they cost no attempt at first.
var told = map[int]bool{429: true, 503: true}

// happening is what came of one attempt.
type happening struct {
	status     int    // of the final answer, 0 = none
	class      string // of the error, "" when an answer came whole
	message    string
	asked      bool // the server asked for a wait, of retryAfter
	retryAfter time.Duration
	canceled   bool // we gave it up ourselves
	moved      bool // it has moved a large body on, whose beginning is kept
	unchanged  bool // a conditional request was answered by 304
	lasting    bool // to try again would bring the same, though others of its class are tried
}

// delay is how long to wait before the n-th try again. What the server asked for wins over the backoff, up to a cap; a
// server that asks for no wait at all still gets the shortest.
func (h happening) delay(b tasks.Backoff, n int, random float64) time.Duration {
	if !h.asked {
		return b.Delay(n, random)
	}
	return max(min(h.retryAfter, maxRetryAfter), time.Duration(b.Base))
}

// ok reports whether the request has been answered as wished.
func (h happening) ok() bool {
	return h.class == "" && (h.unchanged || h.status >= 200 && h.status < 300)
}

// name is the status or class that the retry table knows the happening by.
func (h happening) name() string {
	if h.class == "" {
		return strconv.Itoa(h.status)
	}
	return h.class
}

// errorClass is the class for records and counters, "" when ok.
func (h happening) errorClass() string {
	if h.class == "" && !h.ok() {
		return "http_" + strconv.Itoa(h.status)
	}
	return h.class
}

// text describes a happening that was not ok, for people.
func (h happening) text() string {
	if h.class == "" {
		return fmt.Sprintf("http_%d: the server answered %d", h.status, h.status)
	}
	return h.class + ": " + h.message
}

// outcome is what a final happening is recorded as.
func (h happening) outcome() store.Outcome {
	switch {
	case h.ok():
		return store.OK
	case h.class == "":
		return store.HTTPError
	case h.class == classRobots, h.class == classBlocked, h.class == string(fetch.ContentType):
		return store.Skipped
	default:
		return store.Failed
	}
}

// past is what a request has been through before this attempt.
type past struct {
	attempts  int   // used up
	waits     int   // in a row
	waitSince int64 // Unix milliseconds of the first of them
}

// step is what follows from a happening.
type step int

const (
	stepRecord step = iota // it is final
	stepRetry              // an attempt was used up; try again after the delay
	stepWait               // told to wait; try again after the delay, at no cost
	stepBack               // hand it back untouched
)

// verdict is the answer of the outcome table.
type verdict struct {
	step  step
	delay time.Duration
	past  past // when tried again: as it then is
	// final is what to record, which is not always what happened last.
	final happening
}

// decide is the outcome table: from what happened to what follows. Nothing else decides on retries.
// now is Redis time; random is in [0,1).
func decide(h happening, p past, r *tasks.Request, spec *tasks.Spec, rule tasks.RetryRule, now time.Time, random float64) verdict {
	if h.canceled {
		return verdict{step: stepBack, past: p}
	}
	record := verdict{step: stepRecord, final: h, past: past{attempts: p.attempts + 1}}
	if unsent[h.class] {
		record.past.attempts = p.attempts
		return record
	}
	if h.ok() || !retries(h, rule) {
		return record
	}
	if h.moved {
		return verdict{step: stepWait, delay: h.delay(spec.Backoff, 1, random), past: past{attempts: p.attempts}}
	}
	if told[h.status] && h.class == "" {
		since := time.UnixMilli(p.waitSince)
		if p.waits == 0 {
			since = now
		}
		left := time.Duration(spec.Patience) - now.Sub(since)
		if left <= 0 {
			record.final = happening{class: classHostUnavailable, message: fmt.Sprintf(
				"%s for longer than the patience of %s", h.text(), spec.Patience)}
			record.past = past{attempts: p.attempts}
			return record
		}
		if p.waits < freeWaits {
			delay := h.delay(spec.Backoff, p.waits+1, random)
			return verdict{step: stepWait, delay: min(delay, left),
				past: past{attempts: p.attempts, waits: p.waits + 1, waitSince: since.UnixMilli()}}
		}
	}
	limit := r.Attempts(spec)
	if n, ok := limitedRetries[h.name()]; ok && !rule[h.name()] {
		limit = min(limit, n)
	}
	if p.attempts+1 >= limit {
		return record
	}
	delay := h.delay(spec.Backoff, p.attempts+1, random)
	next := past{attempts: p.attempts + 1}
	if told[h.status] && h.class == "" { // the row of waits goes on, and patience with it
		next.waits, next.waitSince = p.waits+1, p.waitSince
	}
	return verdict{step: stepRetry, delay: delay, past: next}
}

func retries(h happening, rule tasks.RetryRule) bool {
	if again, ok := rule[h.name()]; ok {
		return again
	}
	return retried[h.name()] && !h.lasting
}
