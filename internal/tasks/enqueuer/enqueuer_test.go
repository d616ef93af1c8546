package enqueuer_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/dispatch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/enqueuer"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a job on a real Redis, to be filled.
type bench struct {
	t      *testing.T
	rdb    redis.UniversalClient
	ledger *ledger.Ledger
	spec   tasks.Spec
}

const job = tasks.JobID("list")

func newBench(t *testing.T, url string, change func(*tasks.Spec)) *bench {
	t.Helper()
	rdb := taskstest.Dial(t, url)
	b := &bench{t: t, rdb: rdb, ledger: ledger.New(rdb), spec: tasks.DefaultSpec()}
	if change != nil {
		change(&b.spec)
	}
	var err error
	if b.spec, _, err = b.ledger.Create(t.Context(), job, b.spec, nil); err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bench) run(ctx context.Context, list io.Reader, change func(*enqueuer.Options)) (enqueuer.Counts, error) {
	b.t.Helper()
	opts := enqueuer.Options{Job: job, Spec: b.spec}
	if change != nil {
		change(&opts)
	}
	e := enqueuer.New(b.ledger, dispatch.New(b.rdb, b.ledger), opts)
	r := lists.Open([]string{"-"}, list, lists.Options{})
	defer r.Close()
	err := e.Run(ctx, r)
	return e.Counts(), err
}

func (b *bench) enqueue(lines ...string) enqueuer.Counts {
	b.t.Helper()
	counts, err := b.run(b.t.Context(), strings.NewReader(strings.Join(lines, "\n")), nil)
	if err != nil {
		b.t.Fatal(err)
	}
	return counts
}

// requests are those of all tasks that asynq has pending, in no order.
func (b *bench) requests() []tasks.Request {
	b.t.Helper()
	var all []tasks.Request
	inspector := asynq.NewInspectorFromRedisClient(b.rdb)
	for page := 1; ; page++ {
		infos, err := inspector.ListPendingTasks(b.spec.Queue, asynq.Page(page), asynq.PageSize(1000))
		if err != nil && !errors.Is(err, asynq.ErrQueueNotFound) {
			b.t.Fatal(err)
		}
		for _, info := range infos {
			batch, err := tasks.ParseBatch(tasks.BatchID(info.ID), info.Payload)
			if err != nil {
				b.t.Fatal(err)
			}
			all = append(all, batch.Requests...)
		}
		if len(infos) < 1000 {
			return all
		}
	}
}

func (b *bench) status() ledger.Status {
	b.t.Helper()
	s, err := b.ledger.Status(b.t.Context(), job)
	if err != nil {
		b.t.Fatal(err)
	}
	return s
}

// once checks that asynq has each of n different requests once, and the ledger all of them and an empty outbox.
func (b *bench) once(n int) {
	b.t.Helper()
	seen := map[tasks.RequestID]int{}
	for _, r := range b.requests() {
		id, _, _ := r.Identity(job, &b.spec)
		seen[id]++
	}
	for id, times := range seen {
		if times != 1 {
			b.t.Errorf("request %s stands in %d tasks", id, times)
		}
	}
	s := b.status()
	if len(seen) != n || s.Accepted != int64(n) || s.Open != int64(n) || s.Outbox != 0 {
		b.t.Errorf("asynq has %d requests; status %+v; want %d, and nothing in the outbox", len(seen), s, n)
	}
}

func urls(n, hosts int) []string {
	lines := make([]string, n)
	for i := range lines {
		lines[i] = fmt.Sprintf("http://host-%d.example/page/%d", i%hosts, i)
	}
	return lines
}

func TestAListIsAcceptedOnceWhateverItsOrder(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	lines := urls(2000, 30)
	lines = append(lines, lines[:500]...)                             // the same again
	lines = append(lines, lines[0], lines[0])                         // the same batch of one, twice in a row
	lines = append(lines, "HTTP://HOST-0.example:80/page/0#fragment") // the same in other words
	got := b.enqueue(lines...)
	want := enqueuer.Counts{Lines: 2503, Accepted: 2000, Duplicates: 503, Batches: b.status().Batches}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	b.once(2000)
	again := b.enqueue(lines...)
	if again.Accepted != 0 || again.Duplicates != 2503 {
		t.Errorf("the second run: %+v", again)
	}
	slices.Reverse(lines)
	if other := b.enqueue(lines...); other.Accepted != 0 || other.Duplicates != 2503 {
		t.Errorf("in the other direction: %+v", other)
	}
	b.once(2000)
}

