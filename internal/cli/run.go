package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"golang.org/x/term"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/progress"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/store/jsonl"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/embedded"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

// defaultOut is where a run leaves its results when nobody says where.
const defaultOut = "fetched"

// LocalFlags are those of a fleet in one process.
type LocalFlags struct {
	PolicyFlags
	FetchFlags
	Redis       string   `env:"FLEET_REDIS" placeholder:"URL" help:"A Redis to use instead of the embedded one; the run has a queue of its own there."`
	Job         string   `env:"FLEET_JOB" placeholder:"ID" help:"Job to create or continue (default: the one recorded in --out)."`
	Store       []string `env:"FLEET_STORE" sep:"none" placeholder:"URL" help:"Where results are kept instead of --out, which then has the list of them alone: file:DIR or a path, warc:DIR, s3://…, postgres://…. Given again, or after a comma, more stores that get the same; jsonl:- writes records to standard output, beside --out where no other store is named."`
	Out         string   `short:"o" env:"FLEET_OUT" default:"${out}" placeholder:"DIR" help:"Folder for results, continued if it has a job (default: ${default})."`
	RetryFailed bool     `env:"FLEET_RETRY_FAILED" help:"Take the failures of the job again."`
	Quiet       bool     `short:"q" env:"FLEET_QUIET" help:"No progress, no summary."`
	JSON        bool     `name:"json" env:"FLEET_JSON" help:"Print the summary as JSON on standard output."`
	LogLevel    string   `env:"FLEET_LOG_LEVEL" default:"warn" enum:"debug,info,warn,error" help:"debug, info, warn or error (default: ${default})."`
}

type runCommand struct {
	LocalFlags
	RowFlags
	Since string   `env:"FLEET_SINCE" placeholder:"JOB" help:"Ask only for what has changed since this earlier job in --out; without a list, at all of its URLs."`
	Files []string `arg:"" optional:"" name:"FILE" help:"Lists; - is standard input."`
}

// Help says what the flags do not.
func (*runCommand) Help() string {
	return `Each line of a list is a URL, or a JSON object {"url", "method", "headers", "params", "body", "json", "form", "multipart",
"body_base64", "key", "meta", "retries", "timeout"}. Blank lines and lines that begin with # are ignored. Files may be gzip
or zstd. A FILE that is a URL is a list of one. With --template the FILEs are tables, CSV or JSON Lines, and each row makes
a request; with --sql rows come from a database.

DIR/results.jsonl has one record for each request, also after Ctrl-C. The same command again fetches what is missing;
without a FILE it goes on with the job in --out, which is enough unless its list was cut short.

With --redis a run keeps to itself all the same: its job has a queue of its own there, so --queue is refused. No worker
takes from that queue, and the run takes from no other.
` + sinceHelp + `
DIR/results.jsonl then has the records of the new job; the earlier one stays in the folder.
` + exitHelp
}

// Run fetches lists in one process.
func (c *runCommand) Run(ctx context.Context, w IO) error {
	if c.Since != "" {
		if err := errors.Join(checkSince(c.Since, c.Job, len(c.Files) == 0 && c.SQL == "", &c.PolicyFlags), existing(c.Since, c.Out)); err != nil {
			return err
		}
	} else if len(c.Files) == 0 && c.SQL == "" && (!recorded(c.Out) || piped(w.Stdin)) {
		if f, ok := w.Stdin.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
			return usage("no list given: name files, or - for standard input")
		}
		c.Files = []string{lists.Stdin}
	}
	if err := lists.Check(c.Files); err != nil {
		return err
	}
	return (&local{LocalFlags: c.LocalFlags, rowFlags: c.RowFlags, since: c.Since, files: c.Files, w: w}).run(ctx)
}

// piped reports whether standard input is a pipe or a file, and not a terminal or nothing.
func piped(r io.Reader) bool {
	f, ok := r.(*os.File)
	if !ok {
		return r != nil
	}
	st, err := f.Stat()
	return err == nil && (st.Mode()&fs.ModeNamedPipe != 0 || st.Mode().IsRegular())
}

// local is a fleet in one process: Redis, producer, worker, display, results.
type local struct {
	LocalFlags
	rowFlags RowFlags
	asked    *requests
	since    string // an earlier job, "" = none
	files    []string
	w        IO
	began    time.Time
	own      []secrets.Ref // what its flags refer to
	once     bool          // nobody will run this again, so nobody is told how
	note     jobNote       // of the output folder, as it was
	current  jobNote
	noted    bool // it had one

	end      func(error) // ends the run, for a reason
	store    *storeNote
	embedded *embedded.Redis
	redis    redis.UniversalClient
	member   *member
	producer *producer
	earlier  int64 // requests recorded before this run
	last     progress.Snapshot
	held     atomic.Int64 // looks at which nothing but host limits held the run back
	heldAt   atomic.Int64 // when it last did, Unix nanoseconds
	looks    atomic.Int64
}

