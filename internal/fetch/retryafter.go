package fetch

import (
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// RetryAfter reads the Retry-After of a response that arrived at now. A date is compared with the response's own Date where
// it has one that can be read: then a server whose clock differs from ours asks for the wait it means. ok is false without a
// Retry-After, or when it cannot be read.
func RetryAfter(h http.Header, now time.Time) (wait time.Duration, ok bool) {
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date
	}
	return ParseRetryAfter(h.Get("Retry-After"), now)
}

// ParseRetryAfter reads a Retry-After header (RFC 9110 section 10.2.3): seconds,
// or an HTTP date in any of its three forms, which is compared with now. A wait
// that is over counts as 0, one too long for a Duration as the longest there
// is. ok is false when the value is neither.
func ParseRetryAfter(value string, now time.Time) (wait time.Duration, ok bool) {
	value = strings.TrimSpace(value)
	if digits, negative := strings.CutPrefix(value, "-"); isDigits(digits) {
		return seconds(digits, negative), true
	}
	at, err := http.ParseTime(value)
	if err != nil {
		return 0, false
	}
	return max(at.Sub(now), 0), true // Sub saturates
}

func seconds(digits string, negative bool) time.Duration {
	n, err := strconv.ParseInt(digits, 10, 64)
	switch {
	case negative:
		return 0
	case err != nil, n > int64(math.MaxInt64/time.Second):
		return math.MaxInt64
	}
	return time.Duration(n) * time.Second
}

func isDigits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}
