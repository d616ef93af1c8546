package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

func TestCommandsWaitForARedisThatIsLoading(t *testing.T) {
	server := redistest.Start(t, redistest.Arg("--save", "3600 1", "--key-load-delay", "5000", "--loading-process-events-interval-bytes", "1024"))
	seed := server.Client()
	for i := range 1000 { // loading them takes 5 s: longer than the client repeats a command by itself
		if err := seed.Set(t.Context(), strings.Repeat("k", i+1), "v", 0).Err(); err != nil {
			t.Fatal(err)
		}
	}
	if err := seed.Save(t.Context()).Err(); err != nil {
		t.Fatal(err)
	}
	restarted := make(chan struct{})
	go func() {
		server.Restart()
		close(restarted)
	}()
	probe := redis.NewClient(&redis.Options{Addr: server.Addr(), MaxRetries: -1})
	defer probe.Close()
	for end := time.Now().Add(20 * time.Second); !redis.IsLoadingError(probe.Ping(t.Context()).Err()); {
		if time.Now().After(end) {
			t.Fatal("Redis was never seen loading")
		}
	}
	var told []string
	client, err := openRedis(t.Context(), server.URL(), redisconn.Options{}, func(s string) { told = append(told, s) })
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	<-restarted
	if n := client.DBSize(t.Context()).Val(); n != 1000 {
		t.Errorf("%d keys, want 1000", n)
	}
	if len(told) == 0 || !strings.Contains(told[0], "is loading its data: waiting for it") {
		t.Errorf("told %q, want that it waits", told)
	}
}
