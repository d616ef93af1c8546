package ledger_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

func cookie(domain, field, value string, set, expires int64) ledger.JarCookie {
	json := fmt.Sprintf(`{"v":%q,"t":%d`, value, set)
	if expires != 0 {
		json += fmt.Sprintf(`,"e":%d`, expires)
	}
	return ledger.JarCookie{Domain: domain, Field: field, JSON: []byte(json + "}")}
}

func TestOfTwoValuesOfACookieTheOneSetLaterStays(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("cookies")
		l := newJob(t, rdb, job)
		now := time.Now().UnixMilli()
		for _, visit := range [][]ledger.JarCookie{
			{cookie("a.example", "a", "new", now, 0), cookie("example", "b", "first", now, 0)},
			{cookie("a.example", "a", "late", now-1, 0), cookie("example", "b", "second", now+1, 0)},
		} {
			if err := l.MergeJars(t.Context(), job, 64, visit); err != nil {
				t.Fatal(err)
			}
		}
		got, err := l.Jars(t.Context(), job, []string{"a.example", "example", "other"})
		want := []string{string(cookie("", "", "new", now, 0).JSON), string(cookie("", "", "second", now+1, 0).JSON)}
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%v\n%s", err, diff)
		}
		if err := l.ForgetJars(t.Context(), job); err != nil {
			t.Fatal(err)
		}
		left, err := rdb.Keys(t.Context(), "*jar*").Result()
		if len(left) != 0 || err != nil {
			t.Errorf("left %v, %v", left, err)
		}
	})
}

// A worker whose visit lasted longer would else bring back what the server has removed meanwhile.
func TestACookieThatWasRemovedIsNotBroughtBackByAnEarlierValue(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("cookies")
		l := newJob(t, rdb, job)
		now := time.Now().UnixMilli()
		for _, c := range []ledger.JarCookie{cookie("h", "k", "", now, now), cookie("h", "k", "old", now-1000, 0)} {
			if err := l.MergeJars(t.Context(), job, 64, []ledger.JarCookie{c}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := l.Jars(t.Context(), job, []string{"h"})
		if len(got) != 1 || strings.Contains(got[0], "old") || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestAJarForgetsWhatExpiredAndItsOldest(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		const job = tasks.JobID("cookies")
		l := newJob(t, rdb, job)
		now := time.Now().UnixMilli()
		cookies := []ledger.JarCookie{cookie("h", "gone", "gone", now-3_600_000, now-3_600_000)}
		for i := range 5 {
			cookies = append(cookies, cookie("h", fmt.Sprint(i), fmt.Sprint("v", i), now+int64(i), 0))
		}
		if err := l.MergeJars(t.Context(), job, 3, cookies); err != nil {
			t.Fatal(err)
		}
		got, err := l.Jars(t.Context(), job, []string{"h"})
		text := strings.Join(got, " ")
		stays := slices.DeleteFunc([]string{"v4", "v3", "v2"}, func(v string) bool { return strings.Contains(text, v) })
		if len(got) != 3 || len(stays) != 0 || err != nil {
			t.Errorf("%v, %v", got, err)
		}
	})
}

func TestNothingIsKeptOfAJobThatIsNotHere(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		l := ledger.New(rdb)
		if err := l.MergeJars(t.Context(), "none", 64, []ledger.JarCookie{cookie("h", "k", "v", 1, 0)}); err != nil {
			t.Fatal(err)
		}
		if keys, err := rdb.Keys(t.Context(), "*").Result(); len(keys) != 0 || err != nil {
			t.Errorf("%v, %v", keys, err)
		}
	})
}
