package ledger_test

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"
	"pgregory.net/rapid"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// TestAcceptedIsRecordedPlusOpenWhateverHappens interleaves every step that moves the ledger, in any order, also twice
// and also where it makes no sense, and compares with a model after each.
func TestAcceptedIsRecordedPlusOpenWhateverHappens(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		jobs := 0
		rapid.Check(t, func(rt *rapid.T) {
			jobs++
			job := tasks.JobID("p" + strconv.Itoa(jobs))
			m := &machine{job: job, ledger: newJob(t, rdb, job), ctx: t, open: map[tasks.BatchID]*openBatch{}, seen: map[int]bool{},
				records: map[int]record{}, archived: map[tasks.BatchID]archivedBatch{}, outbox: map[tasks.BatchID]bool{},
				last: map[tasks.BatchID]ledger.Start{}}
			rt.Repeat(map[string]func(*rapid.T){
				"accept": m.accept, "begin": m.begin, "give back": m.giveBack, "finish": m.finish,
				"finish twice": m.finishTwice, "reopen": m.reopen, "retake": m.retake, "seal": m.seal, "send": m.send,
				"": m.check,
			})
		})
	})
}

type openBatch struct {
	numbers    []int
	generation int
	begun      int
	company    int  // of them in company
	inHand     bool // the last of them was not given back
	waits      int  // -1 = none noted
	base       int
	last       string
}

type record struct {
	generation int
	outcome    string
	bytes      int64
}

type archivedBatch struct {
	number     int
	generation int
}

// machine is the model, beside the ledger that it is compared with.
type machine struct {
	job    tasks.JobID
	ledger *ledger.Ledger
	ctx    testing.TB

	open     map[tasks.BatchID]*openBatch
	closed   []tasks.BatchID
	archived map[tasks.BatchID]archivedBatch
	outbox   map[tasks.BatchID]bool
	seen     map[int]bool
	records  map[int]record
	sealed   bool
	units    int
	starts   int
	last     map[tasks.BatchID]ledger.Start
}

func pick[K ~string, V any](t *rapid.T, label string, from map[K]V) K {
	if len(from) == 0 {
		t.Skip("none")
	}
	return rapid.SampledFrom(slices.Sorted(maps.Keys(from))).Draw(t, label)
}

