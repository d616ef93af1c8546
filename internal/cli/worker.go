package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/admin"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/hosts/rules"
	"github.com/fetchfleet/fetchfleet/internal/metrics"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/jsonl"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/faults"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

const workerHelp = `One member of the fleet: takes batches from Redis, fetches them and stores every answer.

Start as many as you like; they are interchangeable and may be killed at any moment. SIGTERM lets requests in flight
finish for --drain-timeout, hands the rest back and exits 0; a second signal exits at once and loses nothing.

What --store may name:

  file:DIR, or a path   bodies as files, records as JSON lines
  warc:DIR              WARC 1.1 files with a CDXJ index; ?compress=zstd, ?decoded=true
                        (a decoded copy, too), ?merge-size=BYTES (of a file; 1 GB)
  s3://BUCKET/PREFIX    as file:, in a bucket; ?endpoint=http://HOST:PORT, ?region=NAME
  postgres://USER@HOST/DATABASE
                        tables for SQL; ?schema=NAME, ?bodies=off
  jsonl:-               records to standard output, beside one of the others

S3 takes its keys from AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or from ~/.aws/credentials, PostgreSQL its password
from PGPASSWORD or from ~/.pgpass.
A folder or a schema that is not there is made, a bucket or a database is not.

Exit codes: 0 stopped as it was asked to; 1 could not run, or not go on; 2 wrong usage; 130 stopped by a second signal.
`

// Worker runs the worker command and returns its exit code.
func Worker(w IO) int {
	var c workerCommand
	return run(w, "worker", workerHelp, &c, func(*kong.Context) runner { return &c })
}

// FetchFlags are how a worker works, wherever it runs.
type FetchFlags struct {
	ConnectionFlags
	Visits        int            `group:"Worker" env:"FLEET_VISITS" default:"512" help:"Batches worked at once (default: ${default})."`
	Concurrency   int            `group:"Worker" env:"FLEET_CONCURRENCY" default:"128" help:"Requests in flight over all visits (default: ${default})."`
	AllowPrivate  []string       `group:"Worker" env:"FLEET_ALLOW_PRIVATE" placeholder:"CIDR" help:"Private addresses that may be fetched from: CIDR blocks, addresses, or all (default: none)."`
	DrainTimeout  tasks.Duration `group:"Worker" env:"FLEET_DRAIN_TIMEOUT" default:"30s" help:"How long requests in flight may go on after SIGTERM (default: ${default})."`
	Hosts         string         `group:"Worker" name:"hosts" env:"FLEET_HOSTS" type:"path" placeholder:"FILE" help:"The fleet's own rules for hosts, one a line: HOST or *.SUFFIX, then rate=, burst=, conns=, delay=, agent=, robots=, blocked. They win over a job's flags; the file is read again when it changes."`
	PerAddress    bool           `group:"Worker" env:"FLEET_PER_ADDRESS" help:"Hosts that resolve to the same address share their limits, as one server may have many names; each keeps its own robots.txt. Give it to every worker of a fleet or to none: they would keep two accounts of one host."`
	RetryAfterCap tasks.Duration `group:"Worker" env:"FLEET_RETRY_AFTER_CAP" default:"1h" help:"The longest pause that a host may ask for with Retry-After (default: ${default})."`
	Sync          string         `group:"Worker" env:"FLEET_SYNC" default:"batch" enum:"batch,off" help:"batch: a stored unit survives a loss of power; off: a crash of the worker only (default: ${default})."`
	Names         string         `group:"Worker" env:"FLEET_NAMES" default:"digest" enum:"digest,path" help:"How stores of files name bodies: digest, or path: by host and path (default: ${default})."`
	DedupeIndex   string         `group:"Worker" env:"FLEET_DEDUPE_INDEX" type:"path" placeholder:"FILE" help:"A CDXJ file of an earlier job of the same store of WARC files, or a folder of such: what is there already becomes a revisit record."`
	GuardFlags
	SecretFlags
}

func (f *FetchFlags) validate() error {
	if f.Visits < 1 || f.Concurrency < 1 {
		return usage("--visits %d, --concurrency %d: at least 1", f.Visits, f.Concurrency)
	}
	if f.DrainTimeout <= 0 {
		return usage("--drain-timeout %s: must be above 0", f.DrainTimeout)
	}
	if f.RetryAfterCap <= 0 {
		return usage("--retry-after-cap %s: must be above 0", f.RetryAfterCap)
	}
	if err := f.GuardFlags.apply(&fetch.Options{}); err != nil {
		return err
	}
	if _, err := f.allowed(); err != nil {
		return err
	}
	_, err := f.connections()
	return err
}

