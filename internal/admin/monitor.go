package admin

import (
	"net/http"

	"github.com/hibiken/asynqmon"
	"github.com/redis/go-redis/v9"
)

// monitorPath is where the monitor is rooted.
const monitorPath = "/monitor"

// shared hands a client that belongs to somebody else to asynqmon, which wants to make its own.
type shared struct{ redis.UniversalClient }

// MakeRedisClient implements asynq.RedisConnOpt.
func (s shared) MakeRedisClient() any { return s.UniversalClient }

// newMonitor returns asynq's monitor. asynqmon has neither users nor a guard against forged requests: a bare POST
// pauses a queue. So without write everything but reading is refused before it gets there, and with write whatever a
// browser says comes from another site.
// Its own Close is never called, because it would close the client.
func newMonitor(client redis.UniversalClient, write bool) http.Handler {
	monitor := asynqmon.New(asynqmon.Options{
		RootPath: monitorPath, RedisConnOpt: shared{client}, ReadOnly: !write,
	})
	if write {
		return headers(http.NewCrossOriginProtection().Handler(monitor))
	}
	return headers(readOnly(monitor))
}

// readOnly refuses whatever is not a GET or HEAD.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the monitor is read-only: start with --monitor-write to change queues and tasks",
				http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// headers keeps the monitor out of other sites' frames.
func headers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Frame-Options", "DENY")
		w.Header().Set("Content-Security-Policy", "frame-ancestors 'none'")
		w.Header().Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}
