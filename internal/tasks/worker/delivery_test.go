package worker_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

// meddler stands between a worker and Redis: it does what do says with each command.
type meddler struct {
	do func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error
}

func (meddler) DialHook(next redis.DialHook) redis.DialHook { return next }

func (meddler) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return next
}

func (m meddler) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error { return m.do(ctx, cmd, next) }
}

// meddled is a client of the fleet's Redis that a meddler stands before.
func (f *fleet) meddled(do func(context.Context, redis.Cmder, redis.ProcessHook) error) redis.UniversalClient {
	rdb := f.client()
	rdb.AddHook(meddler{do})
	return rdb
}

// isBegin recognises the script that begins a delivery by the eight keys it names.
func isBegin(cmd redis.Cmder) bool {
	args := cmd.Args()
	if len(args) < 6 || !strings.HasPrefix(cmd.Name(), "eval") || args[2] != 8 {
		return false
	}
	key, ok := args[5].(string)
	return ok && strings.HasSuffix(key, ":begun")
}

// A client repeats a command when its reply does not come in time, while Redis may have done it each time.
func TestABeginThatIsRepeatedIsNotTakenForACrash(t *testing.T) {
	f := newFleet(t)
	defer f.start(func(o *worker.Options) {
		o.Redis = f.meddled(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
			if isBegin(cmd) {
				for range 4 {
					_ = next(ctx, cmd)
				}
			}
			return next(ctx, cmd)
		})
	})()
	if r := f.one(fastSpec(), f.origin.URL("/page/1")); r.Outcome != "ok" || r.Attempts != 1 {
		t.Errorf("record %+v, want it fetched at the first attempt", r)
	}
}

func TestDeliveriesOfWorkersWithOneNameAreToldApart(t *testing.T) {
	f := newFleet(t)
	var deliveries []string
	for _, job := range []string{"first", "second"} {
		stop := f.start(func(o *worker.Options) { o.Name = "namesake" })
		f.enqueue(tasks.JobID(job), fastSpec(), f.origin.URL("/page/1"))
		f.await(tasks.JobID(job), within)
		stop()
		for unit, err := range f.store.Units(t.Context(), job) {
			if err != nil {
				t.Fatal(err)
			}
			a, err := f.store.Account(t.Context(), job, unit)
			if err != nil || a.Worker != "namesake" {
				t.Fatalf("account %+v, %v", a, err)
			}
			deliveries = append(deliveries, a.Delivery)
		}
	}
	if len(deliveries) != 2 || slices.Contains(deliveries, "") || deliveries[0] == deliveries[1] {
		t.Errorf("deliveries %q, want two that differ", deliveries)
	}
}

// A delivery that went wrong in its own process did not vanish: it counts towards no crash.
func TestWhateverGoesWrongAfterItBeganABatchIsGivenBack(t *testing.T) {
	refused := errors.New("refused by the test")
	for name, fails := range map[string]func(redis.Cmder) bool{
		"the store cannot be noted":  func(cmd redis.Cmder) bool { return cmd.Name() == "hsetnx" },
		"the begin has no answer":    isBegin,
		"the noted store is no more": func(cmd redis.Cmder) bool { return cmd.Name() == "hget" && cmd.Args()[2] == "store" },
	} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t)
			var failed atomic.Bool
			f.enqueue("wrong", fastSpec(), f.origin.URL("/page/1"))
			defer f.start(func(o *worker.Options) {
				o.Redis = f.meddled(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					err := next(ctx, cmd)
					if fails(cmd) && err == nil && failed.CompareAndSwap(false, true) {
						cmd.SetErr(refused)
						return refused
					}
					return err
				})
			})()
			info := f.awaitOne(asynq.TaskStateRetry)
			if begun, err := f.rdb.HGetAll(t.Context(), "fetchfleet:{wrong}:begun").Result(); err != nil || len(begun) != 0 {
				t.Errorf("begun %v, %v; want the batch given back", begun, err)
			}
			if !strings.Contains(info.LastErr, refused.Error()) {
				t.Errorf("shown as %q", info.LastErr)
			}
		})
	}
}

// isLookUp recognises asynq's script that tells of one task: of all that name one key, it is the one that names a task's.
func isLookUp(cmd redis.Cmder) bool {
	args := cmd.Args()
	return len(args) > 3 && strings.HasPrefix(cmd.Name(), "eval") && args[2] == 1 && strings.Contains(fmt.Sprint(args[3]), "}:t:")
}

// isReopen recognises the script that opens an archived batch again, by its keys of archived batches and of bases.
func isReopen(cmd redis.Cmder) bool {
	args := cmd.Args()
	return len(args) > 8 && strings.HasPrefix(cmd.Name(), "eval") && args[2] == 6 && strings.HasSuffix(fmt.Sprint(args[6]), ":archived")
}

// Run is not forgotten where the worker that takes it meets trouble: what tells a task that was Run from one that its
// worker did not get to archive is the error it stands with.
func TestRunIsNotLostWhenRedisFailsMeanwhile(t *testing.T) {
	for name, fails := range map[string]func(redis.Cmder) bool{
		"its task cannot be looked up": isLookUp,
		"it cannot begin":              isBegin,
		"it cannot be reopened":        isReopen,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFleet(t)
			healthy := make(chan struct{})
			f.origin.Handle("/ill", func(w http.ResponseWriter, r *http.Request) {
				select {
				case <-healthy:
				default:
					w.WriteHeader(http.StatusInternalServerError)
				}
			})
			refused := errors.New("refused by the test")
			var left atomic.Int32
			defer f.start(func(o *worker.Options) {
				o.Redis = f.meddled(func(ctx context.Context, cmd redis.Cmder, next redis.ProcessHook) error {
					if fails(cmd) && left.Add(-1) >= 0 {
						cmd.SetErr(refused)
						return refused
					}
					return next(ctx, cmd)
				})
			})()
			spec := fastSpec()
			spec.Retries = 1
			f.enqueue("replay", spec, f.origin.URL("/ill"))
			info := f.awaitOne(asynq.TaskStateArchived)
			close(healthy)
			left.Store(1)
			if err := asynq.NewInspectorFromRedisClient(f.rdb).RunTask("default", info.ID); err != nil {
				t.Fatal(err)
			}
			for deadline := time.Now().Add(within); ; <-time.After(20 * time.Millisecond) {
				s := f.await("replay", within)
				if s.OK == 1 && s.Recorded() == 1 {
					break
				}
				if archived := f.list(asynq.TaskStateArchived); len(archived) == 1 && left.Load() < 0 {
					t.Fatalf("archived again as %q without having been taken", archived[0].LastErr)
				}
				if time.Now().After(deadline) {
					t.Fatalf("status %+v", s)
				}
			}
			if left.Load() >= 0 {
				t.Error("nothing was refused")
			}
		})
	}
}
