package hosts_test

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

const reportJob, reportHost = "spring", "example.org"

// reported is a job whose report is looked at.
type reported struct {
	t      *testing.T
	rdb    redis.UniversalClient
	source *hosts.Redis
}

func onReported(t *testing.T, test func(*testing.T, *reported)) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		test(t, &reported{t: t, rdb: rdb, source: hosts.NewRedis(rdb, asynqkeys.CallLua, nil)})
	})
}

// task makes asynq know of a batch: one that asks or visits is active, with a lease, one in line is not.
func (r *reported) task(batch, state string) {
	r.t.Helper()
	pipe := r.rdb.Pipeline()
	pipe.HSet(r.t.Context(), "asynq:{default}:t:"+batch, "state", state)
	pipe.ZAdd(r.t.Context(), "asynq:{default}:lease", redis.Z{Score: float64(time.Now().Add(time.Hour).Unix()), Member: batch})
	if _, err := pipe.Exec(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
}

// ask is what a batch asks.
func (r *reported) ask(batch string, l hosts.Limits) hosts.Ask {
	r.t.Helper()
	r.task(batch, "active")
	return hosts.Ask{Host: reportHost, Batch: batch, Visit: "visit-" + batch, Queue: "default", Priority: 1, Job: reportJob, Want: 1, Limits: l}
}

// joinedEarlier has a batch stand in line for longer than it does.
func (r *reported) joinedEarlier(batch string, by time.Duration) {
	r.t.Helper()
	const waiting = "fetchfleet:hosts:waiting"
	words := strings.Fields(r.rdb.HGet(r.t.Context(), waiting, batch).Val())
	if len(words) < 2 {
		r.t.Fatalf("batch %s is noted as %q, want queue and since when", batch, words)
	}
	words[1] = fmt.Sprint(time.Now().Add(-by).UnixMicro())
	if err := r.rdb.HSet(r.t.Context(), waiting, batch, strings.Join(words, " ")).Err(); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reported) enter(batch string, l hosts.Limits) hosts.Answer {
	r.t.Helper()
	answer, err := r.source.Enter(r.t.Context(), r.ask(batch, l))
	if err != nil {
		r.t.Fatal(err)
	}
	if answer.Line != nil {
		r.task(batch, "pending")
	}
	return answer
}

func (r *reported) leave(batch string, begun ...hosts.Span) {
	r.t.Helper()
	if _, err := r.source.Leave(r.t.Context(), hosts.Ask{Host: reportHost, Visit: "visit-" + batch}, -1, 0, hosts.Times{Begun: begun}, 1); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reported) learn(l hosts.Lesson, pause time.Duration) {
	r.t.Helper()
	if _, err := r.source.Learn(r.t.Context(), hosts.Ask{Host: reportHost, Job: reportJob}, l, pause); err != nil {
		r.t.Fatal(err)
	}
}

func (r *reported) all(o hosts.ReportOptions) (all []hosts.Report) {
	r.t.Helper()
	err := hosts.Reports(r.t.Context(), r.rdb, reportJob, o, func(one *hosts.Report) error {
		all = append(all, *one)
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
	return all
}

func (r *reported) one() hosts.Report {
	r.t.Helper()
	all := r.all(hosts.ReportOptions{Host: reportHost})
	if len(all) != 1 {
		r.t.Fatalf("%d reports of one host", len(all))
	}
	return all[0]
}

func TestReportCountsRequestsInSpansOfTenSeconds(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		limits := hosts.Limits{Rate: 1000, Burst: 2, Conns: 3}
		for _, batch := range []string{"a", "b", "c"} {
			if r.enter(batch, limits).Grant == nil {
				t.Fatalf("batch %s was not let in", batch)
			}
		}
		r.leave("a", hosts.Span{Number: 100, Count: 7}, hosts.Span{Number: 102, Count: 5})
		r.leave("b", hosts.Span{Number: 101, Count: 9}, hosts.Span{Number: 102, Count: 6}) // 11 in span 102, by two visits
		r.leave("c", hosts.Span{Number: 103, Count: 1})
		requests, rate := int64(28), 1.1
		want := hosts.Report{
			Host: reportHost, Requests: &requests, MaxRate: &rate, Robots: hosts.RobotsReport{Status: hosts.RobotsUnknown},
			Limits: hosts.LimitsReport{Rate: 1000, Burst: 2, Conns: 3, Pace: 1}, State: hosts.HostFree,
		}
		if diff := cmp.Diff(want, r.one()); diff != "" {
			t.Errorf("report (-want +got):\n%s", diff)
		}
	})
}

func TestReportRemembersTheGreatestRateHoweverManySpansFollow(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		limits := hosts.Limits{Conns: 1}
		r.enter("a", limits)
		r.leave("a", hosts.Span{Number: 1, Count: 50})
		for i := range 40 {
			batch := fmt.Sprint("b", i)
			r.enter(batch, limits)
			r.leave(batch, hosts.Span{Number: int64(2 + i), Count: 3})
		}
		got := r.one()
		if *got.Requests != 50+3*40 || *got.MaxRate != 5 {
			t.Errorf("%d requests, %v a second at most, want 170 and 5", *got.Requests, *got.MaxRate)
		}
		text, err := r.rdb.HGet(t.Context(), "fetchfleet:hosts:report:spring", reportHost).Result()
		if err != nil || len(text) > 180 {
			t.Errorf("it takes %d bytes (%v):\n%s", len(text), err, text)
		}
	})
}