// allowed reads --allow-private. An empty entry, as an empty environment variable gives, is none.
func (f *FetchFlags) allowed() ([]netip.Prefix, error) {
	var texts []string
	for _, t := range f.AllowPrivate {
		if strings.TrimSpace(t) != "" {
			texts = append(texts, t)
		}
	}
	prefixes, err := fetch.ParsePrefixes(texts)
	if err != nil {
		return nil, usage("--allow-private: %w", err)
	}
	return prefixes, nil
}

// fetcher makes the fetcher that the flags describe.
func (f *FetchFlags) fetcher() (*fetch.Fetcher, error) {
	allow, err := f.allowed()
	if err != nil {
		return nil, err
	}
	conns, err := f.connections()
	if err != nil {
		return nil, err
	}
	o := fetch.Options{AllowPrivate: allow, Connections: conns, IdleConnTimeout: time.Duration(f.IdleConnTimeout),
		MaxIdleConns: cmp.Or(f.MaxIdleConns, idleConns(f.Concurrency)), MaxIdleConnsPerHost: cmp.Or(f.MaxIdlePerHost, f.Concurrency)}
	if err := f.GuardFlags.apply(&o); err != nil {
		return nil, err
	}
	return fetch.New(o), nil
}

// idleConns is how many idle connections are kept over all hosts. Visits come and go in bursts of a batch, so the same
// concurrency spreads over many more connections than it uses at once; closing and dialling anew cost 5 % of the CPU.
func idleConns(concurrency int) int { return 16 * concurrency }

type workerCommand struct {
	VersionFlag
	RedisFlags
	FetchFlags
	LogFlags
	Store        []string `env:"FLEET_STORE" required:"" sep:"none" placeholder:"URL" help:"Where results are kept: file:DIR or a path, warc:DIR (?compress=zstd, ?decoded=true), s3://BUCKET/PREFIX?endpoint=URL, or postgres://USER@HOST/DATABASE. Given again, or after a comma, more stores that get the same; the first decides what is committed, and jsonl:- among the others writes records to standard output. Give every worker of a fleet the same."`
	Queues       string   `env:"FLEET_QUEUES" default:"critical=6,default=3,low=1" help:"Queues and their weights (default: ${default})."`
	Listen       string   `env:"FLEET_LISTEN" default:"127.0.0.1:8080" placeholder:"ADDR" help:"Address for /livez, /readyz, /metrics and /monitor; empty = none (default: ${default})."`
	MonitorWrite bool     `env:"FLEET_MONITOR_WRITE" help:"Let /monitor change queues and tasks. It has no login."`
	Name         string   `env:"FLEET_NAME" help:"Name in records and logs (default: host name, process id and a random part)."`
}

// Run works until the context ends.
func (c *workerCommand) Run(ctx context.Context, w IO) error {
	if err := c.validate(); err != nil {
		return err
	}
	queues, err := parseQueues(c.Queues)
	if err != nil {
		return err
	}
	stores := storeURLs(c.Store)
	if err := checkStores(stores); err != nil {
		return err
	}
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	source, err := c.secretSource(nil)
	if err != nil {
		return err
	}
	log := c.cleanLogger(w.Stderr, source)
	rdb, err := c.open(ctx, redisconn.Options{PoolSize: poolSize, Closing: ctx.Done()}, func(s string) { log.Warn().Msg(s) })
	if err != nil {
		return err
	}
	defer rdb.Close()
	redisconn.LogTo(log)
	m := &member{FetchFlags: c.FetchFlags, redis: rdb, stores: stores, stdout: w.Stdout, end: end, queues: queues,
		log: log, secrets: source, name: c.Name, registry: prometheus.NewRegistry()}
	if err := m.build(ctx); err != nil {
		return err
	}
	defer m.close()
	err = c.serve(ctx, m)
	if cause := context.Cause(ctx); errors.Is(cause, jsonl.ErrGone) {
		return errors.Join(cause, err)
	}
	return err
}

// poolSize is how many connections to Redis a worker keeps: its visits take turns.
const poolSize = 64

// serve runs the worker with its listener beside it. The listener ends after the worker, so that a draining worker
// still answers.
func (c *workerCommand) serve(ctx context.Context, m *member) error {
	if c.Listen == "" {
		return m.worker.Run(ctx)
	}
	listener, err := admin.Listen(c.Listen)
	if err != nil {
		return err
	}
	handler := admin.New(admin.Options{Registry: m.registry, Redis: m.redis, Ready: m.worker.Ready,
		MonitorWrite: c.MonitorWrite, Title: "worker " + m.name, Logger: m.log})
	defer handler.Close()
	m.log.Info().Str("listen", listener.Addr().String()).Str("store", m.store.String()).Strs("copies", m.copies()).Msg("worker starts")
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	served := make(chan error, 1)
	go func() { served <- admin.ServeOn(serving, listener, handler) }()
	err = m.worker.Run(ctx)
	stop()
	return errors.Join(err, <-served)
}

