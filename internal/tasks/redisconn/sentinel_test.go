package redisconn

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
)

func TestSentinelURLFindsTheMaster(t *testing.T) {
	server := redistest.Start(t, redistest.Password("p@ss"))
	host, port, err := net.SplitHostPort(server.Addr())
	if err != nil {
		t.Fatal(err)
	}
	config := filepath.Join(t.TempDir(), "sentinel.conf")
	text := fmt.Sprintf("sentinel monitor main %s %s 1\nsentinel auth-pass main p@ss\n", host, port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	sentinel := redistest.Start(t, redistest.Config(config), redistest.Arg("--sentinel"))
	client := open(t, "redis-sentinel://"+sentinel.Addr()+"?master=main&password=p%40ss", Options{})
	waitFor(t, 10*time.Second, "the master", func() bool { return Ping(t.Context(), client) == nil })
	if err := client.Set(t.Context(), "key", 1, 0).Err(); err != nil {
		t.Fatal(err)
	}
	if got := server.Client().Get(t.Context(), "key").Val(); got != "1" {
		t.Errorf("key at the master = %q, want 1", got)
	}
	unknown := open(t, "redis-sentinel://"+sentinel.Addr()+"?master=other", Options{})
	wantText(t, Ping(t.Context(), unknown), "no sentinel answers")
}