func TestReportCountsWaits(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		limits := hosts.Limits{Conns: 1}
		r.enter("a", limits)
		for range 2 { // asking twice is one wait
			if r.enter("b", limits).Line == nil {
				t.Fatal("the second batch does not stand in line")
			}
		}
		got := r.one()
		if got.Waits != 1 || got.Waited != 0 || got.State != hosts.HostVisited || got.Visits != 1 || got.InLine != 1 {
			t.Errorf("while it waits: %+v", got)
		}
		r.joinedEarlier("b", 3*time.Second)
		r.leave("a")
		if got := r.one(); got.State != hosts.HostInLine {
			t.Errorf("state %s with nobody there and one in line, want %s", got.State, hosts.HostInLine)
		}
		if r.enter("b", limits).Grant == nil {
			t.Fatal("the second batch is not let in")
		}
		got = r.one()
		if got.Waits != 1 || got.Waited < 3000 || got.Waited > 60_000 || got.WaitedMost != got.Waited || got.InLine != 0 {
			t.Errorf("after it waited for 3 s: %+v", got)
		}
	})
}

func TestReportCountsPausesThatOverlapOnce(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		r.enter("a", hosts.Limits{Rate: 5})
		r.learn(hosts.Asked, 60*time.Second)
		r.learn(hosts.Asked, 90*time.Second)
		r.learn(hosts.Asked, 30*time.Second)
		got := r.one()
		if got.RetryAfterMet != 3 || got.RetryAfterLongest != 90_000 || got.RetryAfterKept < 90_000 || got.RetryAfterKept > 100_000 {
			t.Errorf("met %d, longest %d ms, kept %d ms; want 3, 90000, 90000 and a little", got.RetryAfterMet, got.RetryAfterLongest, got.RetryAfterKept)
		}
		if got.State != hosts.HostCooling || got.Until == nil || time.Until(*got.Until) < time.Minute {
			t.Errorf("state %s until %v", got.State, got.Until)
		}
		if got.Limits.Pace > 0.6 || got.Limits.Pace < 0.5 {
			t.Errorf("pace %v after an overload, want half", got.Limits.Pace)
		}
	})
}

func TestReportCountsTrouble(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		for range 5 {
			r.learn(hosts.Failed, 0)
		}
		got := r.one()
		if got.NoAnswer != 5 || got.CircuitOpened != 1 || got.State != hosts.HostCircuitOpen || got.Until == nil {
			t.Errorf("after five silences: %+v", got)
		}
		r.learn(hosts.Overload, 0)
		if got := r.one(); got.NoAnswer != 5 || got.CircuitOpened != 1 || got.Overloads != 1 {
			t.Errorf("after five silences and an overload: %+v", got)
		}
		if got.Requests != nil || got.MaxRate != nil {
			t.Errorf("requests to a host without limits are said to be counted: %d", *got.Requests)
		}
	})
}

