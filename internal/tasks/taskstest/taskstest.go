// Package taskstest gives tests of the queue the clients that programs have, on a real Redis and on the embedded one,
// for tests only. What it opens is closed when the test ends.
package taskstest

import (
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks/embedded"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

// Dial returns a client of the Redis at url, made as programs make theirs.
func Dial(t testing.TB, url string) redis.UniversalClient {
	t.Helper()
	rdb, err := redisconn.Open(url, redisconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// Embedded starts an embedded Redis and returns a client of it.
func Embedded(t testing.TB) redis.UniversalClient {
	t.Helper()
	server, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(server.Close)
	return Dial(t, server.URL())
}

// OnBoth runs a test on a real Redis and on the embedded one: what holds on the one has to hold on the other.
func OnBoth(t *testing.T, test func(*testing.T, redis.UniversalClient)) {
	t.Helper()
	t.Run("redis", func(t *testing.T) { test(t, Dial(t, redistest.Start(t).URL())) })
	t.Run("embedded", func(t *testing.T) { test(t, Embedded(t)) })
}
