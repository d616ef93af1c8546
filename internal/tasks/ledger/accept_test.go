package ledger_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

func TestAcceptTakesABatchWholeOrNotAtAll(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		for name, c := range map[string]struct {
			before []ledger.Offer
			offer  ledger.Offer
			want   ledger.Answer
			unseen []int // of the offered hashes, afterwards
		}{
			"all new":                       {nil, offer("all-new", 1, 2, 3), ledger.Answer{}, nil},
			"one taken":                     {[]ledger.Offer{offer("one-taken", 2)}, offer("one-taken", 1, 2, 3), ledger.Answer{Taken: []int{1}}, []int{0, 2}},
			"all taken":                     {[]ledger.Offer{offer("all-taken", 1), offer("all-taken", 2)}, offer("all-taken", 1, 2), ledger.Answer{Taken: []int{0, 1}}, nil},
			"the same request twice":        {nil, offer("the-same-request-twice", 1, 2, 1), ledger.Answer{Taken: []int{2}}, []int{0, 1, 2}},
			"open already":                  {[]ledger.Offer{offer("open-already", 1, 2)}, offer("open-already", 1, 2), ledger.Answer{Open: true}, nil},
			"the same requests, other turn": {[]ledger.Offer{offer("other-turn", 1, 2)}, offer("other-turn", 2, 1), ledger.Answer{Taken: []int{0, 1}}, nil},
		} {
			t.Run(name, func(t *testing.T) {
				job := jobOf(c.offer, name)
				l := newJob(t, rdb, job)
				for _, o := range c.before {
					if a := accept(t, l, job, o)[0]; !a.Accepted() {
						t.Fatalf("before: %+v", a)
					}
				}
				before := status(t, l, job)
				if diff := cmp.Diff(c.want, accept(t, l, job, c.offer)[0]); diff != "" {
					t.Error(diff)
				}
				unseen, err := l.Unseen(t.Context(), job, c.offer.Hashes)
				if err != nil || !slices.Equal(unseen, c.unseen) {
					t.Errorf("unseen = %v (%v), want %v", unseen, err, c.unseen)
				}
				after := status(t, l, job)
				added := int64(0)
				if c.want.Accepted() {
					added = int64(len(c.offer.Hashes))
				}
				if after.Accepted != before.Accepted+added || after.Open != before.Open+added || after.Batches != after.Outbox {
					t.Errorf("before %+v, after %+v", before, after)
				}
			})
		}
	})
}

// jobOf is the job whose name the offers of a table row were made with.
func jobOf(_ ledger.Offer, name string) tasks.JobID {
	return map[string]tasks.JobID{
		"all new": "all-new", "one taken": "one-taken", "all taken": "all-taken",
		"the same request twice": "the-same-request-twice", "open already": "open-already",
		"the same requests, other turn": "other-turn",
	}[name]
}

func TestAcceptAnswersEachOfManyOffersForItself(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := newJob(t, rdb, "many")
		got := accept(t, l, "many", offer("many", 1, 2), offer("many", 2, 3), offer("many", 3), offer("many", 1, 2))
		want := []ledger.Answer{{}, {Taken: []int{0}}, {}, {Open: true}}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Error(diff)
		}
		if s := status(t, l, "many"); s.Accepted != 3 || s.Open != 3 || s.Batches != 2 {
			t.Errorf("status = %+v", s)
		}
	})
}

func TestConcurrentProducersAcceptEachRequestOnce(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const requests = 1500 // enough for several splits of the seen-set meanwhile
		newJob(t, rdb, "race")
		var producers sync.WaitGroup
		for p := range 4 {
			l := ledger.New(rdb) // each with its own idea of how many sets there are
			producers.Go(func() {
				for i := range requests {
					n := (i + p*requests/4) % requests
					if _, err := l.Accept(t.Context(), "race", []ledger.Offer{offer("race", n)}); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		producers.Wait()
		if s := status(t, ledger.New(rdb), "race"); s.Accepted != requests || s.Open != requests || s.Batches != requests {
			t.Errorf("status = %+v, want %d accepted, open and batches", s, requests)
		}
	})
}

func TestOutboxGivesOutWhatIsOldEnoughUntilItIsSent(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		l := newJob(t, rdb, "outbox")
		first, second := offer("outbox", 1), offer("outbox", 2)
		accept(t, l, "outbox", first)
		const age = 50 * time.Millisecond
		at := redisTime(t, rdb)
		for !redisTime(t, rdb).After(at.Add(age)) { // the first is old then
		}
		accept(t, l, "outbox", second)
		if got := outbox(t, l, "outbox", time.Hour); len(got) != 0 {
			t.Errorf("an hour old: %v", got)
		}
		old := outbox(t, l, "outbox", age)
		if diff := cmp.Diff([]byte("[1]"), old[first.ID].Payload); diff != "" {
			t.Error(diff)
		}
		if _, young := old[second.ID]; young && !redisTime(t, rdb).After(at.Add(2*age)) {
			t.Errorf("given out before its time: %v", old)
		}
		want := map[tasks.BatchID]ledger.Envelope{first.ID: {Batch: first.ID, Payload: first.Payload},
			second.ID: {Batch: second.ID, Payload: second.Payload}}
		if diff := cmp.Diff(want, outbox(t, l, "outbox", 0)); diff != "" {
			t.Error(diff)
		}
		if err := l.Sent(ctx, "outbox", first.ID, "never-there"); err != nil {
			t.Fatal(err)
		}
		delete(want, first.ID)
		if diff := cmp.Diff(want, outbox(t, l, "outbox", 0)); diff != "" {
			t.Errorf("after the first was sent: %s", diff)
		}
		in, err := l.InOutbox(ctx, "outbox", []string{string(first.ID), string(second.ID)})
		if err != nil || !slices.Equal(in, []bool{false, true}) {
			t.Errorf("in the outbox: %v, %v", in, err)
		}
	})
}