// run is the whole of it, in order: Redis, store, job, what is there already, worker, list, end, results, summary.
func (l *local) run(ctx context.Context) (err error) {
	l.began = time.Now()
	ctx, l.end = context.WithCancelCause(ctx)
	defer l.end(nil)
	if l.asked, err = readRequests(&l.PolicyFlags, l.rowFlags, l.files, l.w.Stdin); err != nil {
		return err
	}
	defer l.asked.close()
	spec, given, err := l.Spec()
	if err != nil {
		return err
	}
	if err := l.asked.apply(&l.PolicyFlags, &spec, &given); err != nil {
		return err
	}
	if err := l.validate(); err != nil {
		return err
	}
	l.own = ownReferences(&spec)
	for _, warning := range l.warnings(&spec) {
		fmt.Fprintln(l.w.Stderr, "fleet: warning:", warning)
	}
	if err := l.openRedis(ctx); err != nil {
		return err
	}
	defer l.closeRedis()
	if err := l.chooseJob(ctx, &spec); err != nil {
		return err
	}
	if l.noted && string(l.note.Job) == l.Job { // a run that goes on without its flags
		l.own = append(l.own, ownReferences(&l.note.Spec)...)
	}
	if err := l.openMember(ctx, spec.Queue); err != nil {
		return err
	}
	defer l.member.close()
	if err := l.openJob(ctx, spec, given); err != nil {
		return err
	}
	if err := l.retake(ctx); err != nil {
		return err
	}
	interrupted := l.work(ctx)
	if interrupted == nil {
		interrupted = l.pack(ctx)
	}
	if cause := context.Cause(ctx); errors.Is(cause, jsonl.ErrGone) {
		interrupted = cause
	}
	summary, err := l.results(context.WithoutCancel(ctx))
	if err != nil {
		return errors.Join(interrupted, err)
	}
	if err := l.show(summary, interrupted); err != nil {
		return err
	}
	return l.exit(summary, interrupted)
}

func (l *local) validate() error {
	if l.Redis != "" && l.Queue != nil {
		return usage("--queue %s: with --redis a run has a queue of its own, which no other worker takes from: leave it out; for a queue that workers share there is 'enqueue'", *l.Queue)
	}
	if err := l.validateStores(); err != nil {
		return err
	}
	return l.FetchFlags.validate()
}

func (l *local) openRedis(ctx context.Context) error {
	url := l.Redis
	if url == "" {
		server, err := embedded.Start()
		if err != nil {
			return err
		}
		l.embedded = server
		url = server.URL()
	}
	rdb, err := openRedis(ctx, url, redisconn.Options{PoolSize: poolSize, Closing: ctx.Done()}, l.warn)
	if err != nil {
		l.closeRedis()
		return err
	}
	l.redis = rdb
	return nil
}

func (l *local) warn(s string) {
	if l.embedded == nil { // what an embedded Redis lacks is no news
		fmt.Fprintln(l.w.Stderr, "fleet: warning:", s)
	}
}

func (l *local) closeRedis() {
	if l.redis != nil {
		_ = l.redis.Close()
	}
	if l.embedded != nil {
		l.embedded.Close()
	}
}

// chooseJob finds out which job is run, and in which queue. Beside other workers on a shared Redis it has a queue of its
// own: they would put its results into their store, and it would put theirs into its output folder.
func (l *local) chooseJob(ctx context.Context, spec *tasks.Spec) (err error) {
	if l.note, l.noted, err = readJobNote(l.Out); err != nil {
		return err
	}
	if l.Job == "" && l.noted && (l.since == "" || string(l.note.Spec.Since) == l.since) {
		l.Job = string(l.note.Job)
	}
	if l.Job == "" {
		l.Job = string(tasks.NewJobID(l.began))
	}
	job := tasks.JobID(l.Job)
	if err := job.Validate(); err != nil {
		return usage("--job: %w", err)
	}
	there, err := ledger.New(l.redis).Spec(ctx, job)
	switch {
	case err == nil && l.embedded == nil && there.Queue != tasks.RunQueue(job):
		return usage("job %s is in the queue %q, which others share: start 'worker --store …' for it; fleet run has jobs of its own", job, there.Queue)
	case err == nil:
		spec.Queue = there.Queue
	case !errors.Is(err, ledger.ErrUnknownJob):
		return redisconn.Explain(err)
	case l.embedded == nil: // also where the folder's job was run without --redis, in a queue of the usual names
		spec.Queue = tasks.RunQueue(job)
	case l.noted && l.note.Job == job:
		spec.Queue = l.note.Spec.Queue
	}
	return nil
}

