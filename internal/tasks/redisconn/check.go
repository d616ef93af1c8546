package redisconn

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// oldest is the lowest Redis version that asynq runs on.
var oldest = [2]int{6, 2}

// Ping asks Redis for a sign of life. Its error is explained (see Explain) and names the server.
func Ping(ctx context.Context, client redis.UniversalClient) error {
	return explain(client.Ping(ctx).Err(), Address(client))
}

// Check looks whether Redis is fit for use: reachable, let in, new enough. What is dangerous but works (an eviction
// policy that may drop work, no append-only file) comes back as warnings, one sentence each. A server that does not
// tell its version or settings passes.
func Check(ctx context.Context, client redis.UniversalClient) (warnings []string, err error) {
	if err := Ping(ctx, client); err != nil {
		return nil, err
	}
	at := Address(client)
	info := map[string]string{}
	for _, section := range []string{"server", "memory", "persistence"} {
		text, err := client.Info(ctx, section).Result()
		if unreachable(err) {
			return nil, explain(err, at)
		}
		readInfo(info, text)
	}
	if version := info["redis_version"]; tooOld(version) {
		return nil, fault(ErrVersion, ErrVersion, "Redis at %s is version %s: %d.%d or newer is needed",
			at, version, oldest[0], oldest[1])
	}
	return warn(info, at), nil
}

func warn(info map[string]string, at string) (warnings []string) {
	if policy := info["maxmemory_policy"]; policy != "" && policy != "noeviction" {
		warnings = append(warnings, fmt.Sprintf(
			"Redis at %s may drop work when memory runs short: set maxmemory-policy noeviction (it is %s)", at, policy))
	}
	if info["aof_enabled"] == "0" {
		warnings = append(warnings, fmt.Sprintf(
			"Redis at %s keeps no append-only file, a restart may lose work: set appendonly yes", at))
	}
	return warnings
}

func readInfo(into map[string]string, text string) {
	for line := range strings.Lines(text) {
		if name, value, found := strings.Cut(strings.TrimSpace(line), ":"); found {
			into[name] = value
		}
	}
}

// tooOld reports whether a version is known to be older than oldest.
func tooOld(version string) bool {
	major, rest, _ := strings.Cut(version, ".")
	minor, _, _ := strings.Cut(rest, ".")
	x, err := strconv.Atoi(major)
	if err != nil {
		return false
	}
	y, err := strconv.Atoi(minor)
	if err != nil {
		return false
	}
	return x < oldest[0] || x == oldest[0] && y < oldest[1]
}

// Clock measures how far the local clock is ahead of Redis TIME; negative when it is behind. It takes the quickest of
// three exchanges and assumes that the way there took as long as the way back, so it is wrong by at most half of that
// round trip.
func Clock(ctx context.Context, client redis.UniversalClient) (offset time.Duration, err error) {
	var best time.Duration
	for i := range 3 {
		sent := time.Now()
		server, err := client.Time(ctx).Result()
		if err != nil {
			return 0, fmt.Errorf("read the time of Redis: %w", explain(err, Address(client)))
		}
		trip := time.Since(sent)
		if i == 0 || trip < best {
			best, offset = trip, sent.Add(trip/2).Sub(server)
		}
	}
	return offset, nil
}

// LogTo sends what go-redis logs of its own (failed dials, sentinel changes) to a logger at debug level, for the whole
// process. Without it those lines go to standard error, through any progress display. Call it once, from main.
func LogTo(log zerolog.Logger) { redis.SetLogger(libraryLog{log}) }

type libraryLog struct{ log zerolog.Logger }

// Printf implements the logger of go-redis.
func (l libraryLog) Printf(_ context.Context, format string, args ...any) {
	l.log.Debug().Str("detail", fmt.Sprintf(format, args...)).Msg("redis client")
}
