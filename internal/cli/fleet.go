package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"

	"github.com/alecthomas/kong"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/admin"
	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

const fleetHelp = `Run a whole fleet in one process, and look after jobs.

'fleet demo' fetches a small site that it serves itself; 'fleet run urls.txt' fetches a list of yours. For a fleet of
many workers start a Redis, 'worker' as often as you like, and 'enqueue urls.txt'.
`

// Fleet runs the fleet command and returns its exit code.
func Fleet(w IO) int {
	var g fleetGrammar
	return run(w, "fleet", fleetHelp+exitHelp, &g, g.selected)
}

type fleetGrammar struct {
	VersionFlag
	Run     runCommand     `cmd:"" help:"Fetch a list: everything in one process, with an embedded Redis."`
	Demo    demoCommand    `cmd:"" help:"Do the same against a site that is served on loopback: no network needed."`
	Status  statusCommand  `cmd:"" help:"Show the figures of a job."`
	Hosts   hostsCommand   `cmd:"" help:"Report what a job did at each host: requests, rate, waits, robots.txt, pauses."`
	Audit   auditCommand   `cmd:"" help:"Hold a job's ledger against its store and name what is wrong."`
	Verify  verifyCommand  `cmd:"" help:"Read everything of a job again and name what is not as it was stored."`
	Export  exportCommand  `cmd:"" help:"Write the records of a job as JSON lines, CSV, Parquet, URLs or, with the bodies, WARC."`
	Probe   probeCommand   `cmd:"" help:"Show what a server speaks: HTTP/1.1, 2 and 3 side by side, TLS, certificate, timings."`
	Monitor monitorCommand `cmd:"" help:"Serve asynqmon alone."`
	Health  healthCommand  `cmd:"" help:"Ask a worker whether it is ready."`
	Origin  originCommand  `cmd:"" help:"Serve the demo's site under given host names."`
}

func (g *fleetGrammar) selected(k *kong.Context) runner {
	switch k.Selected().Name {
	case "run":
		return &g.Run
	case "demo":
		return &g.Demo
	case "status":
		return &g.Status
	case "hosts":
		return &g.Hosts
	case "audit":
		return &g.Audit
	case "verify":
		return &g.Verify
	case "export":
		return &g.Export
	case "probe":
		return &g.Probe
	case "monitor":
		return &g.Monitor
	case "health":
		return &g.Health
	}
	return &g.Origin
}

type statusCommand struct {
	RedisFlags
	Job  string `arg:"" help:"Job to show."`
	JSON bool   `name:"json" env:"FLEET_JSON" help:"Print it as JSON."`
}

// Run prints a job's status.
func (c *statusCommand) Run(ctx context.Context, w IO) error {
	rdb, err := c.open(ctx, redisconn.Options{}, func(string) {})
	if err != nil {
		return err
	}
	defer rdb.Close()
	s, err := ledger.New(rdb).Status(ctx, tasks.JobID(c.Job))
	if err != nil {
		return unknownJob(err, rdb)
	}
	if c.JSON {
		return json.NewEncoder(w.Stdout).Encode(s)
	}
	printStatus(w.Stdout, s)
	return nil
}

func printStatus(w io.Writer, s ledger.Status) {
	fmt.Fprintf(w, "job %s: %s\n", s.Job, s.State)
	fmt.Fprintf(w, "accepted %d, open %d in %d batches\n", s.Accepted, s.Open, s.Batches)
	fmt.Fprintf(w, "ok %d, http_error %d, failed %d, skipped %d\n", s.OK, s.HTTPErr, s.Failed, s.Skipped)
	if s.Unchanged > 0 {
		fmt.Fprintf(w, "%d of those ok are unchanged since an earlier job\n", s.Unchanged)
	}
	fmt.Fprintf(w, "%d bytes of bodies, %.1f requests/s over the last minute\n", s.Bytes, s.Rate)
	for _, class := range slices.Sorted(maps.Keys(s.Classes)) {
		fmt.Fprintf(w, "  %s %d\n", class, s.Classes[class])
	}
	if len(s.Large) > 0 {
		printLarge(w, s.Large)
	}
}

// largeListed is how many large bodies a status names.
const largeListed = 10

