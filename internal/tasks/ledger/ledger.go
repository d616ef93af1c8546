// Package ledger is what Redis knows of a job: which requests it has seen, which batches are open, what waits in the
// outbox to be handed to asynq, and its counters.
//
// It promises that accepted = recorded + open at every moment, whatever dies between two of its steps: each step is
// one script, listed with its keys, arguments and returns in a .lua file of this folder. Delivering the outbox is its
// callers' work; doing it twice does no harm.
package ledger

import (
	"cmp"
	"context"
	_ "embed" // the scripts
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// ErrNoBody says that a request body which lived under its own key is gone.
var ErrNoBody = errors.New("its body is no longer in Redis")

// ErrUnknownJob says that this Redis has no such job.
var ErrUnknownJob = errors.New("no such job")

// seenLoad is the mean number of requests per seen set at which one is split. Sets not yet split hold up to twice
// as many, and above 512 members Redis gives up the compact form.
const seenLoad = 215

// seenSets is how many seen sets a job begins with; the scripts know it, too. One call brings up to 512 requests at
// once: spread over fewer sets than this they would overfill some before these are split.
const seenSets = 16

// Ledger is safe for use by many goroutines.
type Ledger struct {
	rdb      redis.UniversalClient
	seenSets sync.Map // job → number of its seen sets as last heard of
	clock    clock
}

// New returns the ledger kept in rdb.
func New(rdb redis.UniversalClient) *Ledger { return &Ledger{rdb: rdb} }

//go:embed create.lua
var createText string

//go:embed seal.lua
var sealText string

var (
	createScript = redis.NewScript(createText)
	sealScript   = redis.NewScript(sealText)
)

// ConflictError says that a job exists with another policy than the one given.
type ConflictError struct {
	Job    tasks.JobID
	Fields []string // "--host-rate (the job has 5, not 1)"
}

// Error names the fields that differ and the cure.
func (e *ConflictError) Error() string {
	return fmt.Sprintf("job %s exists with another policy: %s; leave these flags out to continue it, or give another --job",
		e.Job, strings.Join(e.Fields, ", "))
}

// Create makes the job, or opens it again for more. If it exists, the fields of spec named in given (all of them when
// given is nil) must be those it has, else the error is a *ConflictError. It returns the spec in force.
func (l *Ledger) Create(ctx context.Context, job tasks.JobID, spec tasks.Spec, given []string) (inForce tasks.Spec, fresh bool, err error) {
	if err := errors.Join(job.Validate(), spec.Validate()); err != nil {
		return spec, false, err
	}
	spec.V = spec.Version()
	wanted := spec
	if stored, err := l.Spec(ctx, job); err == nil {
		if diff := spec.Difference(stored, given); len(diff) > 0 {
			return stored, false, &ConflictError{Job: job, Fields: diff}
		}
		spec = stored
	} else if !errors.Is(err, ErrUnknownJob) {
		return spec, false, err
	}
	data, err := json.Marshal(spec)
	if err != nil {
		return spec, false, fmt.Errorf("write spec of job %s: %w", job, err)
	}
	k := keysOf(job)
	res, err := createScript.Run(ctx, l.rdb, []string{k.stats, k.spec, jobsKey, liveKey}, string(job), data).Slice()
	if err != nil {
		return spec, false, fmt.Errorf("create job %s: %w", job, err)
	}
	if inForce, err = tasks.ParseSpec([]byte(res[1].(string))); err != nil {
		return inForce, false, fmt.Errorf("job %s: %w", job, err)
	}
	if diff := wanted.Difference(inForce, given); len(diff) > 0 { // another producer made the job meanwhile
		return inForce, false, &ConflictError{Job: job, Fields: diff}
	}
	return inForce, res[0].(int64) == 1, nil
}

// Spec returns the spec of a job, or ErrUnknownJob.
func (l *Ledger) Spec(ctx context.Context, job tasks.JobID) (tasks.Spec, error) {
	data, err := l.rdb.Get(ctx, keysOf(job).spec).Bytes()
	if errors.Is(err, redis.Nil) {
		return tasks.Spec{}, fmt.Errorf("job %s: %w", job, ErrUnknownJob)
	}
	if err != nil {
		return tasks.Spec{}, fmt.Errorf("read spec of job %s: %w", job, err)
	}
	spec, err := tasks.ParseSpec(data)
	if err != nil {
		return spec, fmt.Errorf("job %s: %w", job, err)
	}
	return spec, nil
}

// Expect prepares a job that has accepted nothing yet for about that many requests: its seen-set then need not grow
// step by step. A wrong guess does no harm.
func (l *Ledger) Expect(ctx context.Context, job tasks.JobID, requests int64) error {
	sets := int64(seenSets)
	for sets*seenLoad < requests && sets < 1<<20 {
		sets *= 2
	}
	err := l.rdb.HSetNX(ctx, keysOf(job).stats, "seen_sets", sets).Err()
	return wrap(err, "prepare job %s", job)
}

// Seal says that the producer of a job has nothing more to bring. Ended reports whether the job ended with it.
func (l *Ledger) Seal(ctx context.Context, job tasks.JobID) (ended bool, err error) {
	n, err := sealScript.Run(ctx, l.rdb, []string{keysOf(job).stats, liveKey}, string(job)).Int()
	if err != nil {
		return false, fmt.Errorf("seal job %s: %w", job, err)
	}
	return n == 1, nil
}

// BindStore notes the identity of the store that holds the job's units, at the first call; later calls return an
// error when theirs is another.
func (l *Ledger) BindStore(ctx context.Context, job tasks.JobID, identity, name string) error {
	k := keysOf(job)
	if err := l.rdb.HSetNX(ctx, k.stats, "store", identity).Err(); err != nil {
		return fmt.Errorf("note the store of job %s: %w", job, err)
	}
	noted, err := l.rdb.HGet(ctx, k.stats, "store").Result()
	if err != nil {
		return fmt.Errorf("read the store of job %s: %w", job, err)
	}
	if noted != identity {
		return &OtherStoreError{Job: job, Noted: noted, Identity: identity, Name: name}
	}
	return nil
}

// OtherStoreError says that a job's units lie in another store than the one at hand.
type OtherStoreError struct {
	Job             tasks.JobID
	Noted, Identity string
	Name            string
}

// Error names both stores and the cure.
func (e *OtherStoreError) Error() string {
	return fmt.Sprintf("job %s keeps its results in the store with identity %s; %s is another (%s): give the job's own --store",
		e.Job, e.Noted, e.Name, e.Identity)
}

// LiveJobs returns the jobs that have not ended.
func (l *Ledger) LiveJobs(ctx context.Context) ([]tasks.JobID, error) {
	ids, err := l.rdb.SMembers(ctx, liveKey).Result()
	if err != nil {
		return nil, fmt.Errorf("list live jobs: %w", err)
	}
	jobs := make([]tasks.JobID, len(ids))
	for i, id := range ids {
		jobs[i] = tasks.JobID(id)
	}
	return jobs, nil
}

// Body returns a request body that lives under its own key.
func (l *Ledger) Body(ctx context.Context, job tasks.JobID, key string) ([]byte, error) {
	b, err := l.rdb.Get(ctx, keysOf(job).body(key)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, fmt.Errorf("body %s of job %s: %w", key, job, ErrNoBody)
	}
	if err != nil {
		return nil, fmt.Errorf("read body %s of job %s: %w", key, job, err)
	}
	return b, nil
}

// PutBody keeps a request body under its own key. It must be there before the request is accepted.
func (l *Ledger) PutBody(ctx context.Context, job tasks.JobID, key string, body []byte) error {
	if err := l.rdb.Set(ctx, keysOf(job).body(key), body, 0).Err(); err != nil {
		return fmt.Errorf("keep body %s of job %s: %w", key, job, err)
	}
	return nil
}

// DropBody removes a request body that nobody needs any more.
func (l *Ledger) DropBody(ctx context.Context, job tasks.JobID, key string) error {
	return wrap(l.rdb.Del(ctx, keysOf(job).body(key)).Err(), "drop body %s of job %s", key, job)
}

// Status is what the ledger says of a job.
type Status struct {
	Job      tasks.JobID      `json:"job"`
	State    string           `json:"state"` // accepting, running or ended
	Accepted int64            `json:"accepted"`
	Open     int64            `json:"open"`
	OK       int64            `json:"ok"`
	HTTPErr  int64            `json:"http_error"`
	Failed   int64            `json:"failed"`
	Skipped  int64            `json:"skipped"`
	Bytes    int64            `json:"bytes"`
	Rate     float64          `json:"rate"`    // requests recorded per second, over the last minute
	Classes  map[string]int64 `json:"classes"` // error class → requests
	Batches  int64            `json:"open_batches"`
	Outbox   int64            `json:"outbox"` // batches not yet known to be with asynq
	Store    string           `json:"store,omitempty"`
	Created  time.Time        `json:"created"`
	Ended    *time.Time       `json:"ended,omitempty"`
	Large    []Large          `json:"large,omitempty"` // bodies under way or cut, those furthest from their end first
	// Unchanged are those of OK whose origin answered 304 to a conditional request: Bytes has nothing of them.
	Unchanged int64 `json:"unchanged,omitempty"`
}

// Recorded is the number of requests with an outcome.
func (s Status) Recorded() int64 { return s.OK + s.HTTPErr + s.Failed + s.Skipped }

// Status returns the figures of a job, all of one moment, or ErrUnknownJob.
func (l *Ledger) Status(ctx context.Context, job tasks.JobID) (Status, error) {
	k := keysOf(job)
	pipe := l.rdb.TxPipeline()
	stats, pace := pipe.HGetAll(ctx, k.stats), pipe.HGetAll(ctx, k.pace)
	batches, outbox, now := pipe.HLen(ctx, k.open), pipe.HLen(ctx, k.outbox), pipe.Time(ctx)
	if _, err := pipe.Exec(ctx); err != nil {
		return Status{}, fmt.Errorf("read status of job %s: %w", job, err)
	}
	v := stats.Val()
	if v["created"] == "" {
		return Status{}, fmt.Errorf("job %s: %w", job, ErrUnknownJob)
	}
	n := func(name string) int64 { i, _ := strconv.ParseInt(v[name], 10, 64); return i }
	s := Status{
		Job: job, State: "accepting", Accepted: n("accepted"), Open: n("open"), OK: n("ok"), HTTPErr: n("http_error"),
		Failed: n("failed"), Skipped: n("skipped"), Bytes: n("bytes"), Rate: paceOf(pace.Val(), now.Val()),
		Unchanged: n("unchanged"), Classes: map[string]int64{}, Batches: batches.Val(), Outbox: outbox.Val(), Store: v["store"],
		Created: time.UnixMilli(n("created")).UTC(),
	}
	for name := range v {
		if class, ok := strings.CutPrefix(name, "class:"); ok && n(name) != 0 {
			s.Classes[class] = n(name)
		}
	}
	if v["sealed"] != "" {
		s.State = "running"
	}
	if v["ended"] != "" {
		s.State = "ended"
		at := time.UnixMilli(n("ended")).UTC()
		s.Ended = &at
	}
	if v["large"] == "" || v["ended"] != "" {
		return s, nil
	}
	large, err := l.LargeBodies(ctx, job)
	s.Large = slices.SortedFunc(maps.Values(large), func(a, b Large) int {
		return cmp.Or(cmp.Compare(b.Length-b.Have, a.Length-a.Have), cmp.Compare(a.URL, b.URL))
	})
	return s, err
}

// paceOf is the mean rate over the last six whole ten-second spans and the one under way.
func paceOf(spans map[string]string, now time.Time) float64 {
	var sum int64
	current := now.UnixMilli() / 10_000
	for name, value := range spans {
		span, _ := strconv.ParseInt(name, 10, 64)
		if span < current-6 || span > current {
			continue
		}
		n, _ := strconv.ParseInt(value, 10, 64)
		sum += n
	}
	return float64(sum) / (60 + float64(now.UnixMilli()%10_000)/1000)
}
