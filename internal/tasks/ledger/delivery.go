package ledger

import (
	"cmp"
	"context"
	_ "embed" // the scripts
	"encoding/json"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

//go:embed begin.lua
var beginText string

//go:embed return.lua
var returnText string

//go:embed finish.lua
var finishText string

//go:embed reopen.lua
var reopenText string

//go:embed retake.lua
var retakeText string

var (
	beginScript  = redis.NewScript(beginText)
	returnScript = redis.NewScript(returnText)
	finishScript = redis.NewScript(finishText)
	reopenScript = redis.NewScript(reopenText)
	retakeScript = redis.NewScript(retakeText)
)

// BatchState is what the ledger says of a batch as a delivery of it begins.
type BatchState string

// The states.
const (
	BatchOpen     BatchState = "open"
	BatchArchived BatchState = "archived" // finished with a failed last attempt; its task may be run again
	BatchClosed   BatchState = "closed"   // finished, or never accepted
	BatchSuspect  BatchState = "suspect"  // open, but not begun: see Start.Suspect
	BatchUnknown  BatchState = "unknown"  // its job is not here
)

// Delivery is what the ledger knows as a delivery of a batch begins.
type Delivery struct {
	State      BatchState
	Now        time.Time     // by Redis
	Begun      int           // deliveries begun and neither finished nor returned, this one included
	Company    int           // of them, earlier ones that began beside other suspects: see Start.Company
	Generation int           // of the batch's one request; 0 for batches of more
	Base       int           // asynq's retry count when the batch was replayed
	Waits      int           // waits in a row, -1 when none was noted
	WaitSince  int64         // Unix milliseconds of the first of them
	Store      string        // identity of the job's store, empty before its first unit
	LastError  string        // what Tried noted last
	Care       time.Duration // for how long those without limits are to ask at the batch's host, too: see Start.Host
	Archived   Note          // when archived
	Large      bool          // the job has had large bodies: see LargeOf
	note       string
}

// Note is what the ledger keeps of a batch whose last attempt failed, so that it can be replayed.
type Note struct {
	Request    tasks.RequestID `json:"request"`
	Generation int             `json:"generation"`
	Outcome    string          `json:"outcome"`
	Class      string          `json:"class"`
	Bytes      int64           `json:"bytes"`
	Error      string          `json:"error"` // the text the task was archived with
}

// Start is a delivery of a batch as it begins.
type Start struct {
	Job     tasks.JobID
	Batch   tasks.BatchID
	Request tasks.RequestID // of the batch's one request, "" for batches of more
	// Token is this delivery's alone, over all workers there ever are. Beginning again under the token that began last
	// is the same delivery, and counted once: clients repeat a command whose reply was lost. It must not be empty.
	Token string
	// Suspect is the number of deliveries begun and neither finished nor returned from which on the batch is not begun, and
	// the answer is BatchSuspect; 0 = it is begun whatever came before.
	Suspect int
	// Company says that others are under way whose workers vanished before: if this delivery vanishes, too, one of them may
	// have been the cause.
	Company bool
	// Host is the key under which others keep what is known of the batch's host; "" = nobody does.
	Host string
}

// Begin notes that a delivery of a batch begins.
func (l *Ledger) Begin(ctx context.Context, s Start) (Delivery, error) {
	k := keysOf(s.Job)
	res, err := beginScript.Run(ctx, l.rdb, []string{k.stats, k.open, k.begun, k.waits, k.generations, k.archived, k.bases, cmp.Or(s.Host, "-")},
		string(s.Batch), string(s.Request), s.Suspect, s.Token, flag(s.Company)).Slice()
	if err != nil {
		return Delivery{}, fmt.Errorf("begin batch %s of job %s: %w", s.Batch, s.Job, err)
	}
	d := Delivery{State: BatchState(res[0].(string)), Now: time.UnixMilli(res[1].(int64))}
	switch d.State {
	case BatchArchived:
		d.note = res[2].(string)
		if err := json.Unmarshal([]byte(d.note), &d.Archived); err != nil {
			return d, fmt.Errorf("read the note on batch %s of job %s: %w", s.Batch, s.Job, err)
		}
	case BatchOpen:
		n := func(i int) int64 { return res[i].(int64) }
		d.Begun, d.Generation = int(n(2)), int(n(3))
		d.Base = int(n(4))
		d.Waits, d.WaitSince, d.Store, d.LastError = int(n(5)), n(6), res[7].(string), res[8].(string)
		d.Care, d.Company = time.Duration(n(9))*time.Microsecond, int(n(10))
		d.Large = n(11) == 1
	}
	return d, nil
}

func flag(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Return gives the batch of a delivery back that ended without a unit and was no crash. Nothing was tried, so deliveries
// that vanished before still count.
func (l *Ledger) Return(ctx context.Context, s Start) error { return l.giveBack(ctx, s, "same") }

// Trial is what is noted of a batch that was tried and is to be tried again.
type Trial struct {
	Waits int    // in a row
	Since int64  // Unix milliseconds of the first of them
	Error string // what went wrong
}

// Tried gives the batch of a delivery back after an attempt or a wait.
func (l *Ledger) Tried(ctx context.Context, s Start, t Trial) error {
	return l.giveBack(ctx, s, "tried", t.Waits, t.Since, t.Error)
}

func (l *Ledger) giveBack(ctx context.Context, s Start, args ...any) error {
	k := keysOf(s.Job)
	err := returnScript.Run(ctx, l.rdb, []string{k.begun, k.waits, k.open},
		append([]any{string(s.Batch), s.Token, flag(s.Company)}, args...)...).Err()
	return wrap(err, "give back batch %s of job %s", s.Batch, s.Job)
}

// Counter is an increment of one of a job's figures.
type Counter struct {
	Name string // an outcome, "bytes", or "class:NAME"
	Add  int64
}

// Child is a batch that follows from a finished one.
type Child struct {
	ID       tasks.BatchID
	Requests int
	Due      int64 // Unix milliseconds, 0 = at once
	Payload  []byte
}

// Finishing is what a committed account means for the ledger.
type Finishing struct {
	Job      tasks.JobID
	Batch    tasks.BatchID
	Recorded int
	Counters []Counter
	Children []Child
	Archive  *Note // not nil: its task is being archived, and may be replayed
	// Request and Generation are those of an account of one request: only such a batch is ever opened again.
	Request    tasks.RequestID
	Generation int
}

// Finish takes the batch out of the open set, counts, and puts its children into the open set and the outbox.
// Only the call that removed it counts: first is false for every other. The caller hands children to asynq and then
// calls Sent.
func (l *Ledger) Finish(ctx context.Context, f Finishing) (first, ended bool, err error) {
	k := keysOf(f.Job)
	note := ""
	if f.Archive != nil {
		data, err := json.Marshal(f.Archive)
		if err != nil {
			return false, false, fmt.Errorf("note batch %s: %w", f.Batch, err)
		}
		note = string(data)
	}
	args := []any{string(f.Batch), string(f.Job), note, f.Recorded, string(f.Request), f.Generation, len(f.Counters)}
	for _, c := range f.Counters {
		args = append(args, c.Name, c.Add)
	}
	for _, c := range f.Children {
		args = append(args, string(c.ID), c.Requests, c.Due, c.Payload)
	}
	res, err := finishScript.Run(ctx, l.rdb, []string{k.stats, k.open, k.outbox, k.begun, k.waits,
		k.bases, k.archived, k.pace, liveKey, k.generations}, args...).Int64Slice()
	if err != nil {
		return false, false, fmt.Errorf("finish batch %s of job %s: %w", f.Batch, f.Job, err)
	}
	return res[0] == 1, res[1] == 1, nil
}

// Reopen opens an archived batch again, one generation up. d is what Begin returned; retried is asynq's retry count.
// It reports false when the batch was not archived any more.
func (l *Ledger) Reopen(ctx context.Context, job tasks.JobID, batch tasks.BatchID, d Delivery, retried int) (bool, error) {
	k := keysOf(job)
	a := d.Archived
	n, err := reopenScript.Run(ctx, l.rdb, []string{k.stats, k.open, k.generations, k.archived, k.bases, liveKey},
		string(batch), string(job), string(a.Request), d.note, a.Generation, retried, a.Outcome, a.Class, a.Bytes).Int()
	return n == 1, wrap(err, "reopen batch %s of job %s", batch, job)
}

// Retake is a recorded request to be taken again.
type Retake struct {
	Request    tasks.RequestID
	Generation int // to take it in: one above its record's
	Payload    []byte
	Outcome    string // its record's
	Class      string
	Bytes      int64
	From       tasks.BatchID // whose unit holds the record
}

// Retake takes a recorded request again as a batch of one, and puts that into the outbox. It reports false when that
// generation was begun before.
func (l *Ledger) Retake(ctx context.Context, job tasks.JobID, r Retake) (tasks.BatchID, bool, error) {
	k := keysOf(job)
	id := tasks.RetakenBatchID(job, r.Request, r.Generation)
	n, err := retakeScript.Run(ctx, l.rdb, []string{k.stats, k.open, k.generations, k.outbox, liveKey},
		string(id), string(job), string(r.Request), r.Generation, r.Payload, r.Outcome, r.Class, r.Bytes, string(r.From)).Int()
	return id, n == 1, wrap(err, "take request %s of job %s again", r.Request, job)
}
