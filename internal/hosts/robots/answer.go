package robots

import (
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Verdict is what the answer to a request for robots.txt means for the host it was asked of.
type Verdict int

// The verdicts. The zero one is the careful one.
const (
	// Unavailable: nothing may be fetched now, and robots.txt is to be asked for again later. RFC 9309 2.3.1.4 says "unreachable"
	// for it; what the RFC itself calls unavailable is AllowAll.
	Unavailable Verdict = iota
	// Parsed: the body is the file, for Parse to read.
	Parsed
	// AllowAll: there is no file, and everything may be fetched.
	AllowAll
)

// String returns "unavailable", "parsed" or "allow_all".
func (v Verdict) String() string {
	switch v {
	case Parsed:
		return "parsed"
	case AllowAll:
		return "allow_all"
	}
	return "unavailable"
}

// OfStatus judges the status of the last answer, after redirects were followed; 0 stands for no answer at all.
//
//   - 2xx is Parsed (RFC 9309 2.3.1.1).
//   - 4xx is AllowAll, 401 and 403 among them: the RFC gives no access control (2.3.1.3). 429 is not: it speaks of the rate of
//     requests and not of the file, and to take it for leave to fetch everything would answer "slow down" with more requests.
//     The RFC only says that a crawler may go on after a 4xx, so to wait is within it.
//   - 3xx is AllowAll, for a redirect that led nowhere, or on for more than the five times that 2.3.1.2 asks to follow. 304 is not:
//     it speaks of a copy that whoever asks this does not hold.
//   - 5xx, no answer, and codes that HTTP does not know are Unavailable (2.3.1.4).
func OfStatus(code int) Verdict {
	switch {
	case code == http.StatusTooManyRequests, code == http.StatusNotModified:
		return Unavailable
	case 200 <= code && code <= 299:
		return Parsed
	case 300 <= code && code <= 499:
		return AllowAll
	}
	return Unavailable
}

// The bounds of Lifetime.
const (
	// MaxLifetime is the longest that a robots.txt is held, and how long one that says nothing is (RFC 9309 2.4).
	MaxLifetime = 24 * time.Hour
	// MinLifetime is the shortest: a file that may not be kept is asked for once a minute and not before every request.
	MinLifetime = time.Minute
)

// Lifetime says how long an answer that arrived at now holds, MinLifetime to MaxLifetime. no-store and no-cache give the least;
// otherwise max-age counts before Expires (RFC 9111 4.2.1), less the Age that the answer had when it came. A max-age or Expires
// that cannot be read is one that has passed, as RFC 9111 4.2 and 5.3 advise. h may be nil.
func Lifetime(h http.Header, now time.Time) time.Duration {
	fresh, ok := fromCacheControl(h.Values("Cache-Control"))
	if !ok {
		fresh, ok = fromExpires(h, now)
	}
	if !ok {
		return MaxLifetime
	}
	if age, err := parseSeconds(h.Get("Age")); err == nil {
		fresh -= age
	}
	return min(max(fresh, MinLifetime), MaxLifetime)
}

// fromCacheControl returns the lifetime that the lines of the header give, the shortest of several; false for none.
func fromCacheControl(lines []string) (fresh time.Duration, ok bool) {
	for directive := range strings.SplitSeq(strings.Join(lines, ","), ",") {
		name, value, _ := strings.Cut(strings.Trim(directive, blanks), "=")
		switch strings.ToLower(name) {
		case "no-store", "no-cache":
			return 0, true
		case "max-age":
			age, _ := parseSeconds(strings.Trim(value, `"`)) // 0 where it cannot be read
			if !ok || age < fresh {
				fresh = age
			}
			ok = true
		}
	}
	return fresh, ok
}

// fromExpires returns the time from Date, or from now where that is missing, to Expires; false where there is no Expires.
func fromExpires(h http.Header, now time.Time) (time.Duration, bool) {
	lines := h.Values("Expires")
	if len(lines) == 0 {
		return 0, false
	}
	expires, err := http.ParseTime(lines[0])
	if err != nil {
		return 0, true
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date // the same clock as that of Expires
	}
	return max(expires.Sub(now), 0), true
}

// maxSeconds is what longer times are taken for (RFC 9111 1.2.2), far from what a Duration holds.
const maxSeconds = 1 << 31

// parseSeconds reads RFC 9111's delta-seconds.
func parseSeconds(s string) (time.Duration, error) {
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil && n == 0 { // a number out of range comes back as the largest
		return 0, err
	}
	return time.Duration(min(n, maxSeconds)) * time.Second, nil
}