func TestReportTellsOfRobots(t *testing.T) {
	for _, tt := range []struct {
		name  string
		known bool
		text  string
		want  hosts.RobotsStatus
	}{
		{"a file with rules", true, "1763647000000 file -\nUser-agent: *", hosts.RobotsRules},
		{"none, everything is allowed", true, "1763647000000 all -\n", hosts.RobotsNone},
		{"no answer", true, "1763647000000 lost connect_refused\nrefused", hosts.RobotsNoAnswer},
		{"not to be had for now", false, "", hosts.RobotsUnavailable},
		{"written by a later version", true, "1763647000000 maybe -\n", "known"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			onReported(t, func(t *testing.T, r *reported) {
				ask := r.ask("a", hosts.Limits{Rate: 5})
				ask.Robots = true
				if answer, err := r.source.Enter(t.Context(), ask); err != nil || answer.Grant == nil || !answer.Grant.Scout {
					t.Fatalf("no scout: %+v, %v", answer, err)
				}
				if _, err := r.source.Robots(t.Context(), ask, tt.known, time.Minute, tt.text); err != nil {
					t.Fatal(err)
				}
				if _, err := r.source.Sweep(t.Context(), hosts.Refusal{Job: reportJob, Host: reportHost, Count: 12}); err != nil {
					t.Fatal(err)
				}
				got := r.one()
				want := hosts.RobotsReport{Status: tt.want, Fetches: 1, Disallowed: 12, Since: got.Robots.Since}
				if diff := cmp.Diff(want, got.Robots); diff != "" || got.Robots.Since == nil || time.Since(*got.Robots.Since) > time.Minute {
					t.Errorf("robots (-want +got):\n%s", diff)
				}
				if tt.want == hosts.RobotsUnavailable && got.State != hosts.HostRobotsUnavailable {
					t.Errorf("state %s, want %s", got.State, hosts.HostRobotsUnavailable)
				}
			})
		})
	}
}

func TestReportOfAnotherJobTellsOfTheRobotsItWasSpared(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		first := r.ask("a", hosts.Limits{Rate: 1000})
		first.Job, first.Robots = "winter", true
		if _, err := r.source.Enter(t.Context(), first); err != nil {
			t.Fatal(err)
		}
		if _, err := r.source.Robots(t.Context(), first, true, time.Minute, "1 file -\n"); err != nil {
			t.Fatal(err)
		}
		r.enter("b", hosts.Limits{Rate: 1000})
		r.leave("b", hosts.Span{Number: 1, Count: 1})
		if got := r.one().Robots; got.Status != hosts.RobotsRules || got.Fetches != 0 {
			t.Errorf("robots.txt that another job fetched: %+v", got)
		}
	})
}

// TestVisitsAreReportedWithoutACall has the whole of a visit: what it begins is told by the call that ends it.
func TestVisitsAreReportedWithoutACall(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		calls := 0
		fleet := hosts.NewFleet(hosts.NewRedis(r.rdb, asynqkeys.CallLua, func() { calls++ }))
		ask := r.ask("a", hosts.Limits{Rate: 2, Burst: 3})
		ask.Want = 3
		visit, err := fleet.Enter(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			release, err := visit.Permit(t.Context())
			if err != nil {
				t.Fatalf("permit %d: %v", i, err)
			}
			release()
		}
		visit.Leave()
		if got := *r.one().Requests; got != 3 {
			t.Errorf("%d requests, want 3", got)
		}
		if calls != 2 {
			t.Errorf("%d calls for a visit, want 2", calls)
		}
	})
}

func TestVisitsWithoutLimitsAreNotHalfCounted(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		ask := r.ask("a", hosts.Limits{})
		ask.Robots = true // the first visit makes a call for it, those to come do not
		visit, err := hosts.NewFleet(r.source).Enter(t.Context(), ask)
		if err != nil {
			t.Fatal(err)
		}
		release, err := visit.Permit(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		release()
		if err := visit.Robots(t.Context(), true, time.Minute, "1 all -\n"); err != nil {
			t.Fatal(err)
		}
		visit.Leave()
		if got := r.one(); got.Requests != nil || got.Robots.Status != hosts.RobotsNone {
			t.Errorf("report %+v, want no count of requests, and no robots.txt", got)
		}
	})
}

func TestRefusalsAreToldWhenAWorkerStops(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		fleet := hosts.NewFleet(r.source)
		stopped, stop := context.WithCancel(t.Context())
		stop()
		for i := range 1300 {
			fleet.Refused(reportJob, fmt.Sprintf("h%d.example", i), 2)
		}
		fleet.Refused(reportJob, reportHost, 3)
		fleet.Refused(reportJob, reportHost, 4)
		fleet.Run(stopped)
		if got := r.one().Robots.Disallowed; got != 7 {
			t.Errorf("%d requests not allowed, want 7", got)
		}
		if got := len(r.all(hosts.ReportOptions{})); got != 1301 {
			t.Errorf("%d hosts, want 1301", got)
		}
	})
}

