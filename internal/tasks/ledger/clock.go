package ledger

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
)

// clock tells the time of Redis without asking each time: as of the last answer, and what has passed since. It may be
// late, by as long as an answer took or this machine slept, and is hardly early: entries may look older than they are.
type clock struct {
	last atomic.Pointer[reading]
}

type reading struct {
	redis int64 // Unix milliseconds
	at    time.Time
}

func (c *clock) set(redis int64) { c.last.Store(&reading{redis, time.Now()}) }

// now is the time of Redis in Unix milliseconds. It asks when it has never been told.
func (c *clock) now(ctx context.Context, rdb redis.UniversalClient) (int64, error) {
	if c.last.Load() == nil {
		t, err := rdb.Time(ctx).Result()
		if err != nil {
			return 0, err
		}
		c.set(t.UnixMilli())
	}
	r := c.last.Load()
	return r.redis + time.Since(r.at).Milliseconds(), nil
}
