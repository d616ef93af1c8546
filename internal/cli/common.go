package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/progress"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

// RedisFlags say where Redis is.
type RedisFlags struct {
	Redis string `env:"FLEET_REDIS" default:"redis://127.0.0.1:6379/0" placeholder:"URL" help:"Redis: redis://, rediss:// or redis-sentinel:// (default: ${default})."`
}

// open connects to Redis and checks that it will do.
func (f *RedisFlags) open(ctx context.Context, o redisconn.Options, warn func(string)) (redis.UniversalClient, error) {
	return openRedis(ctx, f.Redis, o, warn)
}

func openRedis(ctx context.Context, url string, o redisconn.Options, warn func(string)) (redis.UniversalClient, error) {
	redisconn.LogTo(zerolog.Nop())
	client, err := redisconn.Open(url, o)
	if err != nil {
		return nil, usage("--redis: %w", err)
	}
	if err := awaitLoaded(ctx, client, warn); err != nil {
		return nil, fmt.Errorf("%w", closing(client, err))
	}
	warnings, err := redisconn.Check(ctx, client)
	if err != nil {
		return nil, fmt.Errorf("%w", closing(client, err))
	}
	for _, w := range warnings {
		warn(w)
	}
	return client, nil
}

// awaitLoaded waits while Redis reads its data from disk: it has just been started, and answers soon.
func awaitLoaded(ctx context.Context, client redis.UniversalClient, warn func(string)) error {
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	for told := false; ; told = true {
		err := redisconn.Ping(ctx, client)
		if err == nil || !redis.IsLoadingError(err) {
			return err
		}
		if !told {
			warn(fmt.Sprintf("Redis at %s is loading its data: waiting for it", redisconn.Address(client)))
		}
		select {
		case <-look.C:
		case <-ctx.Done():
			return err
		}
	}
}

// closing closes c on the way out with an error; the first error is the one that matters.
func closing(c io.Closer, err error) error {
	_ = c.Close()
	return err
}

// LogFlags say how to log.
type LogFlags struct {
	LogLevel  string `env:"FLEET_LOG_LEVEL" default:"info" enum:"debug,info,warn,error" help:"debug, info, warn or error (default: ${default})."`
	LogFormat string `env:"FLEET_LOG_FORMAT" default:"json" enum:"json,console" help:"json or console (default: ${default})."`
}

func (f *LogFlags) logger(w io.Writer) zerolog.Logger { return f.cleanLogger(w, nil) }

// cleanLogger logs without the values of secrets that were resolved; s may be nil.
func (f *LogFlags) cleanLogger(w io.Writer, s *secrets.Source) zerolog.Logger {
	level, _ := zerolog.ParseLevel(f.LogLevel) // one of the enum
	if f.LogFormat == "console" {
		w = zerolog.ConsoleWriter{Out: w, TimeFormat: time.TimeOnly, NoColor: !isTerminal(w)}
	}
	return zerolog.New(s.Writer(w)).Level(level).With().Timestamp().Logger()
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && progress.IsTerminal(f)
}

// snapshot turns the ledger's figures into what a display shows.
func snapshot(s ledger.Status) progress.Snapshot {
	p := progress.Snapshot{
		State: s.State, Accepted: s.Accepted, Open: s.Open, Bytes: s.Bytes, Classes: s.Classes,
		Outcomes: map[string]int64{"ok": s.OK, "http_error": s.HTTPErr, "failed": s.Failed, "skipped": s.Skipped},
		Large:    len(s.Large),
	}
	for _, body := range s.Large {
		p.LargeHave += body.Have
		p.LargeSize += body.Length
	}
	return p
}

// awaitEnd waits until the job has ended. Redis may be away meanwhile, but not come back without the job.
func awaitEnd(ctx context.Context, l *ledger.Ledger, job tasks.JobID) (ledger.Status, error) {
	for {
		s, err := l.Status(ctx, job)
		if err == nil && s.State == progress.Ended {
			return s, nil
		}
		if errors.Is(err, ledger.ErrUnknownJob) {
			return s, fmt.Errorf("%w any more: Redis came back empty; run it with appendonly yes, and enqueue the list again", err)
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
	}
}
