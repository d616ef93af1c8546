package admin

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/hibiken/asynq"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// serve runs a handler on a free port as the worker does and returns its base URL.
func serve(t *testing.T, o Options) string {
	t.Helper()
	listener, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	handler := New(o)
	ended := make(chan error, 1)
	go func() { ended <- ServeOn(ctx, listener, handler) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ServeOn = %v", err)
		}
		handler.Close()
	})
	return "http://" + listener.Addr().String()
}

// queue starts a Redis with one pending task on queue "default".
func queue(t *testing.T) (*miniredis.Miniredis, redis.UniversalClient) {
	t.Helper()
	server := miniredis.RunT(t)
	client := redis.NewClient(&redis.Options{Addr: server.Addr(), DialerRetries: 1, MaxRetries: -1})
	t.Cleanup(func() { _ = client.Close() })
	task := asynq.NewTask("batch", []byte(`{"host":"example.com"}`))
	if _, err := asynq.NewClientFromRedisClient(client).Enqueue(task); err != nil {
		t.Fatal(err)
	}
	return server, client
}

type response struct {
	status int
	body   string
	header http.Header
}

func ask(t *testing.T, method, url string, change func(*http.Request)) response {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), method, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(request)
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = answer.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(answer.Body, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	return response{answer.StatusCode, string(body), answer.Header}
}

func TestReadyzFollowsReadyAndLivezDoesNot(t *testing.T) {
	var ready atomic.Bool
	base := serve(t, Options{Ready: func() (bool, string) { return ready.Load(), "no contact with Redis for 12 s" }})
	if got := ask(t, "GET", base+"/livez", nil); got.status != 200 {
		t.Errorf("/livez while not ready = %d, want 200", got.status)
	}
	got := ask(t, "GET", base+"/readyz", nil)
	if got.status != 503 || got.body != "not ready: no contact with Redis for 12 s\n" {
		t.Errorf("/readyz while not ready = %d %q, want 503 and the reason", got.status, got.body)
	}
	if page := ask(t, "GET", base+"/", nil); !strings.Contains(page.body, "Not ready: no contact") {
		t.Errorf("index = %q, want the reason", page.body)
	}
	ready.Store(true)
	if got := ask(t, "GET", base+"/readyz", nil); got.status != 200 || got.body != "ok\n" {
		t.Errorf("/readyz while ready = %d %q, want 200 ok", got.status, got.body)
	}
}

func TestWithoutRegistryAndRedisTheirPagesAreMissing(t *testing.T) {
	base := serve(t, Options{})
	for _, path := range []string{"/metrics", "/monitor", "/monitor/", "/other"} {
		if got := ask(t, "GET", base+path, nil); got.status != 404 {
			t.Errorf("%s = %d, want 404", path, got.status)
		}
	}
}

func TestMonitorShowsQueuesAndItsPages(t *testing.T) {
	_, client := queue(t)
	base := serve(t, Options{Redis: client})
	if got := ask(t, "GET", base+"/monitor/api/queues", nil); got.status != 200 || !strings.Contains(got.body, `"default"`) {
		t.Errorf("queues = %d %.200q, want the default queue", got.status, got.body)
	}
	for _, path := range []string{"/monitor", "/monitor/", "/monitor/queues/default"} {
		got := ask(t, "GET", base+path, nil)
		if got.status != 200 || !strings.Contains(got.body, `/monitor/static/js`) {
			t.Errorf("%s = %d %.200q, want the page rooted at /monitor", path, got.status, got.body)
		}
		if got.header.Get("X-Frame-Options") != "DENY" {
			t.Errorf("%s may be framed", path)
		}
	}
}

func TestMonitorChangesQueuesOnlyWhenAsked(t *testing.T) {
	const pause = "/monitor/api/queues/default:pause"
	crossSite := func(r *http.Request) { r.Header.Set("Sec-Fetch-Site", "cross-site") }
	tests := map[string]struct {
		write  bool
		change func(*http.Request)
		want   int
	}{
		"read-only refuses a POST":                     {false, nil, 405},
		"with write a POST pauses":                     {true, nil, 204},
		"with write a page of another site is refused": {true, crossSite, 403},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, client := queue(t)
			base := serve(t, Options{Redis: client, MonitorWrite: test.write})
			if got := ask(t, "POST", base+pause, test.change); got.status != test.want {
				t.Errorf("POST %s = %d %q, want %d", pause, got.status, got.body, test.want)
			}
			paused := client.Exists(t.Context(), "asynq:{default}:paused").Val() == 1
			if want := test.want == 204; paused != want {
				t.Errorf("paused = %v, want %v", paused, want)
			}
		})
	}
}

