package redisconn

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
)

// open makes a client through Open and closes it with the test.
func open(t *testing.T, url string, o Options) redis.UniversalClient {
	t.Helper()
	client, err := Open(url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

func TestPingNamesTheAddressWhereNobodyListens(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := listener.Addr().String()
	_ = listener.Close()
	got := Ping(t.Context(), open(t, "redis://"+addr, Options{}))
	if !errors.Is(got, ErrUnreachable) {
		t.Errorf("Ping = %v, want ErrUnreachable", got)
	}
	wantText(t, got, "no Redis at "+addr+": start one or give --redis URL")
}

func TestPingTellsASilentServer(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = listener.Close() })
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	wantText(t, Ping(ctx, open(t, "redis://"+listener.Addr().String(), Options{})), "does not answer in time")
}

func TestPingTellsPasswordsApart(t *testing.T) {
	server := redistest.Start(t, redistest.Password("hunter2"))
	t.Run("none given", func(t *testing.T) {
		err := Ping(t.Context(), open(t, "redis://"+server.Addr(), Options{}))
		if !errors.Is(err, ErrPassword) {
			t.Errorf("Ping = %v, want ErrPassword", err)
		}
		wantText(t, err, "wants a password")
	})
	t.Run("a wrong one given", func(t *testing.T) {
		err := Ping(t.Context(), open(t, "redis://:swordfish@"+server.Addr(), Options{}))
		if !errors.Is(err, ErrPassword) || strings.Contains(err.Error(), "swordfish") {
			t.Errorf("Ping = %v, want ErrPassword that does not show it", err)
		}
		wantText(t, err, "wrong user or password for Redis at "+server.Addr())
	})
	t.Run("the right one given", func(t *testing.T) {
		if err := Ping(t.Context(), open(t, server.URL(), Options{})); err != nil {
			t.Errorf("Ping = %v", err)
		}
	})
}

func TestExplainKnowsTheAnswersOfRedis(t *testing.T) {
	tests := map[string]struct {
		err  error
		kind error
		want string
	}{
		"loading":   {answer("LOADING Redis is loading the dataset in memory"), ErrUnreachable, "still loading"},
		"a replica": {answer("READONLY You can't write against a read only replica."), ErrUnreachable, "read-only replica"},
		"no memory": {answer("OOM command not allowed when used memory > 'maxmemory'."), ErrUnreachable, "out of memory"},
		"no rights": {answer("NOPERM this user has no permissions"), ErrPassword, "may not run"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got := Explain(test.err)
			if !errors.Is(got, test.kind) || !errors.Is(got, test.err) {
				t.Errorf("Explain(%v) = %v, want it to wrap %v and its cause", test.err, got, test.kind)
			}
			wantText(t, got, test.want)
			if again := Explain(got); again != got {
				t.Errorf("Explain twice = %v, want %v", again, got)
			}
		})
	}
	other := answer("WRONGTYPE Operation against a key")
	if got := Explain(other); got != other {
		t.Errorf("Explain(%v) = %v, want it unchanged", other, got)
	}
	if got := Explain(nil); got != nil {
		t.Errorf("Explain(nil) = %v", got)
	}
}

func TestCheckWarnsOfSettingsThatLoseWork(t *testing.T) {
	t.Run("a good server gives no warning", func(t *testing.T) {
		server := redistest.Start(t, redistest.AOF("everysec"))
		got, err := Check(t.Context(), open(t, server.URL(), Options{}))
		if err != nil || len(got) != 0 {
			t.Errorf("Check = %q, %v, want nothing", got, err)
		}
	})
	t.Run("eviction and no append-only file give one each", func(t *testing.T) {
		server := redistest.Start(t, redistest.Arg("--maxmemory-policy", "allkeys-lru"))
		got, err := Check(t.Context(), open(t, server.URL(), Options{}))
		if err != nil || len(got) != 2 {
			t.Fatalf("Check = %q, %v, want two warnings", got, err)
		}
		wantText(t, errors.New(got[0]), "noeviction (it is allkeys-lru)")
		wantText(t, errors.New(got[1]), "appendonly yes")
	})
}

func TestTooOld(t *testing.T) {
	for version, want := range map[string]bool{
		"5.0.14": true, "6.0.16": true, "6.2.0": false, "7.0.15": false, "10.0": false, "": false, "valkey": false,
	} {
		if got := tooOld(version); got != want {
			t.Errorf("tooOld(%q) = %v, want %v", version, got, want)
		}
	}
}

func TestClockTakesTheWayIntoAccount(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.Proxy(t, server.Addr())
	const way = 100 * time.Millisecond
	proxy.Delay(way)
	got, err := Clock(t.Context(), open(t, "redis://"+proxy.Addr(), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	// Both run on this machine's clock: the true offset is 0, and half of the trip would be seen if it were not
	// taken off.
	if got.Abs() > way/2 {
		t.Errorf("Clock = %s over a line of %s each way, want about 0", got, way)
	}
}

func wantText(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want it to say %q", err, want)
	}
}

// answer is an error that Redis answered with, as go-redis makes them.
type answer string

func (a answer) Error() string { return string(a) }

func (a answer) RedisError() {}
