package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/alecthomas/kong"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/admin"
	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/store/open"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

const fleetHelp = `Run a whole fleet in one process, and look after jobs.
`

// Fleet runs the fleet command and returns its exit code.
func Fleet(w IO) int {
	var g struct {
		Run     runCommand     `cmd:"" help:"Fetch a list: everything in one process, with an embedded Redis."`
		Demo    demoCommand    `cmd:"" help:"Do the same against a site that is served on loopback: no network needed."`
		Status  statusCommand  `cmd:"" help:"Show the figures of a job."`
		Audit   auditCommand   `cmd:"" help:"Hold a job's ledger against its store and name what is wrong."`
		Monitor monitorCommand `cmd:"" help:"Serve asynqmon alone."`
		Health  healthCommand  `cmd:"" help:"Ask a worker whether it is ready."`
		Origin  originCommand  `cmd:"" help:"Serve the demo's site under given host names."`
	}
	return run(w, "fleet", fleetHelp, &g, func(k *kong.Context) runner {
		switch k.Selected().Name {
		case "run":
			return &g.Run
		case "demo":
			return &g.Demo
		case "status":
			return &g.Status
		case "audit":
			return &g.Audit
		case "monitor":
			return &g.Monitor
		case "health":
			return &g.Health
		}
		return &g.Origin
	})
}

type statusCommand struct {
	RedisFlags
	Job  string `arg:"" help:"Job to show."`
	JSON bool   `name:"json" help:"As JSON."`
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
		return redisconn.Explain(err)
	}
	if c.JSON {
		return json.NewEncoder(w.Stdout).Encode(s)
	}
	fmt.Fprintf(w.Stdout, "job %s: %s\naccepted %d, open %d in %d batches\nok %d, http_error %d, failed %d, skipped %d\n%d bytes, %.1f requests/s\n",
		s.Job, s.State, s.Accepted, s.Open, s.Batches, s.OK, s.HTTPErr, s.Failed, s.Skipped, s.Bytes, s.Rate)
	for class, n := range s.Classes {
		fmt.Fprintf(w.Stdout, "  %s %d\n", class, n)
	}
	return nil
}

type auditCommand struct {
	RedisFlags
	Job   string `arg:"" help:"Job to audit."`
	Store string `env:"FLEET_STORE" required:"" placeholder:"URL" help:"The job's store."`
	JSON  bool   `name:"json" help:"As JSON."`
	Tries int    `default:"10" help:"Looks at a job whose figures move, a second apart (default: ${default})."`
}

// Run audits a job. It fails when anything is wrong.
func (c *auditCommand) Run(ctx context.Context, w IO) error {
	rdb, err := c.open(ctx, redisconn.Options{}, func(string) {})
	if err != nil {
		return err
	}
	defer rdb.Close()
	s, err := open.Open(ctx, c.Store, open.Options{})
	if err != nil {
		return err
	}
	defer s.Close()
	a := &audit.Auditor{Redis: rdb, Ledger: ledger.New(rdb), Store: s}
	report, err := a.Audit(ctx, tasks.JobID(c.Job), max(c.Tries, 1))
	if err != nil {
		return redisconn.Explain(err)
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

// quietLog is the log of a run that shows progress instead: warnings only.
func quietLog(w IO, level zerolog.Level) zerolog.Logger {
	return zerolog.New(zerolog.ConsoleWriter{Out: w.Stderr, TimeFormat: time.TimeOnly, NoColor: !isTerminal(w.Stderr)}).Level(level).With().Timestamp().Logger()
}
