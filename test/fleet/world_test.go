//go:build unix

package fleet_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/open"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// job is the job of every test: each has a Redis of its own.
const job = "tested"

// world is what a test's processes work in.
type world struct {
	t      testing.TB
	redis  *redistest.Server
	rdb    *redis.Client
	ledger *ledger.Ledger
	origin *fetchtest.Origin
	store  string // folder
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, redis: redistest.Start(t, redistest.AOF("everysec")), store: filepath.Join(t.TempDir(), "store")}
	w.rdb = w.redis.Client()
	w.ledger = ledger.New(w.rdb)
	w.origin = fetchtest.NewOrigin()
	t.Cleanup(w.origin.Close)
	return w
}

// worker starts a worker. extra are further arguments; those that hold a "=" and no dash are its environment.
func (w *world) worker(name string, extra ...string) *process {
	w.t.Helper()
	c := command{name: "worker", args: []string{"--redis", w.redis.URL(), "--store", w.store, "--name", name,
		"--listen", "127.0.0.1:0", "--allow-private", "127.0.0.0/8"}}
	for _, e := range extra {
		if strings.HasPrefix(e, "FLEET_") {
			c.env = append(c.env, e)
			continue
		}
		c.args = append(c.args, e)
	}
	return start(w.t, c)
}

// address waits until a worker listens and returns where.
func (w *world) address(p *process) string {
	w.t.Helper()
	var entries []map[string]any
	await(w.t, 20*time.Second, "the worker listens", func() bool {
		entries = p.logged("worker starts")
		return len(entries) > 0
	})
	return "http://" + entries[0]["listen"].(string)
}

// takesBatches waits until a worker is ready.
func (w *world) takesBatches(p *process) {
	w.t.Helper()
	await(w.t, 20*time.Second, "the worker takes batches", func() bool { return len(p.logged("worker takes batches")) > 0 })
}

// producer starts enqueue with a list.
func (w *world) producer(list io.Reader, extra ...string) *process {
	w.t.Helper()
	c := command{name: "enqueue", stdin: list, args: []string{"--redis", w.redis.URL(), "--job", job, "--quiet", "--json"}}
	for _, e := range extra {
		if strings.HasPrefix(e, "FLEET_") {
			c.env = append(c.env, e)
			continue
		}
		c.args = append(c.args, e)
	}
	return start(w.t, c)
}

// enqueued is what enqueue --json says.
type enqueued struct {
	Job        string `json:"job"`
	Lines      int64  `json:"lines"`
	Accepted   int64  `json:"accepted"`
	Duplicates int64  `json:"duplicates"`
	BadLines   int64  `json:"bad_lines"`
	Sealed     bool   `json:"sealed"`
	Error      string `json:"error"`
}

// enqueue runs enqueue to its end, which must be a good one.
func (w *world) enqueue(urls []string, extra ...string) enqueued {
	w.t.Helper()
	p := w.producer(list(urls), extra...)
	if code := p.exit(2 * time.Minute); code != 0 {
		w.t.Fatalf("enqueue: exit code %d, want 0", code)
	}
	return w.result(p)
}

func (w *world) result(p *process) (res enqueued) {
	w.t.Helper()
	if err := json.Unmarshal(p.stdout.Bytes(), &res); err != nil {
		w.t.Fatalf("enqueue's result %q: %v", p.stdout.String(), err)
	}
	return res
}

func list(urls []string) io.Reader { return strings.NewReader(strings.Join(urls, "\n") + "\n") }

// status is that of the job, or an empty one while Redis is away.
func (w *world) status() ledger.Status {
	s, err := w.ledger.Status(context.Background(), job)
	if err != nil {
		return ledger.Status{}
	}
	return s
}