// printLarge lists large bodies under way, those furthest from their end first.
func printLarge(w io.Writer, bodies []ledger.Large) {
	fmt.Fprintf(w, "large bodies: %d\n", len(bodies))
	for i, b := range bodies {
		if i == largeListed {
			fmt.Fprintf(w, "  and %d more\n", len(bodies)-i)
			return
		}
		how := "by " + b.Worker
		if b.Cut {
			how = "cut"
			if b.Have > 0 {
				how = "cut, to go on"
			}
		} else if age := time.Since(b.Time()).Round(time.Second); age > stalled {
			how += fmt.Sprintf(", not heard of for %s", age)
		}
		fmt.Fprintf(w, "  %3d%% of %d bytes, %s: %s\n", 100*b.Have/max(b.Length, 1), b.Length, how, b.URL)
	}
}

// stalled is the age of a note on a large body from which on its worker may be gone.
const stalled = 15 * time.Second

// unknownJob says where a job was looked for, and explains other errors of Redis.
func unknownJob(err error, rdb redis.UniversalClient) error {
	if errors.Is(err, ledger.ErrUnknownJob) {
		return fmt.Errorf("%w in Redis at %s: check the id, and --redis", err, redisconn.Address(rdb))
	}
	return redisconn.Explain(err)
}

type auditCommand struct {
	RedisFlags
	Job   string `arg:"" help:"Job to audit."`
	Store string `env:"FLEET_STORE" required:"" placeholder:"URL" help:"The store that the job's workers were given; the first if there are several."`
	JSON  bool   `name:"json" env:"FLEET_JSON" help:"Print it as JSON."`
	Tries int    `env:"FLEET_TRIES" default:"10" help:"Looks at a job whose figures move, a second apart (default: ${default})."`
}

// Run audits a job. It fails when anything is wrong.
func (c *auditCommand) Run(ctx context.Context, w IO) error {
	rdb, err := c.open(ctx, redisconn.Options{}, func(string) {})
	if err != nil {
		return err
	}
	defer rdb.Close()
	l := ledger.New(rdb)
	if _, err := l.Status(ctx, tasks.JobID(c.Job)); err != nil { // before a folder is made for a job that is not there
		return unknownJob(err, rdb)
	}
	s, err := openStore(ctx, c.Store)
	if err != nil {
		return err
	}
	defer s.Close()
	a := &audit.Auditor{Redis: rdb, Ledger: l, Store: s}
	report, err := a.Audit(ctx, tasks.JobID(c.Job), max(c.Tries, 1))
	if err != nil {
		return unknownJob(err, rdb)
	}
	if c.JSON {
		if err := json.NewEncoder(w.Stdout).Encode(report); err != nil {
			return err
		}
	} else {
		fmt.Fprintf(w.Stdout, "job %s (%s): accepted %d = recorded %d + open %d; %d records in %d units\n",
			report.Job, report.State, report.Accepted, report.Recorded, report.Open, report.Records, report.Units)
	}
	if report.OK() {
		return nil
	}
	if !c.JSON {
		for _, p := range report.Problems {
			fmt.Fprintln(w.Stdout, "wrong:", p)
		}
	}
	return &exitError{code: ExitFailed, err: fmt.Errorf("audit of job %s found %d problems", report.Job, len(report.Problems))}
}

type monitorCommand struct {
	RedisFlags
	LogFlags
	Listen       string `env:"FLEET_LISTEN" default:"127.0.0.1:8081" placeholder:"ADDR" help:"Address to serve at (default: ${default})."`
	MonitorWrite bool   `env:"FLEET_MONITOR_WRITE" help:"Let it change queues and tasks. It has no login."`
}

// Run serves the monitor until the context ends.
func (c *monitorCommand) Run(ctx context.Context, w IO) error {
	log := c.logger(w.Stderr)
	rdb, err := c.open(ctx, redisconn.Options{}, func(s string) { log.Warn().Msg(s) })
	if err != nil {
		return err
	}
	defer rdb.Close()
	listener, err := admin.Listen(c.Listen)
	if err != nil {
		return err
	}
	h := admin.New(admin.Options{Redis: rdb, MonitorWrite: c.MonitorWrite, Title: "fleet monitor", Logger: log})
	defer h.Close()
	fmt.Fprintf(w.Stderr, "monitor at http://%s/monitor/\n", listener.Addr())
	return admin.ServeOn(ctx, listener, h)
}

// quietLog is the log of a run that shows progress instead: warnings only, and no values of secrets.
func quietLog(w IO, level zerolog.Level, s *secrets.Source) zerolog.Logger {
	console := zerolog.ConsoleWriter{Out: w.Stderr, TimeFormat: time.TimeOnly, NoColor: !isTerminal(w.Stderr)}
	return zerolog.New(s.Writer(console)).Level(level).With().Timestamp().Logger()
}
