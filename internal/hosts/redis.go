package hosts

import (
	"context"
	_ "embed" // the scripts
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
)

var (
	//go:embed lua/lib.lua
	libText string
	//go:embed lua/report.lua
	reportText string
	//go:embed lua/enter.lua
	enterText string
	//go:embed lua/lease.lua
	leaseText string
	//go:embed lua/leave.lua
	leaveText string
	//go:embed lua/learn.lua
	learnText string
	//go:embed lua/robots.lua
	robotsText string
	//go:embed lua/sweep.lua
	sweepText string
	//go:embed lua/vacate.lua
	vacateText string
)

// Redis keeps limits in Redis, for all workers that share it: one script per step, all times by its clock.
type Redis struct {
	rdb   redis.UniversalClient
	count func()
	step  func(name string) // between the steps of a visit; set by tests alone

	enter, lease, leave, learn, robots, sweep, vacate *script
}

var _ Source = (*Redis)(nil)

// NewRedis returns the limits kept in rdb. call is Lua that defines asynq_call and asynq_alive (asynqkeys.CallLua);
// count is called for each script that is run, and may be nil.
func NewRedis(rdb redis.UniversalClient, call string, count func()) *Redis {
	made := func(name, text string) *script {
		return &script{before: "before-host-" + name, after: "after-host-" + name,
			Script: redis.NewScript(call + libText + reportText + text)}
	}
	if count == nil {
		count = func() {}
	}
	return &Redis{rdb: rdb, count: count, step: func(string) {},
		enter: made("enter", enterText), lease: made("lease", leaseText), leave: made("leave", leaveText),
		learn: made("learn", learnText), robots: made("robots", robotsText), sweep: made("sweep", sweepText),
		vacate: made("vacate", vacateText)}
}

// script is one step. Its reply begins with the time.
type script struct {
	before, after string // names of the points around it
	*redis.Script
}

// OnStep has step called before and after each script, as before-host-enter and after-host-enter, for tests that stop a
// worker there. It is to be called before r is used.
func (r *Redis) OnStep(step func(name string)) *Redis {
	r.step = step
	return r
}

// reply is what a script returned: words, of which the first is the time.
type reply struct {
	words []string
	at    time.Time // the local time that now stands for, or a little later
	now   float64   // µs
}

func (r *Redis) run(ctx context.Context, s *script, args ...any) (reply, error) {
	r.count()
	r.step(s.before)
	defer r.step(s.after)
	words, err := s.Run(ctx, r.rdb, nil, args...).Slice()
	if err != nil {
		return reply{}, err
	}
	out := reply{at: time.Now(), words: make([]string, len(words))}
	for i, w := range words {
		out.words[i] = fmt.Sprint(w)
	}
	out.now = out.number(0)
	return out, nil
}

func (r reply) number(i int) float64 {
	if i >= len(r.words) {
		return 0
	}
	n, _ := strconv.ParseFloat(r.words[i], 64)
	return n
}

// until is how long word i, a time, is away; 0 stays 0.
func (r reply) until(i int) time.Duration {
	n := r.number(i)
	if n == 0 {
		return 0
	}
	return max(time.Microsecond, time.Duration((n-r.now)*float64(time.Microsecond)))
}

// times reads send times from word i on.
func (r reply) times(i int) []time.Time {
	var out []time.Time
	for ; i < len(r.words); i++ {
		out = append(out, r.at.Add(time.Duration((r.number(i)-r.now)*float64(time.Microsecond))))
	}
	return out
}

func micros(d time.Duration) int64 { return d.Microseconds() }

// Enter implements Source.
func (r *Redis) Enter(ctx context.Context, a Ask) (Answer, error) {
	robots := 0
	if a.Robots {
		robots = 1
	}
	w, err := r.run(ctx, r.enter, a.site(), a.Host, a.Batch, a.Visit, a.Queue, a.Priority, a.Job, max(a.Want, 1),
		strconv.FormatFloat(a.Limits.Rate, 'g', -1, 64), max(a.Limits.Burst, 1), a.Limits.Conns, micros(a.Patience), robots)
	if err != nil {
		return Answer{}, fmt.Errorf("enter host %s: %w", a.Host, err)
	}
	switch w.words[1] {
	case "line":
		return Answer{Line: &Line{Next: w.until(2), PatienceEnd: w.until(3), Length: int(w.number(4))}}, nil
	case "unavailable":
		since := w.at.Add(time.Duration((w.number(3) - w.now) * float64(time.Microsecond)))
		return Answer{Unavailable: &UnavailableError{Host: a.Host, Robots: w.words[2] == "robots", Since: since}}, nil
	}
	return Answer{Grant: &Grant{
		Permits: int(w.number(2)), Slowness: w.number(7) / 1000, Scout: w.words[8] == "1", Probe: w.words[9] == "1",
		Times: Times{Interval: time.Duration(w.number(3)) * time.Microsecond, Burst: int(w.number(4)), Conns: int(w.number(5)),
			At: w.times(10), mark: w.words[6], read: w.at, now: int64(w.now)},
	}}, nil
}