func TestBadLinesAreCountedAndNothingElseIsLost(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	var bad []int64
	list := strings.NewReader("http://h/1\nftp://h/2\n\n# comment\n{\"url\":3}\nhttp://h/4\nno url\n")
	got, err := b.run(t.Context(), list, func(o *enqueuer.Options) {
		o.OnBadLine = func(l lists.Line) { bad = append(bad, l.Number) }
	})
	if err != nil || got.Lines != 5 || got.Accepted != 2 || got.BadLines != 3 || !slices.Equal(bad, []int64{2, 5, 7}) {
		t.Errorf("counts %+v, bad lines %v, %v", got, bad, err)
	}
	b.once(2)
}

func TestTwoProducersOverTheSameListAcceptEachRequestOnce(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	const n = 10_000
	lines := urls(n, 50)
	reversed := slices.Clone(lines)
	slices.Reverse(reversed)
	var accepted [3]enqueuer.Counts
	var producers sync.WaitGroup
	for i, list := range [][]string{lines, lines, reversed} {
		producers.Go(func() { accepted[i] = b.enqueue(list...) })
	}
	producers.Wait()
	sum := int64(0)
	for _, c := range accepted {
		sum += c.Accepted
		if c.Accepted+c.Duplicates != n {
			t.Errorf("a producer counts %+v", c)
		}
	}
	// Two that offer the same batch at the same moment may both count it, never neither.
	if sum < n {
		t.Errorf("%d accepted in all, want %d", sum, n)
	}
	b.once(n)
}

func TestWithoutDedupeEveryLineIsARequest(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), func(s *tasks.Spec) { s.NoDedupe = true })
	lines := []string{"http://h/", "http://h/", "", "http://h/", `{"url":"http://h/","key":"own"}`, `{"url":"http://h/","key":"own"}`}
	if got := b.enqueue(lines...); got.Accepted != 4 || got.Duplicates != 1 {
		t.Errorf("first run: %+v, want 3 lines and 1 key accepted", got)
	}
	if got := b.enqueue(lines...); got.Accepted != 0 || got.Duplicates != 5 {
		t.Errorf("second run: %+v, want nothing new", got)
	}
	b.once(4)
}