func must[T any](t *rapid.T, v T, err error) T {
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (m *machine) accept(t *rapid.T) {
	numbers := rapid.SliceOfN(rapid.IntRange(0, 40), 1, 5).Draw(t, "requests")
	o := offer(m.job, numbers...)
	want := ledger.Answer{Open: m.open[o.ID] != nil}
	within := map[int]bool{}
	for i, n := range numbers {
		if !want.Open && (m.seen[n] || within[n]) {
			want.Taken = append(want.Taken, i)
		}
		within[n] = true
	}
	if diff := cmp.Diff(want, accept(m.ctx, m.ledger, m.job, o)[0]); diff != "" {
		t.Fatal(diff)
	}
	if want.Accepted() {
		m.open[o.ID] = &openBatch{numbers: numbers, waits: -1}
		m.outbox[o.ID] = true
		maps.Copy(m.seen, within)
	}
}

// any draws a batch in any state.
func (m *machine) any(t *rapid.T) tasks.BatchID {
	ids := append(slices.Sorted(maps.Keys(m.open)), m.closed...)
	return rapid.SampledFrom(append(ids, "never-accepted")).Draw(t, "batch")
}

// start begins a delivery, and now and then repeats it as a client does whose reply was lost.
func (m *machine) start(t *rapid.T, id tasks.BatchID, request tasks.RequestID) ledger.Delivery {
	m.starts++
	s := ledger.Start{Job: m.job, Batch: id, Request: request, Token: fmt.Sprint("t-", m.starts),
		Company: rapid.Bool().Draw(t, "company")}
	m.last[id] = s
	d, err := m.ledger.Begin(m.ctx.Context(), s)
	for range rapid.IntRange(0, 2).Draw(t, "repeats") {
		must(t, d, err)
		d, err = m.ledger.Begin(m.ctx.Context(), s)
	}
	return must(t, d, err)
}

func (m *machine) begin(t *rapid.T) {
	id := m.any(t)
	b := m.open[id]
	request := tasks.RequestID("")
	if b != nil && len(b.numbers) == 1 {
		request = requestID(m.job, b.numbers[0])
	}
	d := m.start(t, id, request)
	want := ledger.BatchClosed
	if b != nil {
		want = ledger.BatchOpen
		company := b.company
		b.begin(m.last[id].Company)
		if d.Begun != b.begun || d.Company != company || d.Waits != b.waits || d.Base != b.base || d.LastError != b.last || request != "" && d.Generation != b.generation {
			t.Fatalf("begin %s: %+v, want %+v", id, d, *b)
		}
	} else if _, ok := m.archived[id]; ok {
		want = ledger.BatchArchived
	}
	if d.State != want {
		t.Fatalf("batch %s is %s, want %s", id, d.State, want)
	}
}

func (m *machine) giveBack(t *rapid.T) {
	id := m.any(t)
	b := m.open[id]
	s := m.last[id]
	s.Job, s.Batch = m.job, id
	if rapid.Bool().Draw(t, "tried") {
		waits := rapid.IntRange(0, 9).Draw(t, "waits")
		text := rapid.SampledFrom([]string{"", "http_503: busy", "two\nlines  "}).Draw(t, "error")
		must(t, 0, m.ledger.Tried(m.ctx.Context(), s, ledger.Trial{Waits: waits, Since: 1000, Error: text}))
		if b != nil {
			b.waits, b.last = waits, text
			b.begun, b.company, b.inHand = 0, 0, false
		}
	} else {
		must(t, 0, m.ledger.Return(m.ctx.Context(), s))
		if b != nil && b.inHand {
			b.giveBack(s.Company)
		}
	}
}

// begin counts a delivery, giveBack takes the last one back.
func (b *openBatch) begin(company bool) {
	b.begun++
	b.inHand = true
	if company {
		b.company++
	}
}

func (b *openBatch) giveBack(company bool) {
	b.begun--
	b.inHand = false
	if company {
		b.company--
	}
}

// finish records some requests of an open batch; the rest follow as a batch of their own.
func (m *machine) finish(t *rapid.T) {
	id := pick(t, "batch", m.open)
	b := m.open[id]
	recorded := rapid.IntRange(0, len(b.numbers)).Draw(t, "recorded")
	outcome := rapid.SampledFrom([]string{"ok", "http_error", "failed"}).Draw(t, "outcome")
	bytes := rapid.SampledFrom([]int64{0, 10, 5 << 30}).Draw(t, "bytes")
	f := ledger.Finishing{Job: m.job, Batch: id, Recorded: recorded, Counters: counters(outcome, recorded, bytes)}
	for _, n := range b.numbers[:recorded] {
		m.records[n] = record{generation: b.generation, outcome: outcome, bytes: bytes}
	}
	if len(b.numbers) == 1 && recorded == 1 && outcome != "ok" && rapid.Bool().Draw(t, "archived") {
		f.Archive = &ledger.Note{Request: requestID(m.job, b.numbers[0]), Generation: b.generation, Outcome: outcome, Class: "x", Bytes: bytes}
		m.archived[id] = archivedBatch{number: b.numbers[0], generation: b.generation}
	}
	if rest := b.numbers[recorded:]; len(rest) > 0 {
		m.units++
		child := tasks.ChildBatchID(m.job, "back", strconv.Itoa(m.units), requestID(m.job, rest[0]))
		f.Children = []ledger.Child{{ID: child, Requests: len(rest), Payload: []byte("p")}}
		m.open[child] = &openBatch{numbers: rest, generation: b.generation, waits: -1}
		m.outbox[child] = true
	}
	delete(m.open, id)
	delete(m.outbox, id)
	m.closed = append(m.closed, id)
	first, ended, err := m.ledger.Finish(m.ctx.Context(), f)
	if err != nil || !first || ended != m.ended() {
		t.Fatalf("finish: first %v, ended %v, %v; want ended %v", first, ended, err, m.ended())
	}
}

func counters(outcome string, n int, bytes int64) []ledger.Counter {
	c := []ledger.Counter{{Name: outcome, Add: int64(n)}, {Name: "bytes", Add: int64(n) * bytes}}
	if outcome != "ok" {
		c = append(c, ledger.Counter{Name: "class:x", Add: int64(n)})
	}
	return c
}

func (m *machine) finishTwice(t *rapid.T) {
	if len(m.closed) == 0 {
		t.Skip("none")
	}
	id := rapid.SampledFrom(m.closed).Draw(t, "batch")
	if m.open[id] != nil {
		t.Skip("open again")
	}
	first, ended, err := m.ledger.Finish(m.ctx.Context(), ledger.Finishing{Job: m.job, Batch: id, Recorded: 3,
		Counters: counters("ok", 3, 1000), Children: []ledger.Child{{ID: "ghost", Requests: 3, Payload: []byte("p")}},
		Archive: &ledger.Note{Request: "ghost"}})
	if err != nil || first || ended {
		t.Fatalf("finished %s twice: first %v, ended %v, %v", id, first, ended, err)
	}
}

func (m *machine) reopen(t *rapid.T) {
	id := pick(t, "batch", m.archived)
	a := m.archived[id]
	ctx := m.ctx.Context()
	d := m.start(t, id, requestID(m.job, a.number))
	if d.State != ledger.BatchArchived {
		t.Fatalf("batch %s is %s, want archived", id, d.State)
	}
	// It is not open again when its request was taken again otherwise meanwhile.
	want := m.records[a.number].generation == a.generation && m.isRecorded(a.number)
	for i := range 2 {
		got, err := m.ledger.Reopen(ctx, m.job, id, d, 7)
		if err != nil || got != (want && i == 0) {
			t.Fatalf("reopen %d: %v, %v; want %v", i+1, got, err, want && i == 0)
		}
	}
	delete(m.archived, id)
	if want {
		delete(m.records, a.number)
		m.open[id] = &openBatch{numbers: []int{a.number}, generation: a.generation + 1, base: 7, waits: -1}
	}
}

func (m *machine) isRecorded(n int) bool { _, ok := m.records[n]; return ok }

func (m *machine) retake(t *rapid.T) {
	var candidates []int
	for n, r := range m.records {
		if r.outcome != "ok" {
			candidates = append(candidates, n)
		}
	}
	if len(candidates) == 0 {
		t.Skip("none")
	}
	slices.Sort(candidates)
	n := rapid.SampledFrom(candidates).Draw(t, "request")
	r := m.records[n]
	again := ledger.Retake{Request: requestID(m.job, n), Generation: r.generation + 1, Payload: []byte("p"),
		Outcome: r.outcome, Class: "x", Bytes: r.bytes}
	for i := range 2 {
		id, ok, err := m.ledger.Retake(m.ctx.Context(), m.job, again)
		if err != nil || ok != (i == 0) {
			t.Fatalf("retake %d: %v, %v", i+1, ok, err)
		}
		if ok {
			m.open[id] = &openBatch{numbers: []int{n}, generation: again.Generation, waits: -1}
			m.outbox[id] = true
		}
	}
	delete(m.records, n)
}

func (m *machine) seal(t *rapid.T) {
	m.sealed = true
	if ended, err := m.ledger.Seal(m.ctx.Context(), m.job); err != nil || ended != m.ended() {
		t.Fatalf("seal: ended %v, %v; want %v", ended, err, m.ended())
	}
}

func (m *machine) send(t *rapid.T) {
	id := pick(t, "batch", m.outbox)
	must(t, 0, m.ledger.Sent(m.ctx.Context(), m.job, id))
	delete(m.outbox, id)
}

func (m *machine) ended() bool { return m.sealed && len(m.open) == 0 }

// check compares everything that the ledger shows with the model.
func (m *machine) check(t *rapid.T) {
	ctx := m.ctx.Context()
	s := status(m.ctx, m.ledger, m.job)
	want := ledger.Status{Job: m.job, State: "accepting", Accepted: int64(len(m.seen)), Classes: map[string]int64{},
		Batches: int64(len(m.open)), Outbox: int64(len(m.outbox))}
	open := map[tasks.BatchID]int{}
	for id, b := range m.open {
		open[id] = len(b.numbers)
		want.Open += int64(len(b.numbers))
	}
	for _, r := range m.records {
		want.Bytes += r.bytes
		*map[string]*int64{"ok": &want.OK, "http_error": &want.HTTPErr, "failed": &want.Failed}[r.outcome]++
		if r.outcome != "ok" {
			want.Classes["x"]++
		}
	}
	switch {
	case m.ended():
		want.State = "ended"
	case m.sealed:
		want.State = "running"
	}
	if s.Accepted != s.Recorded()+s.Open {
		t.Errorf("accepted %d, recorded %d, open %d", s.Accepted, s.Recorded(), s.Open)
	}
	if (s.Ended != nil) != m.ended() {
		t.Errorf("ended at %v, want ended %v", s.Ended, m.ended())
	}
	s.Created, s.Ended, s.Rate = want.Created, nil, 0
	if diff := cmp.Diff(want, s); diff != "" {
		t.Fatal(diff)
	}
	got, err := m.ledger.OpenBatches(ctx, m.job)
	if diff := cmp.Diff(open, got); err != nil || diff != "" {
		t.Fatalf("open batches: %v %s", err, diff)
	}
	live, err := m.ledger.LiveJobs(ctx)
	if err != nil || slices.Contains(live, m.job) == m.ended() {
		t.Fatalf("among the live jobs: %v (%v), ended: %v", slices.Contains(live, m.job), err, m.ended())
	}
}