// openJob creates the job, or continues the one that --job or the output folder names. An embedded Redis knows nothing
// of it: its ledger is rebuilt from the store.
func (l *local) openJob(ctx context.Context, spec tasks.Spec, given []string) error {
	p := &producer{w: l.w, name: "fleet", here: true, ledger: ledger.New(l.redis), given: given, quiet: l.Quiet, files: l.files, asked: l.asked}
	p.dispatcher = dispatch.New(l.redis, p.ledger)
	l.producer = p
	if err := l.openSince(ctx, &spec); err != nil {
		return err
	}
	note := l.note
	if l.continues() {
		if err := l.member.copyMissing(ctx, l.Job); err != nil {
			return fmt.Errorf("bring the copies of job %s up to date: %w", l.Job, err)
		}
	}
	if l.continues() && l.embedded != nil {
		if _, _, err := p.ledger.Create(ctx, note.Job, note.Spec, nil); err != nil {
			return err
		}
		if _, err := audit.Rebuild(ctx, p.ledger, l.member.kept(), note.Job, note.Spec); err != nil {
			return fmt.Errorf("rebuild job %s from %s: %w", l.Job, l.Out, err)
		}
	}
	if err := p.open(ctx, l.Job, spec); err != nil {
		return err
	}
	status, err := p.ledger.Status(ctx, p.job)
	if err != nil {
		return err
	}
	l.earlier = status.Recorded()
	if l.earlier > 0 && !l.Quiet {
		fmt.Fprintf(l.w.Stderr, "continuing job %s: %d requests are done\n", p.job, l.earlier)
	}
	inForce, err := p.ledger.Spec(ctx, p.job)
	if err != nil {
		return err
	}
	l.current = jobNote{Job: p.job, Spec: inForce, Store: l.store}
	return writeJobNote(l.Out, l.current)
}

// retake takes the job's failures again.
func (l *local) retake(ctx context.Context) error {
	if !l.RetryFailed {
		return nil
	}
	var taken int64
	err := audit.Failures(ctx, l.member.kept(), l.producer.job, func(r ledger.Retake) error {
		_, ok, err := l.producer.ledger.Retake(ctx, l.producer.job, r)
		if ok {
			taken++
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("take the failures of job %s again: %w", l.producer.job, err)
	}
	l.earlier -= taken
	if !l.Quiet {
		fmt.Fprintf(l.w.Stderr, "taking %d failures again\n", taken)
	}
	_, err = l.producer.dispatcher.Drain(ctx, l.producer.job, 0)
	return err
}

// work runs worker and producer until the job has ended or ctx is done. It returns what cut the run short.
func (l *local) work(ctx context.Context) error {
	working, stop := context.WithCancel(context.Background())
	worked := make(chan error, 1)
	go func() { worked <- l.member.worker.Run(working) }()
	hide := l.producer.display(l.w, l.sample)
	go every(working, lookInterval, l.look)
	err := l.producer.fill(ctx)
	if err == nil {
		_, err = awaitEnd(ctx, l.producer.ledger, l.producer.job)
	}
	if err == nil {
		err = l.complete()
	}
	if ctx.Err() != nil && !l.Quiet {
		l.producer.say("stopping: requests in flight finish; once more stops at once")
	}
	stop()
	err = errors.Join(err, <-worked)
	l.last, _ = l.sample(context.WithoutCancel(ctx))
	hide()
	return err
}

// complete notes that the whole list was fetched. A job that was cut short has the rest of it in its list only, so without
// the list it is not complete, however well the rest went.
func (l *local) complete() error {
	if l.noted && !l.note.Complete && l.note.Job == l.producer.job && l.producer.enqueuer.Counts().Lines == 0 {
		return usage("job %s in %s was cut short, and what it had not begun is in its list only: give %s again", l.Job, l.Out, l.source())
	}
	l.current.Complete = true
	return writeJobNote(l.Out, l.current)
}

func (l *local) sample(ctx context.Context) (progress.Snapshot, error) {
	s, err := l.producer.sample(ctx)
	if err != nil {
		return s, err
	}
	s.InFlight = l.member.worker.InFlight()
	if s.Open > 0 && time.Since(time.Unix(0, l.heldAt.Load())) < time.Second { // a look at one moment misses what comes and goes
		s.HeldBack = "host limits (--host-rate, --host-conns)"
	}
	return s, nil
}

// heldBack reports whether requests wait for their host while there is room for more in flight.
func (l *local) heldBack() bool {
	return l.member.gate.Waiting() > 0 && l.member.worker.InFlight() < l.Concurrency
}

// lookInterval is how often a run looks whether host limits hold it back, for the summary.
const lookInterval = 50 * time.Millisecond

func (l *local) look() {
	l.looks.Add(1)
	if l.heldBack() {
		l.held.Add(1)
		l.heldAt.Store(time.Now().UnixNano())
	}
}

// every calls do each interval until ctx is done.
func every(ctx context.Context, interval time.Duration, do func()) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			do()
		case <-ctx.Done():
			return
		}
	}
}