// ends waits until the job has ended.
func (w *world) ends(limit time.Duration) {
	w.t.Helper()
	deadline := time.Now().Add(limit)
	for s := w.status(); s.State != "ended"; s = w.status() {
		if time.Now().After(deadline) {
			w.t.Fatalf("the job did not end within %s: %+v", limit, s)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// audit runs fleet audit, which must find nothing wrong.
func (w *world) audit() audit.Report {
	w.t.Helper()
	p := start(w.t, command{name: "fleet", args: []string{"audit", job, "--redis", w.redis.URL(), "--store", w.store, "--json"}})
	code := p.exit(time.Minute)
	var report audit.Report
	if err := json.Unmarshal(p.stdout.Bytes(), &report); err != nil {
		w.t.Fatalf("audit: exit code %d, result %q: %v", code, p.stdout.String(), err)
	}
	if code != 0 {
		w.t.Errorf("audit: exit code %d, want 0; wrong: %q", code, report.Problems)
	}
	return report
}

// records returns the record that counts of each request, by URL. There must be one of each generation.
func (w *world) records() map[string]*store.Record {
	w.t.Helper()
	ctx := context.Background()
	s, err := open.Open(ctx, w.store, open.Options{})
	if err != nil {
		w.t.Fatal(err)
	}
	defer s.Close()
	type key struct {
		id         string
		generation int
	}
	seen := map[key]bool{}
	records := map[string]*store.Record{}
	for unit, err := range s.Units(ctx, job) {
		if err != nil {
			w.t.Fatal(err)
		}
		for r, err := range s.Records(ctx, job, unit) {
			if err != nil {
				w.t.Fatal(err)
			}
			if k := (key{r.ID, r.Generation}); seen[k] {
				w.t.Errorf("two records of request %s, generation %d", r.ID, r.Generation)
			} else {
				seen[k] = true
			}
			if before := records[r.URL]; before == nil || before.Generation < r.Generation {
				records[r.URL] = r
			}
		}
	}
	w.checkBodies(s, records)
	return records
}

// checkBodies holds the stored pages against what the origin serves.
func (w *world) checkBodies(s store.Store, records map[string]*store.Record) {
	w.t.Helper()
	for _, r := range records {
		u, err := url.Parse(r.FinalURL)
		if err != nil || r.Outcome != store.OK || !strings.HasPrefix(u.Path, "/page/") && !strings.HasPrefix(u.Path, "/slow/") {
			continue
		}
		body, err := s.OpenBody(context.Background(), r.BodyOf(), r.Body)
		if err != nil {
			w.t.Error(err)
			continue
		}
		got, err := io.ReadAll(body)
		body.Close()
		if want := fetchtest.Page(u.Path, 0); err != nil || !bytes.Equal(got, want) {
			w.t.Errorf("body of %s: %d bytes, want the page's %d (%v)", r.URL, len(got), len(want), err)
		}
	}
}

// outcomes maps each URL to its outcome, or its error class where it has one.
func outcomes(records map[string]*store.Record) map[string]string {
	got := map[string]string{}
	for u, r := range records {
		if got[u] = string(r.Outcome); r.Error != nil {
			got[u] = r.Error.Class
		}
	}
	return got
}

// whole audits the job, which must have ended with one record for each of the URLs and these outcomes.
func (w *world) whole(want map[string]string) {
	w.t.Helper()
	report := w.audit()
	if n := int64(len(want)); report.Accepted != n || report.Recorded != n || report.Open != 0 {
		w.t.Errorf("audit: accepted %d, recorded %d, open %d; want all of %d recorded", report.Accepted, report.Recorded, report.Open, n)
	}
	if diff := cmp.Diff(want, outcomes(w.records())); diff != "" {
		w.t.Errorf("outcomes differ (-want +got):\n%s", diff)
	}
}

// active returns the ids of asynq's active tasks, none while Redis is away.
func (w *world) active() []string {
	ids, err := w.rdb.LRange(context.Background(), "asynq:{default}:active", 0, -1).Result()
	if err != nil {
		return nil
	}
	return ids
}

// deliveries returns of each of these batches how many deliveries were begun and neither finished nor returned, -1 for
// one that is not open any more. ok is false while Redis is away.
func (w *world) deliveries(ids []string) (begun []int, ok bool) {
	ctx := context.Background()
	pipe := w.rdb.Pipeline()
	open, counts := pipe.HMGet(ctx, "fetchfleet:{"+job+"}:open", ids...), pipe.HMGet(ctx, "fetchfleet:{"+job+"}:begun", ids...)
	if _, err := pipe.Exec(ctx); err != nil {
		return nil, false
	}
	begun = make([]int, len(ids))
	for i := range ids {
		if open.Val()[i] == nil {
			begun[i] = -1
		} else if text, ok := counts.Val()[i].(string); ok {
			fmt.Sscan(text, &begun[i])
		}
	}
	return begun, true
}

// ready asks a worker's /readyz.
func ready(t testing.TB, address string) (status int, reason string) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(address + "/readyz")
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return resp.StatusCode, strings.TrimSpace(string(text))
}

// unlimited are the flags of a job without host limits.
var unlimited = []string{"--host-rate", "0", "--host-conns", "0"}

// with appends to a copy.
func with(args []string, more ...string) []string { return append(slices.Clone(args), more...) }

// mixed is a list of pages on two hosts, of which some are slow, flaky, broken or missing, with what is to become of
// each. It wants --retries 1.
func (w *world) mixed(perHost int) (urls []string, want map[string]string) {
	want = map[string]string{}
	for n := 1; n <= 2; n++ {
		host := w.origin.Host(n)
		for i := range perHost {
			switch {
			case i == 0: // twice, so that a batch of one is tried again
				want[fmt.Sprintf("%s/flaky/2/%d-%d", host, n, i)] = "ok"
			case i%6 == 0:
				want[fmt.Sprintf("%s/flaky/1/%d-%d", host, n, i)] = "ok"
			case i%6 == 3:
				want[fmt.Sprintf("%s/status/500?n=%d", host, i)] = "http_500"
			case i%12 == 5:
				want[fmt.Sprintf("%s/status/404?n=%d", host, i)] = "http_404"
			default:
				want[fmt.Sprintf("%s/slow/%d-%d?ms=20", host, n, i)] = "ok"
			}
		}
	}
	return slices.Sorted(maps.Keys(want)), want
}

// mixedPolicy is for mixed lists: every path of the handler is taken, a busy host included.
var mixedPolicy = []string{"--host-rate", "0", "--host-conns", "1", "--retries", "1", "--backoff", "base=100ms,cap=200ms,jitter=none"}