func TestLoopbackAnswersOnlyToLoopbackNames(t *testing.T) {
	_, client := queue(t)
	base := serve(t, Options{Redis: client})
	for host, want := range map[string]int{
		"localhost:8080": 200, "LOCALHOST": 200, "worker.localhost:1": 200, "127.0.0.1:9": 200, "[::1]:9": 200,
		"[::ffff:127.0.0.1]:9": 200,
		"evil.example":         403, "evil.example:8080": 403, "localhost.evil.example": 403, "10.0.0.1": 403,
		"127.0.0.1.evil.example": 403,
	} {
		asHost := func(r *http.Request) { r.Host = host }
		for _, path := range []string{"/", "/monitor/", "/monitor/api/queues"} {
			if got := ask(t, "GET", base+path, asHost); got.status != want {
				t.Errorf("%s as Host %q = %d, want %d", path, host, got.status, want)
			}
		}
		if got := ask(t, "GET", base+"/livez", asHost); got.status != 200 {
			t.Errorf("/livez as Host %q = %d, want 200", host, got.status)
		}
	}
}

func TestMetricsTellQueueDepthsAlsoWhenRedisIsAway(t *testing.T) {
	server, client := queue(t)
	base := serve(t, Options{Redis: client, Registry: prometheus.NewRegistry()})
	const want = `fetchfleet_queue_tasks{queue="default",state="pending"} 1`
	if got := ask(t, "GET", base+"/metrics", nil); !strings.Contains(got.body, want) {
		t.Errorf("/metrics = %d %q, want %s", got.status, got.body, want)
	}
	server.Close()
	if got := ask(t, "GET", base+"/metrics", nil); got.status != 200 || !strings.Contains(got.body, want) {
		t.Errorf("/metrics without Redis = %d %q, want the last figures", got.status, got.body)
	}
}

func TestQueuesAreReadAgainOnlyAfterAWhile(t *testing.T) {
	server, client := queue(t)
	c := newQueueCollector(client)
	t.Cleanup(c.close)
	<-c.refresh()
	before := server.CommandCount()
	if busy := c.refresh(); busy != nil {
		t.Error("fresh figures are read again")
	}
	if got := server.CommandCount(); got != before {
		t.Errorf("a fresh collector sent %d commands", got-before)
	}
	c.read = time.Now().Add(-queuesFresh)
	server.SetError("ERR in trouble")
	<-c.refresh()
	if c.infos["default"] == nil || c.infos["default"].Pending != 1 {
		t.Errorf("after a failed read the figures are %v, want the last ones", c.infos)
	}
}

func TestListenSaysWhatToDo(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	addr := taken.Addr().String()
	err = Serve(t.Context(), addr, http.NotFoundHandler())
	want := "--listen " + addr + ": address already in use: choose another with --listen, or port 0"
	if err == nil || err.Error() != want {
		t.Errorf("Serve on a taken port = %v, want %s", err, want)
	}
	if _, err := Listen("8080"); err == nil || !strings.Contains(err.Error(), "want HOST:PORT") {
		t.Errorf("Listen(8080) = %v, want it to say HOST:PORT", err)
	}
}

func TestAnOpenAddressWithWriteIsWarnedOf(t *testing.T) {
	_, client := queue(t)
	for name, test := range map[string]struct {
		ip    net.IP
		write bool
		want  bool
	}{
		"open and writable":      {net.IPv4zero, true, true},
		"open and read-only":     {net.IPv4zero, false, false},
		"loopback and writable":  {net.IPv4(127, 0, 0, 1), true, false},
		"loopback and read-only": {net.IPv6loopback, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			var log bytes.Buffer
			New(Options{Redis: client, MonitorWrite: test.write, Logger: zerolog.New(&log)}).
				listening(&net.TCPAddr{IP: test.ip, Port: 8080})
			if got := strings.Contains(log.String(), `"warn"`); got != test.want {
				t.Errorf("warned: %v, want %v: %s", got, test.want, log.String())
			}
		})
	}
}

func TestServeLetsAnAnswerEnd(t *testing.T) {
	listener, err := Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	began, finish := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(began)
		<-finish
		_, _ = io.WriteString(w, "whole")
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- ServeOn(ctx, listener, handler) }()
	got := make(chan response, 1)
	go func() { got <- ask(t, "GET", "http://"+listener.Addr().String(), nil) }()
	<-began
	cancel()
	close(finish)
	if answer := <-got; answer.body != "whole" {
		t.Errorf("answer under way = %q, want whole", answer.body)
	}
	if err := <-ended; err != nil {
		t.Errorf("ServeOn = %v", err)
	}
	http.DefaultClient.CloseIdleConnections()
}