// Lease implements Source.
func (r *Redis) Lease(ctx context.Context, a Ask, n, need int) (Times, time.Duration, error) {
	w, err := r.run(ctx, r.lease, a.site(), a.Visit, n, need)
	if err != nil {
		return Times{}, 0, fmt.Errorf("lease send times of host %s: %w", a.Host, err)
	}
	switch w.words[1] {
	case "left":
		return Times{}, 0, fmt.Errorf("lease send times of host %s: %w", a.Host, ErrLeft)
	case "later":
		return Times{}, w.until(2), nil
	}
	return Times{Interval: time.Duration(w.number(2)) * time.Microsecond, Burst: int(w.number(3)), Conns: int(w.number(4)),
		At: w.times(7), mark: w.words[5], Permits: int(w.number(6)), read: w.at, now: int64(w.now)}, 0, nil
}

// Leave implements Source. With t.Permits set, the permits that the visit had before, giving back twice does no harm.
func (r *Redis) Leave(ctx context.Context, a Ask, back, unspent int, t Times, well int) (time.Duration, error) {
	args := []any{a.site(), a.Visit, back, micros(time.Duration(unspent) * t.Interval), t.mark, well, t.Permits}
	for _, s := range t.Begun {
		args = append(args, s.Number, s.Count)
	}
	w, err := r.run(ctx, r.leave, args...)
	if err != nil {
		return 0, fmt.Errorf("leave host %s: %w", a.Host, err)
	}
	return w.until(1), nil
}

// Learn implements Source.
func (r *Redis) Learn(ctx context.Context, a Ask, l Lesson, pause time.Duration) (time.Duration, error) {
	if l == Nothing {
		return 0, nil
	}
	w, err := r.run(ctx, r.learn, a.site(), a.Host, string(l), micros(pause), a.Job)
	if err != nil {
		return 0, fmt.Errorf("note what host %s taught: %w", a.Host, err)
	}
	return time.Duration(max(0, w.number(1)-w.now)) * time.Microsecond, nil
}

// Robots implements Source.
func (r *Redis) Robots(ctx context.Context, a Ask, known bool, lasts time.Duration, text string) (time.Duration, error) {
	what := "unavailable"
	if known {
		what = "known"
	}
	w, err := r.run(ctx, r.robots, a.site(), a.Host, a.Visit, what, micros(lasts), text)
	if err != nil {
		return 0, fmt.Errorf("note robots.txt of host %s: %w", a.Host, err)
	}
	return w.until(1), nil
}

// RobotsText implements Source.
func (r *Redis) RobotsText(ctx context.Context, host string) (string, error) {
	r.count()
	text, err := r.rdb.Get(ctx, "fetchfleet:host:"+host+":robots").Result()
	if err != nil && !errors.Is(err, redis.Nil) {
		return "", fmt.Errorf("read robots.txt of host %s: %w", host, err)
	}
	return text, nil
}

// sweepLimit is how many sites one sweep looks at.
const sweepLimit = 200

// Sweep implements Source.
func (r *Redis) Sweep(ctx context.Context, refused ...Refusal) (time.Duration, error) {
	args := []any{sweepLimit}
	for _, f := range refused {
		args = append(args, f.Job, f.Host, f.Count)
	}
	w, err := r.run(ctx, r.sweep, args...)
	if err != nil {
		return 0, fmt.Errorf("sweep hosts: %w", err)
	}
	return w.until(1), nil
}

// Vacate implements Source.
func (r *Redis) Vacate(ctx context.Context, batches []string) error {
	args := make([]any, len(batches))
	for i, b := range batches {
		args[i] = b
	}
	if _, err := r.run(ctx, r.vacate, args...); err != nil {
		return fmt.Errorf("end visits of %d batches: %w", len(batches), err)
	}
	return nil
}

// Cooled implements Source. Messages that are lost while the connection is away are not made up for: whoever leases next
// learns the same.
func (r *Redis) Cooled(ctx context.Context, heard func(site string, pause time.Duration)) error {
	sub := r.rdb.Subscribe(ctx, "fetchfleet:hosts")
	defer func() { _ = sub.Close() }()
	messages := sub.Channel()
	for {
		select {
		case m, ok := <-messages:
			if !ok {
				return ctx.Err()
			}
			site, pause, _ := strings.Cut(m.Payload, " ")
			us, err := strconv.ParseFloat(pause, 64)
			if err == nil {
				heard(site, time.Duration(us)*time.Microsecond)
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
