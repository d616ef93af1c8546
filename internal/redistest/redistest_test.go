package redistest

import (
	"net"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestDataSurvivesARestartOnlyWithAppendOnlyFile(t *testing.T) {
	tests := map[string]struct {
		options []Option
		end     func(*Server)
		want    string
	}{
		"stopped, with file": {[]Option{AOF("everysec")}, (*Server).Stop, "kept"},
		"killed, with file":  {[]Option{AOF("always"), Password("sesame")}, (*Server).Kill, "kept"},
		"killed, without":    {nil, (*Server).Kill, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			server := Start(t, test.options...)
			addr, pid := server.Addr(), server.PID()
			if err := server.Client().Set(t.Context(), "key", "kept", 0).Err(); err != nil {
				t.Fatal(err)
			}
			test.end(server)
			if conn, err := net.Dial("tcp", addr); err == nil {
				_ = conn.Close()
				t.Error("the port answers after the server ended")
			}
			server.Restart()
			if server.Addr() != addr || server.PID() == pid {
				t.Errorf("restarted as %s, process %d; want %s and another than %d", server.Addr(), server.PID(), addr, pid)
			}
			options, err := redis.ParseURL(server.URL())
			if err != nil {
				t.Fatal(err)
			}
			client := redis.NewClient(options)
			defer func() { _ = client.Close() }()
			if got := client.Get(t.Context(), "key").Val(); got != test.want {
				t.Errorf("key after the restart = %q, want %q", got, test.want)
			}
		})
	}
}

func TestMaxMemoryRefusesWrites(t *testing.T) {
	server := Start(t, MaxMemory("2mb"))
	err := server.Client().Set(t.Context(), "key", make([]byte, 4<<20), 0).Err()
	for i := 0; err == nil && i < 2; i++ { // the limit is looked at before a write, not after
		err = server.Client().Set(t.Context(), "other", "x", 0).Err()
	}
	if !redis.IsOOMError(err) {
		t.Errorf("a write over the limit = %v, want OOM", err)
	}
}

func TestProxyCutsHealsAndDelays(t *testing.T) {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := echo.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 4)
			for n, err := conn.Read(buffer); err == nil; n, err = conn.Read(buffer) {
				_, _ = conn.Write(buffer[:n])
			}
			_ = conn.Close()
		}
	}()
	proxy := Proxy(t, echo.Addr().String())
	t.Cleanup(func() { // before the proxy's own end
		proxy.Cut()
		_ = echo.Close()
		<-ended
	})
	say := func(conn net.Conn) error {
		_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := conn.Write([]byte("ping")); err != nil {
			return err
		}
		_, err := conn.Read(make([]byte, 4))
		return err
	}
	dial := func() net.Conn {
		conn, err := net.Dial("tcp", proxy.Addr())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		return conn
	}
	first := dial()
	if err := say(first); err != nil {
		t.Fatalf("through a whole proxy: %v", err)
	}
	proxy.Cut()
	if err := say(first); err == nil {
		t.Error("a cut connection still answers")
	}
	if conn, err := net.Dial("tcp", proxy.Addr()); err == nil { // it may be reset this early
		if say(conn) == nil {
			t.Error("a new connection answers while cut")
		}
		_ = conn.Close()
	}
	proxy.Heal()
	proxy.Delay(50 * time.Millisecond)
	began := time.Now()
	if err := say(dial()); err != nil {
		t.Errorf("after healing: %v", err)
	}
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("an exchange took %s, want at least twice the delay of 50 ms", took)
	}
	if got := proxy.Dials(); got != 3 {
		t.Errorf("Dials = %d, want 3", got)
	}
}
