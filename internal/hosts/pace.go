package hosts

import (
	"math"
	"time"
)

const (
	slowest    = 8                // times slower than its limits a host is taken, at most
	oneLesson  = time.Second      // answers within it are of one overload
	recovery   = 10 * time.Second // in which the pace recovers by a quarter
	inARow     = 5                // exchanges without an answer that open the circuit
	mostLesson = 16               // doublings that are counted
	longAgo    = 10 * time.Minute // nothing bad since then, and nothing is wrong any more
)

// tempo is how many times slower than its limits a host is taken, as was said at a time. The zero value is full speed.
type tempo struct {
	slow float64
	at   time.Time
}

// factor is how many times slower it is taken now, at least 1.
func (t tempo) factor(now time.Time) float64 {
	if t.slow <= 1 {
		return 1
	}
	return max(1, t.slow/math.Pow(1.25, now.Sub(t.at).Seconds()/recovery.Seconds()))
}

// slower is the tempo after an overload.
func (t tempo) slower(now time.Time) tempo {
	if t.slow > 1 && now.Sub(t.at) < oneLesson {
		return t
	}
	return tempo{slow: min(slowest, 2*t.factor(now)), at: now}
}

// coolDown is for how long a host is left alone that was overloaded and named no pause, after so many others in a row.
func coolDown(before int) time.Duration { return doubling(time.Second, before, 10*time.Second) }

// openFor is for how long a circuit is open that was opened so many times in a row before.
func openFor(before int) time.Duration { return doubling(30*time.Second, before, 900*time.Second) }

// robotsPause is when robots.txt is asked for again that could not be had so many times in a row before.
func robotsPause(first time.Duration, before int) time.Duration {
	return doubling(first, before, 1800*time.Second)
}

func doubling(first time.Duration, times int, most time.Duration) time.Duration {
	return time.Duration(min(float64(first)*math.Pow(2, float64(min(times, 40))), float64(most)))
}
