package ledger_test

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/embedded"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
	"github.com/fetchfleet/fetchfleet/internal/tasks/redisconn"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// onBoth runs a test on a real Redis and on the embedded one: what holds on the one has to hold on the other.
func onBoth(t *testing.T, test func(t *testing.T, rdb redis.UniversalClient)) {
	t.Run("redis", func(t *testing.T) { test(t, dial(t, redistest.Start(t).URL())) })
	t.Run("embedded", func(t *testing.T) { test(t, embeddedRedis(t)) })
}

func embeddedRedis(t *testing.T) redis.UniversalClient {
	t.Helper()
	r, err := embedded.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(r.Close)
	return dial(t, r.URL())
}

func dial(t *testing.T, url string) redis.UniversalClient {
	t.Helper()
	rdb, err := redisconn.Open(url, redisconn.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rdb.Close() })
	return rdb
}

// newJob makes a job with the default spec.
func newJob(t testing.TB, rdb redis.UniversalClient, job tasks.JobID) *ledger.Ledger {
	t.Helper()
	l := ledger.New(rdb)
	if _, fresh, err := l.Create(t.Context(), job, tasks.DefaultSpec(), nil); err != nil || !fresh {
		t.Fatalf("create %s: fresh %v, %v", job, fresh, err)
	}
	return l
}

// requestID is the id of the n-th request of a test.
func requestID(job tasks.JobID, n int) tasks.RequestID {
	return tasks.NewRequestID(job, "GET", fmt.Sprintf("http://h/%d", n), "", nil)
}

// hashes are the seen hashes of numbered requests.
func hashes(job tasks.JobID, numbers ...int) []int64 {
	out := make([]int64, len(numbers))
	for i, n := range numbers {
		out[i], _ = requestID(job, n).SeenHash()
	}
	return out
}

// offer is a batch of numbered requests.
func offer(job tasks.JobID, numbers ...int) ledger.Offer {
	h := hashes(job, numbers...)
	return ledger.Offer{ID: tasks.ListedBatchID(job, h), Payload: fmt.Appendf(nil, "%v", numbers), Hashes: h}
}

func accept(t testing.TB, l *ledger.Ledger, job tasks.JobID, offers ...ledger.Offer) []ledger.Answer {
	t.Helper()
	answers, err := l.Accept(t.Context(), job, offers)
	if err != nil {
		t.Fatal(err)
	}
	return answers
}

func status(t testing.TB, l *ledger.Ledger, job tasks.JobID) ledger.Status {
	t.Helper()
	s, err := l.Status(t.Context(), job)
	if err != nil {
		t.Fatal(err)
	}
	return s
}
