package hosts_test

import (
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// cared is for how long jobs without limits are to ask at the host, as whoever reads the field "care" hears it.
func cared(t *testing.T, rdb redis.UniversalClient) time.Duration {
	t.Helper()
	us, err := rdb.HGet(t.Context(), hosts.StateKey(host), "care").Int64()
	if err == redis.Nil {
		return 0
	}
	if err != nil {
		t.Fatal(err)
	}
	return time.Until(time.UnixMicro(us))
}

func TestCareIsTakenWhereAnotherJobHasLimitsOrThereWasTrouble(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(*rig)
		want bool
	}{
		{"nobody has limits and nothing went wrong", func(r *rig) {
			scout := ask("a", hosts.Limits{}, needsRobots)
			r.mustEnter(scout)
			if _, err := r.source.Robots(r.t.Context(), scout, true, time.Hour, "1 all -\n"); err != nil {
				r.t.Fatal(err)
			}
			r.leave(scout, 1)
		}, false},
		{"another job has a rate", func(r *rig) { r.mustEnter(ask("a", hosts.Limits{Rate: 5})) }, true},
		{"another job has a number of connections", func(r *rig) { r.mustEnter(ask("a", twoPlaces)) }, true},
		{"an exchange brought no answer", func(r *rig) { r.learn(hosts.Failed, 0) }, true},
		{"it asked for a pause", func(r *rig) { r.learn(hosts.Asked, time.Minute) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
				tt.do(redisRig(t, rdb))
				if got := cared(t, rdb); got > 0 != tt.want {
					t.Errorf("care is taken for %s, want any: %v", got, tt.want)
				}
			})
		})
	}
}

func TestFleetWithoutLimitsAsksOnlyWhereCareIsTaken(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		r, calls := redisRig(t, rdb), 0
		fleet := hosts.NewFleet(hosts.NewRedis(rdb, asynqkeys.CallLua, func() { calls++ }))
		visit := func(batch string) error {
			a := ask(batch, hosts.Limits{}, ofJob("unlimited"))
			a.Care = cared(t, rdb)
			r.queues.put(a.Queue, a.Batch, "active")
			v, err := fleet.Enter(t.Context(), a)
			if err == nil {
				v.Leave()
			}
			return err
		}
		if err := visit("a"); err != nil || calls != 0 {
			t.Errorf("at a host without limits: %v after %d calls, want none", err, calls)
		}
		r.mustEnter(ask("b", hosts.Limits{Conns: 1}, ofJob("limited")))
		if busy, ok := hosts.IsBusy(visit("c")); !ok {
			t.Errorf("where another job holds the only permit: %v, want a place in line", busy)
		}
	})
}

func TestAVisitKnowsWhatTheHostTakesForOtherJobs(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		r := redisRig(t, rdb)
		fleet := hosts.NewFleet(hosts.NewRedis(rdb, asynqkeys.CallLua, nil))
		visit := func(batch string) (during, after int) {
			a := ask(batch, hosts.Limits{}, ofJob("unlimited"))
			a.Care = cared(t, rdb)
			r.queues.put(a.Queue, a.Batch, "active")
			v, err := fleet.Enter(t.Context(), a)
			if err != nil {
				t.Fatal(err)
			}
			during = v.Conns()
			v.Leave()
			return during, v.Conns()
		}
		if during, after := visit("a"); during != 0 || after != 0 {
			t.Errorf("where nobody has limits: %d, then %d, want 0", during, after)
		}
		r.mustEnter(ask("b", hosts.Limits{Conns: 3}, ofJob("limited")))
		if during, after := visit("c"); during != 3 || after != 3 {
			t.Errorf("beside a job with a limit: %d, then %d, want 3", during, after)
		}
	})
}
