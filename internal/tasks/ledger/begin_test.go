package ledger_test

import (
	"context"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

func TestADeliveryIsCountedOnceHoweverOftenItBegins(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("repeated")
		l, o := newJob(t, rdb, job), offer(job, 1)
		accept(t, l, job, o)
		begin := func(token string) ledger.Delivery {
			t.Helper()
			d, err := l.Begin(t.Context(), ledger.Start{Job: job, Batch: o.ID, Token: token, Suspect: 2})
			if err != nil {
				t.Fatal(err)
			}
			return d
		}
		for _, step := range []struct {
			token string
			state ledger.BatchState
			begun int
		}{
			{"a-1", ledger.BatchOpen, 1}, {"a-1", ledger.BatchOpen, 1},
			{"b-1", ledger.BatchOpen, 2}, {"b-1", ledger.BatchOpen, 2}, // not its own suspect
			{"b-2", ledger.BatchSuspect, 0}, {"b-2", ledger.BatchSuspect, 0},
		} {
			if d := begin(step.token); d.State != step.state || d.Begun != step.begun {
				t.Fatalf("begin as %s = %s, %d begun; want %s, %d", step.token, d.State, d.Begun, step.state, step.begun)
			}
		}
	})
}

func TestWhoGivesABatchBackTakesBackOnlyWhatItCounted(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("returned")
		l, o := newJob(t, rdb, job), offer(job, 1)
		accept(t, l, job, o)
		delivery := func(token string, company bool) ledger.Start {
			return ledger.Start{Job: job, Batch: o.ID, Token: token, Company: company}
		}
		begin := func(s ledger.Start, begun, company int) {
			t.Helper()
			for range 2 { // a client repeats a command whose reply was lost
				if d, err := l.Begin(t.Context(), s); err != nil || d.Begun != begun || d.Company != company {
					t.Fatalf("begin as %s: %d begun, %d of them in company, %v; want %d, %d", s.Token, d.Begun, d.Company, err, begun, company)
				}
			}
		}
		back := func(give func(context.Context) error) {
			t.Helper()
			for range 2 {
				if err := give(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		vanished, company, returned := delivery("a", false), delivery("b", true), delivery("c", true)
		begin(vanished, 1, 0)
		begin(company, 2, 0)
		begin(returned, 3, 1)
		back(func(ctx context.Context) error { return l.Return(ctx, returned) })
		back(func(ctx context.Context) error { return l.Return(ctx, vanished) }) // it is not gone, it slept: others count on
		begin(delivery("d", false), 3, 1)
		begin(delivery("e", false), 4, 1)
		back(func(ctx context.Context) error { return l.Tried(ctx, returned, ledger.Trial{}) })
		first := delivery("f", true)
		begin(first, 1, 0)
		back(func(ctx context.Context) error { return l.Return(ctx, first) })
		begin(delivery("g", false), 1, 0)
	})
}

// An entry without a token is what versions before tokens left.
func TestACountWithoutATokenIsGoneOnFrom(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("old")
		l, o := newJob(t, rdb, job), offer(job, 1)
		accept(t, l, job, o)
		if err := rdb.HSet(t.Context(), "fetchfleet:{old}:begun", string(o.ID), 1).Err(); err != nil {
			t.Fatal(err)
		}
		d, err := l.Begin(t.Context(), ledger.Start{Job: job, Batch: o.ID, Token: "t"})
		if err != nil || d.Begun != 2 {
			t.Errorf("begun %d, %v; want 2", d.Begun, err)
		}
	})
}

func TestABeginWhoseReplyIsLostIsCountedOnce(t *testing.T) {
	const job = tasks.JobID("stalled")
	server := redistest.Start(t)
	direct := taskstest.Dial(t, server.URL())
	l, o := newJob(t, direct, job), offer(job, 1)
	accept(t, l, job, o)
	if _, err := l.Begin(t.Context(), ledger.Start{Job: job, Batch: "another", Token: "t-0"}); err != nil { // Redis knows the script
		t.Fatal(err)
	}

	proxy := redistest.Proxy(t, server.Addr())
	client := redis.NewClient(&redis.Options{Addr: proxy.Addr(), ReadTimeout: 200 * time.Millisecond, MaxRetries: 50})
	t.Cleanup(func() { _ = client.Close() })
	if err := client.Ping(t.Context()).Err(); err != nil { // the connection stands before its answers go astray
		t.Fatal(err)
	}
	proxy.Mute(true)
	begun := make(chan ledger.Delivery)
	go func() {
		d, err := ledger.New(client).Begin(t.Context(), ledger.Start{Job: job, Batch: o.ID, Token: "t-1"})
		if err != nil {
			t.Error(err)
		}
		begun <- d
	}()
	for direct.HGet(t.Context(), "fetchfleet:{stalled}:begun", string(o.ID)).Val() == "" {
		if t.Context().Err() != nil {
			t.Fatal("never begun")
		}
	}
	proxy.Mute(false)
	if d := <-begun; d.State != ledger.BatchOpen || d.Begun != 1 {
		t.Errorf("begin = %s, %d begun; want it open and begun once", d.State, d.Begun)
	}
}

func TestADeliveryHearsForHowLongCareIsTakenOfItsHost(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job, host = tasks.JobID("careful"), "what is known of the host"
		l, o := newJob(t, rdb, job), offer(job, 1)
		accept(t, l, job, o)
		begin := func(token string) time.Duration {
			t.Helper()
			d, err := l.Begin(t.Context(), ledger.Start{Job: job, Batch: o.ID, Token: token, Host: host})
			if err != nil {
				t.Fatal(err)
			}
			return d.Care
		}
		if got := begin("a"); got != 0 {
			t.Errorf("care is taken for %s of a host that nothing is known of", got)
		}
		for until, want := range map[time.Duration]time.Duration{time.Minute: time.Minute, -time.Minute: 0} {
			if err := rdb.HSet(t.Context(), host, "care", time.Now().Add(until).UnixMicro()).Err(); err != nil {
				t.Fatal(err)
			}
			if got := begin("b"); (got - want).Abs() > time.Second {
				t.Errorf("care is taken for %s, want %s", got, want)
			}
		}
	})
}
