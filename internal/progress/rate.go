package progress

import (
	"math"
	"time"
)

// smoothing is the time over which a rate forgets: long enough to read, short enough to follow.
const smoothing = 10 * time.Second

// rate is the smoothed speed of a run: exponential averages, corrected for having begun at zero.
type rate struct {
	began, last     time.Time
	begunWith       int64 // done before the first look, by an earlier run
	done, bytes     int64
	urls, bandwidth float64 // averages, per second, before the correction
}

// add takes what was done at a moment. The first call only marks the beginning: what an earlier run did is no speed.
func (r *rate) add(now time.Time, done, bytes int64) {
	if r.began.IsZero() {
		r.began, r.last, r.begunWith, r.done, r.bytes = now, now, done, done, bytes
		return
	}
	dt := now.Sub(r.last).Seconds()
	if dt <= 0 {
		return
	}
	weight := 1 - math.Exp(-dt/smoothing.Seconds())
	r.urls += weight * (float64(done-r.done)/dt - r.urls)
	r.bandwidth += weight * (float64(bytes-r.bytes)/dt - r.bandwidth)
	r.last, r.done, r.bytes = now, done, bytes
}

// perSecond returns URLs and bytes per second. Both are 0 before the second look.
func (r *rate) perSecond() (urls, bytes float64) {
	t := r.last.Sub(r.began).Seconds()
	if t <= 0 {
		return 0, 0
	}
	known := 1 - math.Exp(-t/smoothing.Seconds())
	return max(0, r.urls/known), max(0, r.bandwidth/known)
}

// settled is how long a rate is watched before an ETA is told from it.
const settled = 3 * time.Second

// eta tells how long the rest takes at the present rate. While a list of known length is being read, the number of
// its requests is estimated from the part that was read. Not ok: nobody can tell yet.
func (r *rate) eta(s Snapshot) (left time.Duration, ok bool) {
	urls, _ := r.perSecond()
	if r.last.Sub(r.began) < settled || urls < 1e-3 {
		return 0, false
	}
	total := float64(s.Accepted)
	if s.Listing {
		if s.ListTotal <= 0 || s.ListDone <= 0 || s.Accepted == 0 {
			return 0, false
		}
		total *= max(1, float64(s.ListTotal)/float64(s.ListDone))
	}
	seconds := max(0, total-float64(s.done())) / urls
	if seconds > (1000 * time.Hour).Seconds() {
		return 0, false
	}
	return time.Duration(seconds * float64(time.Second)), true
}
