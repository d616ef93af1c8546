package discover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/fetch/balance"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// consul answers /v1/health/service/NAME as Consul does: at once to index 0 or one that is old, else when something changes.
type consul struct {
	*httptest.Server
	t *testing.T

	mu        sync.Mutex
	index     uint64
	changed   chan struct{} // closed at the next change
	instances []string
	broken    bool
	asked     chan string // the index of each question
}

func newConsul(t *testing.T) *consul {
	t.Helper()
	c := &consul{t: t, index: 10, changed: make(chan struct{}), asked: make(chan string, 1000)}
	c.Server = httptest.NewServer(c)
	t.Cleanup(c.Close)
	return c
}

// set makes a change, with its index.
func (c *consul) set(index uint64, broken bool, instances ...string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.index, c.broken, c.instances = index, broken, instances
	close(c.changed)
	c.changed = make(chan struct{})
}

func (c *consul) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path != "/v1/health/service/web" || r.URL.Query().Get("passing") == "" || r.Header.Get("X-Consul-Token") != "t" {
		http.Error(w, "unexpected", http.StatusForbidden)
		return
	}
	index, _ := strconv.ParseUint(r.URL.Query().Get("index"), 10, 64)
	wait, err := time.ParseDuration(r.URL.Query().Get("wait"))
	if err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	changed, current := c.changed, c.index
	c.mu.Unlock()
	c.asked <- r.URL.Query().Get("index")
	if index != 0 && index == current {
		select {
		case <-changed:
		case <-time.After(wait):
		case <-r.Context().Done():
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.broken {
		http.Error(w, "No cluster leader", http.StatusInternalServerError)
		return
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(c.index, 10))
	list := []map[string]any{}
	for _, i := range c.instances {
		host, port, _ := net.SplitHostPort(i)
		n, _ := strconv.Atoi(port)
		list = append(list, map[string]any{"Node": map[string]any{"Address": "192.0.2.99"}, "Service": map[string]any{"Address": host, "Port": n}})
	}
	json.NewEncoder(w).Encode(list)
}

func (c *consul) directory(t *testing.T) *Directory {
	t.Helper()
	rule, err := ParseDiscover("web.test=consul:" + c.URL + "/web")
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{}}
	d := New(Options{Rules: []Rule{rule}, Client: client, Token: "t"})
	t.Cleanup(func() {
		d.Close()
		client.CloseIdleConnections()
	})
	return d
}

func servers(set *balance.Set) (out []string) {
	for _, m := range set.Order() {
		out = append(out, fmt.Sprintf("%s:%d", m.Host, m.Port))
	}
	slices.Sort(out)
	return out
}

func (c *consul) wantAsked(index string) {
	c.t.Helper()
	select {
	case got := <-c.asked:
		if got != index {
			c.t.Fatalf("asked with index %s, want %s", got, index)
		}
	case <-time.After(10 * time.Second):
		c.t.Fatalf("not asked with index %s", index)
	}
}

func TestConsulsInstancesAreFollowed(t *testing.T) {
	c := newConsul(t)
	c.set(10, false, "127.0.0.1:1", ":2")
	d := c.directory(t)
	find := func(want ...string) {
		t.Helper()
		set, err := d.Find(t.Context(), "WEB.test", 443)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, servers(set)); diff != "" {
			t.Errorf("-want +got:\n%s", diff)
		}
	}
	find("127.0.0.1:1", "192.0.2.99:2")
	c.wantAsked("0")
	c.wantAsked("10") // and held back
	c.set(11, false, "127.0.0.1:3")
	c.wantAsked("11")
	find("127.0.0.1:3")
	c.set(12, false)
	c.wantAsked("12")
	if _, err := d.Find(t.Context(), "web.test", 443); !errors.Is(err, ErrNone) {
		t.Errorf("without instances: %v", err)
	}
	c.set(4, false, "127.0.0.1:5") // Consul was set up anew
	c.wantAsked("0")
	c.wantAsked("4")
	find("127.0.0.1:5")
	c.set(5, true, "127.0.0.1:6") // an error answers nothing
	c.wantAsked("4")
	find("127.0.0.1:5")
}

func TestWithoutAnAnswerOfConsulThereIsAnError(t *testing.T) {
	c := newConsul(t)
	c.set(10, true)
	d := c.directory(t)
	if _, err := d.Find(t.Context(), "web.test", 443); err == nil {
		t.Error("no error")
	}
	d.Close()
	c.set(11, false, "127.0.0.1:1")
	if set, err := d.Find(t.Context(), "web.test", 443); err != nil || len(set.Order()) != 1 {
		t.Errorf("after Close: %v", err)
	}
}

func TestARuleIsAboutItsHostAndPort(t *testing.T) {
	var rules []Rule
	for _, text := range []string{"a.test=192.0.2.1", "a.test:8443=192.0.2.2"} {
		rule, err := ParseResolve(text)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, rule)
	}
	d := New(Options{Rules: rules})
	for _, c := range []struct {
		host string
		port uint16
		want string
	}{{"a.test", 443, "[192.0.2.1:0]"}, {"A.test.", 8443, "[192.0.2.2:0]"}, {"b.test", 443, "none"}} {
		set, err := d.Find(t.Context(), c.host, c.port)
		if err != nil {
			t.Fatal(err)
		}
		got := "none"
		if set != nil {
			got = fmt.Sprint(servers(set))
		}
		if got != c.want {
			t.Errorf("%s:%d: %s, want %s", c.host, c.port, got, c.want)
		}
	}
}

func TestServiceRecordsAreAskedForAgainWhenTheyExpire(t *testing.T) {
	asked, ttl := 0, time.Hour
	records, failure := []*net.SRV{{Target: "a.test.", Port: 1}, {Target: "b.test.", Port: 2, Priority: 1}}, error(nil)
	d := New(Options{Rules: []Rule{{Host: "web.test", Kind: SRV, Name: "_http._tcp.web.test"}},
		SRV: func(context.Context, string) ([]*net.SRV, time.Duration, error) {
			asked++
			return records, ttl, failure
		}})
	for range 3 {
		set, err := d.Find(t.Context(), "web.test", 80)
		if err != nil {
			t.Fatal(err)
		}
		if got := set.Order(); got[0].Host != "a.test" || got[0].Port != 1 || len(got) != 2 {
			t.Errorf("order %v", got)
		}
	}
	if asked != 1 {
		t.Errorf("asked %d times within the TTL", asked)
	}
	s := d.services[key{"web.test", 0}]
	s.expires = time.Now()
	records = []*net.SRV{{Target: ".", Port: 1}}
	if _, err := d.Find(t.Context(), "web.test", 80); !errors.Is(err, ErrNone) || asked != 2 {
		t.Errorf("a record that says there is none: %v, asked %d times", err, asked)
	}
	failure = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
	if _, err := d.Find(t.Context(), "web.test", 80); err != nil {
		t.Errorf("trouble of the name servers: %v", err)
	}
}