func TestReportIsKeptForThirtyDays(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		r.learn(hosts.Overload, 0)
		got, err := r.rdb.TTL(t.Context(), "fetchfleet:hosts:report:spring").Result()
		if want := 30 * 24 * time.Hour; err != nil || got > want || got < want-time.Minute {
			t.Errorf("kept for %v, %v; want %v", got, err, want)
		}
	})
}

func TestReportReadsWhatOlderWorkersWrote(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		if err := r.rdb.HSet(t.Context(), "fetchfleet:hosts:report:spring", reportHost, "5 1 100:3").Err(); err != nil {
			t.Fatal(err)
		}
		if got := r.one(); *got.Requests != 5 || got.Waits != 1 || got.State != hosts.HostFree {
			t.Errorf("report %+v", got)
		}
	})
}

func TestReportOfAHostThatIsNotKnown(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		err := hosts.Reports(t.Context(), r.rdb, reportJob, hosts.ReportOptions{Host: "nowhere"}, nil)
		if !cmp.Equal(err, hosts.ErrNoReport, cmpopts.EquateErrors()) {
			t.Errorf("error %v, want %v", err, hosts.ErrNoReport)
		}
	})
}

// trips counts what goes to Redis: single commands and pipelines.
type trips struct{ single, pipelines int }

func (*trips) DialHook(next redis.DialHook) redis.DialHook { return next }

func (c *trips) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		c.single++
		return next(ctx, cmd)
	}
}

func (c *trips) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if cmds[0].Name() == "time" { // not that which greets a new connection
			c.pipelines++
		}
		return next(ctx, cmds)
	}
}

func TestReportsOfManyHostsTakeThreeCallsForAThousand(t *testing.T) {
	const n = 5500
	onReported(t, func(t *testing.T, r *reported) {
		var fields []any
		for i := range n { // requests, waits, three of no interest, peak: each in an order of its own
			fields = append(fields, fmt.Sprintf("h%04d", i), fmt.Sprintf("%d %d 0 0 %d", 1+i, 1+i*7%n, 1+i*11%(n-1)))
		}
		if err := r.rdb.HSet(t.Context(), "fetchfleet:hosts:report:spring", fields...).Err(); err != nil {
			t.Fatal(err)
		}
		for _, tt := range []struct {
			order hosts.ReportOrder
			by    func(hosts.Report) float64
		}{
			{hosts.AsKept, nil},
			{hosts.ByRequests, func(r hosts.Report) float64 { return float64(*r.Requests) }},
			{hosts.ByRate, func(r hosts.Report) float64 { return *r.MaxRate }},
			{hosts.ByWaits, func(r hosts.Report) float64 { return float64(r.Waits) }},
		} {
			count := &trips{}
			r.rdb.AddHook(count)
			all := r.all(hosts.ReportOptions{Order: tt.order})
			names := map[string]bool{}
			last := math.Inf(1)
			for i, one := range all {
				names[one.Host] = true
				if tt.by == nil {
					continue
				}
				if got := tt.by(one); got > last {
					t.Fatalf("order %q: %v after %v at %d", tt.order, got, last, i)
				} else {
					last = got
				}
			}
			if len(all) != n || len(names) != n {
				t.Errorf("order %q: %d reports of %d hosts, want %d", tt.order, len(all), len(names), n)
			}
			if count.pipelines != n/1000+1 || count.single > 2*(n/1000+1)+2 {
				t.Errorf("order %q: %d pipelines and %d calls for %d hosts", tt.order, count.pipelines, count.single, n)
			}
		}
	})
}

func TestReportsEndWithTheErrorOfTheirReader(t *testing.T) {
	onReported(t, func(t *testing.T, r *reported) {
		r.learn(hosts.Overload, 0)
		full := fmt.Errorf("disk full")
		for _, o := range []hosts.ReportOptions{{}, {Host: reportHost}, {Order: hosts.ByRate}} {
			err := hosts.Reports(t.Context(), r.rdb, reportJob, o, func(*hosts.Report) error { return full })
			if !slices.Contains([]error{full}, err) {
				t.Errorf("%+v: error %v, want %v", o, err, full)
			}
		}
	})
}
