package asynqkeys_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks/asynqkeys"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

var callScript = redis.NewScript(asynqkeys.CallLua + `return asynq_call(ARGV[1], ARGV[2], 1)`)

// TestACallBringsAPendingTaskToTheHead has a backlog of tasks, of which the first is taken first.
func TestACallBringsAPendingTaskToTheHead(t *testing.T) {
	for _, tt := range []struct {
		name          string
		backlog, call int
		moves         bool
	}{
		{"from the end of a short backlog", 20, 19, true},
		{"from behind the first few", 20, 8, true},
		{"not from among the first few, where it will be taken soon", 20, 7, false},
		{"not the first", 1, 0, false},
		{"from near the head of a long backlog", 2000, 499, true},
		{"from the end of a long backlog, where those are that came back last", 2000, 1999, true},
		{"not from the middle of a long backlog, which is not searched", 2000, 1000, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
				ctx, prefix := t.Context(), "asynq:{"+queue+"}:"
				var want []string
				pipe := rdb.Pipeline()
				for i := range tt.backlog {
					id := fmt.Sprint("task", i)
					want = append(want, id)
					pipe.HSet(ctx, prefix+"t:"+id, "state", "pending")
					pipe.LPush(ctx, prefix+"pending", id)
				}
				if _, err := pipe.Exec(ctx); err != nil {
					t.Fatal(err)
				}
				called := want[tt.call]
				if tt.moves {
					want = slices.Insert(slices.Delete(want, tt.call, tt.call+1), 0, called)
				}
				for range 2 { // a call may come twice
					if got, err := callScript.Run(ctx, rdb, nil, queue, called).Text(); err != nil || got != "pending" {
						t.Fatalf("found %q, %v; want pending", got, err)
					}
				}
				got := rdb.LRange(ctx, prefix+"pending", 0, -1).Val()
				slices.Reverse(got)
				if !slices.Equal(got, want) {
					t.Errorf("%s stands at %d of %d, want %d of %d", called, slices.Index(got, called), len(got), slices.Index(want, called), len(want))
				}
			})
		})
	}
}