// outbox collects one walk over a job's outbox.
func outbox(t *testing.T, l *ledger.Ledger, job tasks.JobID, age time.Duration) map[tasks.BatchID]ledger.Envelope {
	t.Helper()
	got := map[tasks.BatchID]ledger.Envelope{}
	for envelopes, err := range l.Outbox(t.Context(), job, age) {
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range envelopes {
			got[e.Batch] = e
		}
	}
	return got
}

// The walk goes on while others take batches out and put new ones in.
func TestAWalkOverTheOutboxMeetsWhatIsThereAllAlong(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const n = 3000 // several chunks
		l := newJob(t, rdb, "walk")
		stays := map[tasks.BatchID]bool{}
		for i := range n {
			o := offer("walk", i)
			accept(t, l, "walk", o)
			stays[o.ID] = i%2 == 0
		}
		met := map[tasks.BatchID]bool{}
		for envelopes, err := range l.Outbox(t.Context(), "walk", 0) {
			if err != nil {
				t.Fatal(err)
			}
			accept(t, l, "walk", offer("walk", n+len(met)))
			for _, e := range envelopes {
				if met[e.Batch] = true; !stays[e.Batch] {
					if err := l.Sent(t.Context(), "walk", e.Batch); err != nil {
						t.Fatal(err)
					}
				}
			}
		}
		for id, stay := range stays {
			if stay && !met[id] {
				t.Errorf("batch %s was not met", id)
			}
		}
	})
}

func redisTime(t *testing.T, rdb redis.UniversalClient) time.Time {
	t.Helper()
	now, err := rdb.Time(t.Context()).Result()
	if err != nil {
		t.Fatal(err)
	}
	return now
}

func TestAJobKeepsItsPolicy(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		l := newJob(t, rdb, "policy")
		other := tasks.DefaultSpec()
		other.Retries = 9
		_, _, err := l.Create(ctx, "policy", other, []string{"--retries"})
		conflict, ok := errors.AsType[*ledger.ConflictError](err)
		if !ok || !slices.Equal(conflict.Fields, []string{"--retries (the job has 4, not 9)"}) {
			t.Errorf("another policy: %v", err)
		}
		if got, fresh, err := l.Create(ctx, "policy", other, []string{"--queue"}); err != nil || fresh || got.Retries != 4 {
			t.Errorf("flags left out: %+v, fresh %v, %v", got, fresh, err)
		}
		if err := rdb.Set(ctx, "fetchfleet:{policy}:spec", `{"v":3}`, 0).Err(); err != nil {
			t.Fatal(err)
		}
		_, _, err = l.Create(ctx, "policy", tasks.DefaultSpec(), nil)
		if _, ok := errors.AsType[*tasks.NewerSpecError](err); !ok {
			t.Errorf("a spec of a newer version: %v", err)
		}
		if _, err := l.Spec(ctx, "nobody"); !errors.Is(err, ledger.ErrUnknownJob) {
			t.Errorf("unknown job: %v", err)
		}
		if _, err := l.Status(ctx, "nobody"); !errors.Is(err, ledger.ErrUnknownJob) {
			t.Errorf("status of an unknown job: %v", err)
		}
	})
}

// A producer that dies between accept and enqueue is helped by workers, which sweep live jobs only.
func TestAJobThatEndedLivesAgainWhenMoreIsAccepted(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := newJob(t, rdb, "again")
		if ended, err := l.Seal(t.Context(), "again"); err != nil || !ended {
			t.Fatalf("seal of an empty job: ended %v, %v", ended, err)
		}
		if live, err := l.LiveJobs(t.Context()); err != nil || len(live) != 0 {
			t.Fatalf("live jobs: %v, %v", live, err)
		}
		accept(t, l, "again", offer("again", 1))
		live, err := l.LiveJobs(t.Context())
		if s := status(t, l, "again"); err != nil || s.State != "running" || !slices.Equal(live, []tasks.JobID{"again"}) {
			t.Errorf("state %s, live jobs %v, %v", s.State, live, err)
		}
	})
}

func TestAStoreIsBoundOnce(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := newJob(t, rdb, "store")
		for range 2 {
			if err := l.BindStore(t.Context(), "store", "one", "file:/one"); err != nil {
				t.Fatal(err)
			}
		}
		err := l.BindStore(t.Context(), "store", "two", "file:/two")
		if other, ok := errors.AsType[*ledger.OtherStoreError](err); !ok || other.Noted != "one" {
			t.Errorf("another store: %v", err)
		}
	})
}

func TestBodiesLiveUnderTheirOwnKeys(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		ctx := t.Context()
		l := newJob(t, rdb, "bodies")
		body := []byte("a\x00\xffb")
		if err := l.PutBody(ctx, "bodies", "key", body); err != nil {
			t.Fatal(err)
		}
		if got, err := l.Body(ctx, "bodies", "key"); err != nil || !slices.Equal(got, body) {
			t.Errorf("body = %q, %v", got, err)
		}
		if err := l.DropBody(ctx, "bodies", "key"); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Body(ctx, "bodies", "key"); !errors.Is(err, ledger.ErrNoBody) {
			t.Errorf("after it was dropped: %v", err)
		}
	})
}