func TestARequestIsWhatItsLineSays(t *testing.T) {
	for name, c := range map[string]struct {
		method string // the job's
		line   string
		want   tasks.Request
	}{
		"a URL": {"GET", "http://h", tasks.Request{URL: "http://h/"}},
		"an object that says no more": {"GET", `{"url":"http://h","method":"get"}`,
			tasks.Request{URL: "http://h/"}},
		"a body makes it a POST": {"GET", `{"url":"http://h","body":"x"}`,
			tasks.Request{URL: "http://h/", Method: "POST", Body: []byte("x")}},
		"a body with a method": {"GET", `{"url":"http://h","body":"x","method":"GET"}`,
			tasks.Request{URL: "http://h/", Body: []byte("x")}},
		"a body in a job of another method": {"PUT", `{"url":"http://h","body":"x"}`,
			tasks.Request{URL: "http://h/", Body: []byte("x")}},
		"everything": {"GET", `{"url":"http://h","method":"DELETE","headers":{"x-a":"1"},"key":"k","meta":{"a":"<b>"},"retries":0,"timeout":"1s"}`,
			tasks.Request{URL: "http://h/", Method: "DELETE", Header: tasks.Header{"X-A": {"1"}}, Key: "k",
				Meta: []byte(`{"a":"<b>"}`), Retries: new(int), Timeout: tasks.Duration(time.Second)}},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, redistest.Start(t).URL(), func(s *tasks.Spec) { s.Method = c.method })
			b.enqueue(c.line)
			if diff := cmp.Diff([]tasks.Request{c.want}, b.requests()); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestLargeBodiesLiveUnderTheirOwnKeys(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	ctx := t.Context()
	small, large := strings.Repeat("s", tasks.MaxInlineBody), strings.Repeat("l", tasks.MaxInlineBody+1)
	lines := []string{fmt.Sprintf(`{"url":"http://h/","body":%q}`, small), fmt.Sprintf(`{"url":"http://h/","body":%q}`, large)}
	b.enqueue(lines...)
	b.once(2)
	id := tasks.NewRequestID(job, "POST", "http://h/", "", []byte(large))
	for _, r := range b.requests() {
		if r.BodyKey == "" {
			if string(r.Body) != small {
				t.Errorf("a body of %d bytes stands in the payload", len(r.Body))
			}
			continue
		}
		body, err := b.ledger.Body(ctx, job, r.BodyKey)
		if err != nil || string(body) != large || r.ID != id || r.BodyKey != string(id) {
			t.Errorf("request %+v: body of %d bytes, %v", r, len(body), err)
		}
	}
	// Its body goes with it; a rerun of the list does not bring it back for ever.
	if err := b.ledger.DropBody(ctx, job, string(id)); err != nil {
		t.Fatal(err)
	}
	if got := b.enqueue(lines...); got.Accepted != 0 || got.Duplicates != 2 {
		t.Errorf("second run: %+v", got)
	}
	if _, err := b.ledger.Body(ctx, job, string(id)); !errors.Is(err, ledger.ErrNoBody) {
		t.Errorf("the body is back: %v", err)
	}
}

// stopping is a list that ends with an error after so many lines.
type stopping struct {
	lines []string
	err   error
}

func (s *stopping) Read(p []byte) (int, error) {
	if len(s.lines) == 0 {
		return 0, s.err
	}
	n := copy(p, s.lines[0]+"\n")
	s.lines = s.lines[1:]
	return n, nil
}

func TestARunAfterAnErrorTakesTheRest(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	lines := urls(3000, 20)
	broken := errors.New("disk is gone")
	first, err := b.run(t.Context(), &stopping{lines: lines[:1700], err: broken}, nil)
	if !errors.Is(err, broken) || first.Accepted == 0 || first.Accepted > 1700 {
		t.Fatalf("first run: %+v, %v", first, err)
	}
	second := b.enqueue(lines...)
	if first.Accepted+second.Accepted != 3000 {
		t.Errorf("%d and %d accepted, want 3000", first.Accepted, second.Accepted)
	}
	b.once(3000)
}

func TestARunThatIsCancelledSaysSoAndKeepsWhatItAccepted(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	ctx, cancel := context.WithCancelCause(t.Context())
	why := errors.New("interrupted")
	lines := urls(3000, 20)
	r, w := io.Pipe()
	go func() {
		_, _ = io.WriteString(w, strings.Join(lines[:1000], "\n")+"\n")
		cancel(why)
		_, _ = io.WriteString(w, strings.Join(lines[1000:], "\n")+"\n")
		_ = w.Close()
	}()
	counts, err := b.run(ctx, r, nil)
	_ = r.Close()
	if !errors.Is(err, why) && !errors.Is(err, context.Canceled) {
		t.Errorf("error = %v", err)
	}
	if s := b.status(); s.Accepted < counts.Accepted {
		t.Errorf("the ledger has %d, counted were %d", s.Accepted, counts.Accepted)
	}
	b.enqueue(lines...)
	b.once(3000)
}

// A run that was killed between accept and asynq leaves its batch in the outbox; the next one hands it on.
func TestWhatAnEarlierRunLeftInTheOutboxIsHandedOn(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	const url = "http://h/1"
	hash := tasks.RequestHash(job, "GET", url, "", nil)
	batch := tasks.Batch{Job: job, Host: "h", Requests: []tasks.Request{{URL: url}}}
	payload, err := batch.Payload()
	if err != nil {
		t.Fatal(err)
	}
	offer := ledger.Offer{ID: tasks.ListedBatchID(job, []int64{hash}), Payload: payload, Hashes: []int64{hash}}
	if _, err := b.ledger.Accept(t.Context(), job, []ledger.Offer{offer}); err != nil {
		t.Fatal(err)
	}
	if got := b.enqueue(url); got.Accepted != 1 || got.Duplicates != 0 {
		t.Errorf("counts %+v", got)
	}
	b.once(1)
}

func TestARedisCutInTheMiddleIsWaitedForAndNothingIsTwice(t *testing.T) {
	server := redistest.Start(t)
	proxy := redistest.Proxy(t, server.Addr())
	direct := newBench(t, server.URL(), nil)
	b := newBench(t, "redis://"+proxy.Addr()+"/0", nil)
	lines := urls(20_000, 100)
	for i := 0; i < len(lines); i += 50 { // bodies go to Redis from the reading side
		lines[i] = fmt.Sprintf(`{"url":%q,"body":%q}`, lines[i], strings.Repeat("b", tasks.MaxInlineBody+1))
	}
	list, feed := io.Pipe()
	go func() {
		for i, line := range lines {
			if i > 0 && i%4000 == 0 { // four cuts, each while batches are on their way
				proxy.Cut()
				time.AfterFunc(300*time.Millisecond, proxy.Heal)
			}
			_, _ = io.WriteString(feed, line+"\n")
		}
		_ = feed.Close()
	}()
	counts, err := b.run(t.Context(), list, nil)
	if err != nil {
		t.Fatal(err)
	}
	if counts.Accepted != 20_000 || counts.Duplicates != 0 || counts.BadLines != 0 {
		t.Errorf("counts %+v, want 20000 accepted, no duplicates, no bad lines", counts)
	}
	direct.once(20_000)
}

// generated is a list that is made as it is read.
type generated struct {
	n, hosts, at int
	rest         []byte
}

func (g *generated) Read(p []byte) (int, error) {
	for len(g.rest) < len(p) && g.at < g.n {
		host := strconv.Itoa(10000 + g.at%g.hosts)
		g.rest = append(g.rest, "https://www.host-"+host+".example/articles/2026/11/20/items-"...)
		g.rest = append(g.rest, strconv.Itoa(10_000_000+g.at)...)
		g.rest = append(g.rest, ".html\n"...)
		g.at++
	}
	n := copy(p, g.rest)
	g.rest = append(g.rest[:0], g.rest[n:]...)
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

// At most 150 bytes of Redis a pending URL of 70 bytes, at 100 URLs a host, asynq's part included.
func TestAPendingURLTakesLittleOfRedis(t *testing.T) {
	const n, limit = 100_000, 150
	b := newBench(t, redistest.Start(t).URL(), nil)
	before := usedMemory(t, b.rdb)
	counts, err := b.run(t.Context(), &generated{n: n, hosts: 1000}, nil)
	if err != nil || counts.Accepted != n {
		t.Fatalf("counts %+v, %v", counts, err)
	}
	length := len(b.requests()[0].URL)
	perURL := float64(usedMemory(t, b.rdb)-before) / n
	t.Logf("%.1f bytes of Redis a pending URL of %d bytes, %d batches", perURL, length, counts.Batches)
	if perURL > limit || length != 70 {
		t.Errorf("%.1f bytes a URL of %d bytes, want at most %d for 70", perURL, length, limit)
	}
}

// usedMemory is what Redis keeps, without the buffers of the connections that brought it.
func usedMemory(t *testing.T, rdb redis.UniversalClient) int64 {
	t.Helper()
	info, err := rdb.Info(t.Context(), "memory").Result()
	if err != nil {
		t.Fatal(err)
	}
	field := func(name string) int64 {
		_, rest, _ := strings.Cut(info, "\n"+name+":")
		text, _, _ := strings.Cut(rest, "\r\n")
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	return field("used_memory") - field("mem_clients_normal")
}

// A million lines pass through less than 128 MiB, all that the process has from the system for its heap included.
func TestMemoryDoesNotGrowWithTheList(t *testing.T) {
	const n, limit = 250_000, 128 << 20 // make bench has the million; its memory is the same
	b := newBench(t, redistest.Start(t).URL(), nil)
	runtime.GC()
	debug.FreeOSMemory()
	stop, peak := make(chan struct{}), make(chan uint64)
	go func() {
		sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
			{Name: "/memory/classes/heap/stacks:bytes"}}
		most := uint64(0)
		for tick := time.NewTicker(5 * time.Millisecond); ; {
			metrics.Read(sample)
			most = max(most, sample[0].Value.Uint64()+sample[1].Value.Uint64()+sample[2].Value.Uint64())
			select {
			case <-tick.C:
			case <-stop:
				tick.Stop()
				peak <- most
				return
			}
		}
	}()
	began := time.Now()
	counts, err := b.run(t.Context(), &generated{n: n, hosts: 20_000}, nil)
	close(stop)
	most := <-peak
	if err != nil || counts.Accepted != n {
		t.Errorf("counts %+v, %v", counts, err)
	}
	t.Logf("%d lines over 20000 hosts: peak heap %.1f MiB, %.0f lines/s", n, float64(most)/(1<<20), n/time.Since(began).Seconds())
	if most > limit {
		t.Errorf("peak heap %.1f MiB, want under %d", float64(most)/(1<<20), limit>>20)
	}
}

func TestListThatPausesIsSentOnMeanwhile(t *testing.T) {
	b := newBench(t, redistest.Start(t).URL(), nil)
	in, out := io.Pipe()
	done := make(chan error, 1)
	go func() {
		_, err := b.run(t.Context(), in, nil)
		done <- err
	}()
	for i := range 3 { // the third waits for a batch of two
		fmt.Fprintf(out, "http://h.example/%d\n", i)
	}
	accepted := func() int64 {
		s, err := b.ledger.Status(t.Context(), job)
		if err != nil {
			return 0
		}
		return s.Accepted
	}
	for deadline := time.Now().Add(20 * time.Second); accepted() < 3; {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 3 lines are accepted while the list pauses", accepted())
		}
		<-time.After(20 * time.Millisecond)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
