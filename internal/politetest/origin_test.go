package politetest

import (
	"context"
	"errors"
	"io"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newOrigin(t *testing.T, hosts int) *Origin {
	t.Helper()
	o, err := New(Options{Hosts: hosts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.Close)
	return o
}

// get fetches a page on a connection of its own, which is closed afterwards.
func get(ctx context.Context, url string) (status int, header http.Header, body string, err error) {
	transport := &http.Transport{}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, nil, "", err
	}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return 0, nil, "", err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return resp.StatusCode, resp.Header, string(data), err
}

func TestHostsAnswerAsScripted(t *testing.T) {
	o := newOrigin(t, 3)
	o.Answer(1, func(n int) Answer {
		if n == 1 {
			return Answer{Status: 429, RetryAfter: "20"}
		}
		return Answer{}
	})
	o.Robots(2, Answer{Status: 503})
	for i, c := range []struct {
		host   int
		path   string
		status int
	}{
		{0, "/p/1", 200}, {1, "/p/1", 200}, {1, "/robots.txt", 404}, {1, "/p/2", 429}, {1, "/p/2", 200},
		{2, "/robots.txt", 503}, {2, "/p/1", 200},
	} {
		status, header, body, err := get(t.Context(), o.URL(c.host, c.path))
		if err != nil || status != c.status || (header.Get("Retry-After") == "20") != (status == 429) {
			t.Errorf("%s: status %d, Retry-After %q, %v; want %d", o.URL(c.host, c.path), status, header.Get("Retry-After"), err, c.status)
		}
		if robots := c.path == "/robots.txt"; robots != (body == "") {
			t.Errorf("%s: body %q", o.URL(c.host, c.path), body)
		}
		if log := o.Log(); len(log) != i+1 || log[i].Host != o.Host(c.host) || log[i].Path != c.path || log[i].Status != c.status || log[i].End < log[i].Start {
			t.Errorf("log %+v", log)
		}
	}
	o.Robots(2, Answer{Body: "User-agent: *\nDisallow: /private\n"})
	if status, _, body, err := get(t.Context(), o.URL(2, "/robots.txt")); status != 200 || body != "User-agent: *\nDisallow: /private\n" {
		t.Errorf("robots.txt after its change: %d, %q, %v", status, body, err)
	}
	if o.Pages(0) != 1 || o.Pages(1) != 3 || o.Pages(2) != 1 || o.Hosts() != 3 {
		t.Errorf("pages %d, %d, %d; want 1, 3, 1", o.Pages(0), o.Pages(1), o.Pages(2))
	}
}

func TestADelayIsInService(t *testing.T) {
	o := newOrigin(t, 1)
	o.Answer(0, func(int) Answer { return Answer{Delay: 200 * time.Millisecond} })
	failed := make(chan error)
	for range 3 {
		go func() { _, _, _, err := get(t.Context(), o.URL(0, "/")); failed <- err }()
	}
	for range 3 {
		if err := <-failed; err != nil {
			t.Error(err)
		}
	}
	log := o.Log()
	for _, r := range log {
		if took := r.End - r.Start; took < 200*time.Millisecond {
			t.Errorf("%+v took %s, want 200ms", r, took)
		}
	}
	if most, _ := log.InService(); most != 3 {
		t.Errorf("%d in service, want 3", most)
	}
	if m := log.Makespan(); m < 200*time.Millisecond {
		t.Errorf("makespan %s", m)
	}
}

func TestAVisitorThatGoesAwayIsNoLongerInService(t *testing.T) {
	o := newOrigin(t, 1)
	o.Answer(0, func(int) Answer { return Answer{Delay: time.Hour} })
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() { _, _, _, err := get(ctx, o.URL(0, "/")); failed <- err }()
	eventually(t, "the request is there", func() bool { return len(o.Log()) == 1 })
	if log := o.Log(); log[0].Status != 0 || log[0].End != 0 || o.Connections(0) != 1 {
		t.Errorf("in service: %+v, %d connections", log[0], o.Connections(0))
	}
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	eventually(t, "it is noted as broken", func() bool { return o.Log().Broken() == 1 })
	eventually(t, "its connection is closed", func() bool { return o.Connections(0) == 0 })
}

func TestCloseBreaksOffWhatWaits(t *testing.T) {
	o := newOrigin(t, 2)
	o.Answer(1, func(int) Answer { return Answer{Delay: time.Hour} })
	failed := make(chan error)
	go func() { _, _, _, err := get(t.Context(), o.URL(1, "/")); failed <- err }()
	eventually(t, "the request is there", func() bool { return len(o.Log()) == 1 })
	o.Close()
	if err := <-failed; err == nil {
		t.Error("an answer came from an origin that was closed")
	}
}

func TestListHasAllURLs(t *testing.T) {
	o := newOrigin(t, 3)
	urls := o.List([]int{2, 1})
	seen := map[string]bool{}
	for _, u := range urls {
		seen[u] = true
	}
	if len(urls) != 3 || !seen[o.URL(0, "/p/0")] || !seen[o.URL(0, "/p/1")] || !seen[o.URL(1, "/p/0")] {
		t.Errorf("list %q", urls)
	}
}

func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !done(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}
