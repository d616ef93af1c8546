// Package metrics is what a worker counts. Names and labels are a public contract: they are only added to.
//
// It promises that label values are bounded words: never a URL, never a host, never a job. A nil *Metrics counts
// nothing and is ready for use.
package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Metrics are the figures of one worker. Its methods are cheap and may be called from many goroutines.
type Metrics struct {
	finished, failed, batches, deferred *family

	bytes, swept, recovered, hostCalls prometheus.Counter
	exchange, commit, finish           prometheus.Histogram
	inFlight, visits, redisUp, storeUp prometheus.Gauge
}

// New makes the figures and registers them with reg; nil registers them nowhere.
func New(reg prometheus.Registerer) *Metrics {
	r := registrar{to: reg}
	return &Metrics{
		finished:  r.family("requests_finished_total", "Requests that ended, by outcome.", "outcome"),
		failed:    r.family("errors_total", "Requests that ended other than ok, by error class.", "class"),
		batches:   r.family("batches_total", "Deliveries of batches, by result.", "result"),
		deferred:  r.family("deferrals_total", "Batches given back without being fetched, by reason.", "reason"),
		bytes:     r.counter("body_bytes_total", "Decoded bytes of bodies stored."),
		swept:     r.counter("outbox_swept_total", "Batches handed to asynq by a sweep, their maker having died."),
		recovered: r.counter("dead_batches_recovered_total", "Batches of dead workers put back."),
		hostCalls: r.counter("host_calls_total", "Calls to Redis about limits of hosts."),
		exchange:  r.histogram("exchange_seconds", "Time of a request's last exchange, whole.", prometheus.ExponentialBuckets(.005, 2.5, 11)),
		commit:    r.histogram("commit_seconds", "Time to commit a unit.", prometheus.ExponentialBuckets(.001, 3, 10)),
		finish:    r.histogram("finish_seconds", "Time to finish a batch in the ledger.", prometheus.ExponentialBuckets(.0005, 3, 10)),
		inFlight:  r.gauge("requests_in_flight", "Requests under way."),
		visits:    r.gauge("visits_active", "Batches being fetched."),
		redisUp:   r.gauge("redis_up", "1 while Redis answers."),
		storeUp:   r.gauge("store_up", "1 while the store takes units."),
	}
}

// Finished counts a request that ended with an outcome.
func (m *Metrics) Finished(outcome string) {
	if m != nil {
		m.finished.counter(outcome).Inc()
	}
}

// Failed counts a request that ended other than ok, by its error class.
func (m *Metrics) Failed(class string) {
	if m != nil {
		m.failed.counter(class).Inc()
	}
}

// Batch counts the end of a delivery: done, retry, archived, deferred or interrupted.
func (m *Metrics) Batch(result string) {
	if m != nil {
		m.batches.counter(result).Inc()
	}
}

// Deferred counts a batch given back without being fetched. reason is one of a few fixed words.
func (m *Metrics) Deferred(reason string) {
	if m != nil {
		m.deferred.counter(reason).Inc()
	}
}

// Bytes counts decoded bytes stored.
func (m *Metrics) Bytes(n int64) {
	if m != nil {
		m.bytes.Add(float64(n))
	}
}

// Exchanged observes the time of an exchange.
func (m *Metrics) Exchanged(d time.Duration) {
	if m != nil {
		m.exchange.Observe(d.Seconds())
	}
}

// Committed observes how long a unit took to commit.
func (m *Metrics) Committed(d time.Duration) {
	if m != nil {
		m.commit.Observe(d.Seconds())
	}
}

// FinishedBatch observes how long the ledger took to finish a batch.
func (m *Metrics) FinishedBatch(d time.Duration) {
	if m != nil {
		m.finish.Observe(d.Seconds())
	}
}

// InFlight changes the number of requests under way.
func (m *Metrics) InFlight(by int) {
	if m != nil {
		m.inFlight.Add(float64(by))
	}
}

// Visits changes the number of batches being fetched.
func (m *Metrics) Visits(by int) {
	if m != nil {
		m.visits.Add(float64(by))
	}
}

// RedisUp notes whether Redis answers.
func (m *Metrics) RedisUp(up bool) {
	if m != nil {
		set(m.redisUp, up)
	}
}

// StoreUp notes whether the store takes units.
func (m *Metrics) StoreUp(up bool) {
	if m != nil {
		set(m.storeUp, up)
	}
}

// OutboxSwept counts batches handed to asynq by a sweep of an outbox.
func (m *Metrics) OutboxSwept(n int) {
	if m != nil {
		m.swept.Add(float64(n))
	}
}

// DeadBatchesRecovered counts batches of dead workers that were put back.
func (m *Metrics) DeadBatchesRecovered(n int) {
	if m != nil {
		m.recovered.Add(float64(n))
	}
}

// HostCall counts a call to Redis about limits of hosts.
func (m *Metrics) HostCall() {
	if m != nil {
		m.hostCalls.Inc()
	}
}

func set(g prometheus.Gauge, up bool) {
	if up {
		g.Set(1)
		return
	}
	g.Set(0)
}