// member is a worker and what it works with, as the worker command and fleet run build it.
type member struct {
	FetchFlags
	redis    redis.UniversalClient
	stores   []string    // URLs, the first decides what is committed
	stdout   io.Writer   // what jsonl:- writes to
	end      func(error) // ends the context of whoever runs this, for a reason found here
	queues   map[string]int
	log      zerolog.Logger
	secrets  *secrets.Source // of what jobs refer to
	name     string
	registry *prometheus.Registry
	parts    bool // Redis may not know of the beginnings of bodies that the store has

	store   store.Store // all of them
	fetcher *fetch.Fetcher
	gate    *hosts.Fleet
	worker  *worker.Worker
	unwatch func() // ends the watch over --hosts
}

// newName makes a name that no other worker has: in containers the process id is always 1, and host names are chosen.
func newName() string {
	host, err := os.Hostname()
	if err != nil {
		host = "unknown"
	}
	return fmt.Sprintf("%s:%d:%04x", host, os.Getpid(), rand.N(1<<16))
}

func (m *member) build(ctx context.Context) (err error) {
	tuneGC()
	if m.name == "" {
		m.name = newName()
	}
	if m.fetcher, err = m.FetchFlags.fetcher(); err != nil {
		return err
	}
	if m.store, err = m.openStores(ctx); err != nil {
		return err
	}
	if err := m.store.Check(ctx); err != nil {
		return closing(m.store, err)
	}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	hostRules, err := m.hostRules(ctx)
	if err != nil {
		return closing(m.store, err)
	}
	figures := metrics.New(m.registry)
	metrics.ObserveConnections(m.registry, func() metrics.Connections { return connectionFigures(m.fetcher) })
	m.gate = hosts.NewFleet(hosts.NewRedis(m.redis, asynqkeys.CallLua, figures.HostCall).OnStep(faults.Point))
	if m.PerAddress {
		m.gate.PerAddress(hosts.NewAddresses(m.redis, nil))
	}
	m.worker, err = worker.New(ctx, worker.Options{
		Redis: m.redis, Store: m.store, Fetcher: m.fetcher, Gate: m.gate, Name: m.name, Visits: m.Visits,
		Concurrency: m.Concurrency, Queues: m.queues, DrainTimeout: time.Duration(m.DrainTimeout), Logger: m.log,
		Metrics: figures, Rules: hostRules, RetryAfterCap: time.Duration(m.RetryAfterCap), Parts: m.parts, Secrets: m.secrets,
	})
	if err != nil {
		m.unwatch()
		return closing(m.store, err)
	}
	return nil
}

// hostRules reads --hosts and keeps it up to date until unwatch is called.
func (m *member) hostRules(ctx context.Context) (func(host string) rules.Rule, error) {
	m.unwatch = func() {}
	if m.Hosts == "" {
		return nil, nil
	}
	file, err := rules.Open(m.Hosts, func(err error) { m.log.Error().Err(err).Msg("rules for hosts stay as they were") })
	if err != nil {
		return nil, usage("--hosts: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		file.Watch(ctx, 0)
	}()
	m.unwatch = func() { cancel(); <-done }
	return file.For, nil
}

func (m *member) close() {
	m.unwatch()
	m.fetcher.Close()
	if err := m.store.Close(); err != nil {
		m.log.Error().Err(err).Msg("store did not close cleanly")
	}
}

// parseQueues reads "critical=6,default=3,low=1".
func parseQueues(s string) (map[string]int, error) {
	queues := map[string]int{}
	for part := range strings.SplitSeq(s, ",") {
		name, weight, ok := strings.Cut(strings.TrimSpace(part), "=")
		n, err := strconv.Atoi(weight)
		if !ok || err != nil || n < 1 || name == "" {
			return nil, usage("--queues %q: write critical=6,default=3,low=1 with weights of at least 1", s)
		}
		queues[name] = n
	}
	return queues, nil
}

// healthCommand asks a listener, for container health checks: images without a shell have no curl.
type healthCommand struct {
	URL string `arg:"" default:"http://127.0.0.1:8080/readyz" help:"What to ask (default: ${default})."`
}

// Run exits 0 when the answer is a 200.
func (c *healthCommand) Run(ctx context.Context, _ IO) error {
	ctx, cancel := context.WithTimeout(ctx, 4*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, c.URL, nil)
	if err != nil {
		return usage("%w", err)
	}
	client := &http.Client{Transport: &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		reason := make([]byte, 512)
		n, _ := resp.Body.Read(reason)
		return fmt.Errorf("health: %s answered %s: %s", c.URL, resp.Status, strings.TrimSpace(string(reason[:n])))
	}
	return nil
}

// gcPercent is how far the heap of a worker grows between collections. Bodies stream, so only a few megabytes of it
// live; at Go's default of 100 they were collected many times a second, for a tenth of the CPU of a page.
const gcPercent = 400

// tuneGC sets gcPercent unless the user has set another.
func tuneGC() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
