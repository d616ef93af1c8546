package ledger_test

import (
	"fmt"
	"testing"

	"github.com/redis/go-redis/v9"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

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
