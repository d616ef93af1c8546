// Package redisconn is the one place where Redis clients are made, so that every part of the system speaks to Redis
// with the same limits, names its errors alike, and is guarded against the same faults of the queue underneath.
//
// It promises that no error or log line of its own shows a password, that every wait of a client has a limit, and
// that a Redis which went away is neither hammered nor answered with lost work (see guard.go). It does not connect:
// a client that was opened has not spoken to anybody yet; Ping and Check do.
package redisconn

import (
	"crypto/tls"
	"net"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Limits of every client.
const (
	dialTimeout  = 5 * time.Second
	replyTimeout = 4 * time.Second // to read or write one command; asynq's shortest patience is its 30 s lease
)

// Options are what callers choose about a client. The zero value is good.
type Options struct {
	// PoolSize is how many connections are kept for commands; a burst may use more. 0 = 10 per CPU.
	PoolSize int
	// Name is shown by CLIENT LIST. Empty = "fetchfleet". Spaces are not allowed by Redis.
	Name string
	// Closing ends the waits of the dequeue guard early: close it when the worker is told to stop. nil = never.
	Closing <-chan struct{}
}

// Open makes a client for a redis://, rediss:// or redis-sentinel:// URL:
//
//	redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]
//	rediss://…                                                            the same over TLS
//	redis-sentinel://[:SENTINEL_PASSWORD@]HOST[:PORT][,HOST[:PORT]…]?master=NAME[&db=N][&username=U][&password=P]
//
// As with asynq.ParseRedisURI the password before the host of a sentinel URL is the sentinels' own; that of the Redis
// servers is a parameter. Errors say what is wrong with the URL and never show a password.
// The caller closes the client, after everything that was built on it.
func Open(rawURL string, o Options) (redis.UniversalClient, error) {
	target, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	if o.Name == "" {
		o.Name = "fetchfleet"
	}
	client := target.client(o)
	client.AddHook(newGuard(o.Closing))
	return client, nil
}

func (t target) client(o Options) *redis.Client {
	if t.scheme == schemeSentinel {
		return redis.NewFailoverClient(&redis.FailoverOptions{
			MasterName: t.master, SentinelAddrs: t.addrs,
			SentinelUsername: t.sentinelUser, SentinelPassword: t.sentinelPassword,
			Username: t.user, Password: t.password, DB: t.db,
			ClientName: o.Name, PoolSize: o.PoolSize,
			DialTimeout: dialTimeout, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout,
			ContextTimeoutEnabled: true, DialerRetries: 1, DisableIdentity: true,
		})
	}
	options := &redis.Options{
		Addr: t.addrs[0], Username: t.user, Password: t.password, DB: t.db,
		ClientName: o.Name, PoolSize: o.PoolSize,
		DialTimeout: dialTimeout, ReadTimeout: replyTimeout, WriteTimeout: replyTimeout,
		ContextTimeoutEnabled: true,
		DialerRetries:         1, // a command is retried as a whole; both together would dial twenty times
		DisableIdentity:       true,
		MaintNotificationsConfig: &maintnotifications.Config{
			Mode: maintnotifications.ModeDisabled, // a vendor's notices, one more round trip per connection
		},
	}
	if t.scheme == schemeTLS {
		host, _, _ := net.SplitHostPort(t.addrs[0])
		options.TLSConfig = &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	}
	return redis.NewClient(options)
}

// Address names where a client connects, without secrets: "HOST:PORT", or the name that a sentinel client goes by.
func Address(client redis.UniversalClient) string {
	if c, ok := client.(interface{ Options() *redis.Options }); ok {
		return c.Options().Addr
	}
	return "Redis"
}
