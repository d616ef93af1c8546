package metrics

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// gather returns every sample as name{value} → number; histograms give their count.
func gather(t *testing.T, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			name := family.GetName()
			for _, label := range metric.GetLabel() {
				name += "{" + label.GetValue() + "}"
			}
			got[name] = metric.GetCounter().GetValue() + metric.GetGauge().GetValue() +
				float64(metric.GetHistogram().GetSampleCount())
		}
	}
	return got
}

func TestEveryMethodCountsItsOwn(t *testing.T) {
	registry := prometheus.NewRegistry()
	use(New(registry))
	want := map[string]float64{
		"fetchfleet_requests_finished_total{ok}":  1,
		"fetchfleet_errors_total{timeout}":        1,
		"fetchfleet_batches_total{done}":          1,
		"fetchfleet_deferrals_total{in_line}":     1,
		"fetchfleet_body_bytes_total":             2048,
		"fetchfleet_exchange_seconds":             1,
		"fetchfleet_commit_seconds":               1,
		"fetchfleet_finish_seconds":               1,
		"fetchfleet_requests_in_flight":           2,
		"fetchfleet_visits_active":                1,
		"fetchfleet_redis_up":                     1,
		"fetchfleet_store_up":                     0,
		"fetchfleet_outbox_swept_total":           3,
		"fetchfleet_host_calls_total":             1,
		"fetchfleet_dead_batches_recovered_total": 4,
	}
	if diff := cmp.Diff(want, gather(t, registry)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}

// use calls every method.
func use(m *Metrics) {
	m.Finished("ok")
	m.Failed("timeout")
	m.Batch("done")
	m.Deferred("in_line")
	m.Bytes(2048)
	m.Exchanged(time.Second)
	m.Committed(time.Millisecond)
	m.FinishedBatch(time.Millisecond)
	m.InFlight(+3)
	m.InFlight(-1)
	m.Visits(+1)
	m.RedisUp(true)
	m.StoreUp(true)
	m.StoreUp(false)
	m.OutboxSwept(3)
	m.HostCall()
	m.DeadBatchesRecovered(4)
}

func TestNilAndUnregisteredMetricsCountNothingAndDoNotFail(t *testing.T) {
	use(nil)
	use(New(nil))
}

func TestLabelsStayBounded(t *testing.T) {
	registry := prometheus.NewRegistry()
	m := New(registry)
	for i := range 1000 {
		m.Failed(fmt.Sprintf("class_%d", i))
	}
	m.Failed("https://ann:secret@host/")
	got := gather(t, registry)
	classes := 0
	for name := range got {
		if strings.HasPrefix(name, "fetchfleet_errors_total") {
			classes++
		}
	}
	if classes != mostValues+1 {
		t.Errorf("1001 classes made %d samples, want %d and one for the others", classes, mostValues)
	}
	if n := got["fetchfleet_errors_total{other}"]; n != 1001-mostValues {
		t.Errorf("other = %v, want %d", n, 1001-mostValues)
	}
}

func BenchmarkFinished(b *testing.B) {
	m := New(prometheus.NewRegistry())
	b.ReportAllocs()
	for b.Loop() {
		m.Finished("ok")
	}
}
