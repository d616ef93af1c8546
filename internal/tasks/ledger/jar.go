package ledger

import (
	"context"
	_ "embed" // the script
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

//go:embed jar.lua
var jarText string

var jarScript = redis.NewScript(jarText)

// JarCookie is a cookie as a jar of a job keeps it. The ledger looks into its JSON for "t", when it was set, and "e",
// when it expires (Unix milliseconds, absent = never), and for nothing else.
type JarCookie struct {
	Domain string // whose jar it is in
	Field  string // what tells it from others of that jar
	JSON   []byte
}

// removalNoted is for how long a cookie that was removed stays noted as such: longer than a visit that began before is
// likely to last, which would bring back the value it began with. It only brings what was set in it, so this is rare.
const removalNoted = 10 * time.Minute

// Jars returns the cookies that a job has of these domains, in JSON.
func (l *Ledger) Jars(ctx context.Context, job tasks.JobID, domains []string) ([]string, error) {
	k := keysOf(job)
	pipe := l.rdb.Pipeline()
	reads := make([]*redis.StringSliceCmd, len(domains))
	for i, d := range domains {
		reads[i] = pipe.HVals(ctx, k.jar(d))
	}
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, fmt.Errorf("read the cookies of job %s: %w", job, err)
	}
	var all []string
	for _, r := range reads {
		all = append(all, r.Val()...)
	}
	return all, nil
}

// MergeJars brings cookies into the jars of a job; each jar keeps at most so many, the newest. Of two values of a cookie
// the one set later stays.
func (l *Ledger) MergeJars(ctx context.Context, job tasks.JobID, most int, cookies []JarCookie) error {
	if len(cookies) == 0 {
		return nil
	}
	k := keysOf(job)
	keys, jars := []string{k.stats, k.jars}, map[string]int{}
	args := []any{most, removalNoted.Milliseconds()}
	for _, c := range cookies {
		if jars[c.Domain] == 0 {
			keys = append(keys, k.jar(c.Domain))
			jars[c.Domain] = len(keys) - 2
		}
		args = append(args, jars[c.Domain], c.Domain, c.Field, c.JSON)
	}
	return wrap(jarScript.Run(ctx, l.rdb, keys, args...).Err(), "merge %d cookies of job %s", len(cookies), job)
}

// ForgetJars drops all cookies of a job.
func (l *Ledger) ForgetJars(ctx context.Context, job tasks.JobID) error {
	k := keysOf(job)
	for {
		domains, err := l.rdb.SRandMemberN(ctx, k.jars, 500).Result()
		if err != nil || len(domains) == 0 {
			return wrap(err, "list the cookie jars of job %s", job)
		}
		keys, members := make([]string, len(domains)), make([]any, len(domains))
		for i, d := range domains {
			keys[i], members[i] = k.jar(d), d
		}
		if err := l.rdb.Unlink(ctx, keys...).Err(); err != nil {
			return fmt.Errorf("drop %d cookie jars of job %s: %w", len(keys), job, err)
		}
		if err := l.rdb.SRem(ctx, k.jars, members...).Err(); err != nil { // last: what is listed is found again
			return fmt.Errorf("drop %d cookie jars of job %s: %w", len(keys), job, err)
		}
	}
}
