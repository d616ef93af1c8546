package metrics

import (
	"sync"

	"github.com/prometheus/client_golang/prometheus"
)

// mostValues is how many values a label may take; whatever comes after them, or is no plain word, counts as other.
const (
	mostValues = 64
	other      = "other"
)

// family is a counter with one label of bounded values.
type family struct {
	vector *prometheus.CounterVec
	known  sync.Map // label value → prometheus.Counter

	mu     sync.Mutex
	values int
}

// counter returns the counter of a label value. The first call for a value is slower than those after it.
func (f *family) counter(value string) prometheus.Counter {
	if known, ok := f.known.Load(value); ok {
		return known.(prometheus.Counter)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if known, ok := f.known.Load(value); ok {
		return known.(prometheus.Counter)
	}
	if f.values >= mostValues || !isWord(value) {
		return f.vector.WithLabelValues(other)
	}
	f.values++
	counter := f.vector.WithLabelValues(value)
	f.known.Store(value, counter)
	return counter
}

// isWord accepts what the vocabulary of the system is made of: a to z, 0 to 9, _ and -, at most 40 of them.
func isWord(s string) bool {
	if s == "" || len(s) > 40 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// namespace is the first word of every metric's name.
const namespace = "fetchfleet"

// registrar makes metrics and registers them where there is a registry.
type registrar struct{ to prometheus.Registerer }

func (r registrar) register(c prometheus.Collector) {
	if r.to != nil {
		r.to.MustRegister(c)
	}
}

func (r registrar) family(name, help, label string) *family {
	vector := prometheus.NewCounterVec(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help}, []string{label})
	r.register(vector)
	return &family{vector: vector}
}

func (r registrar) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: namespace, Name: name, Help: help})
	r.register(c)
	return c
}

func (r registrar) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: namespace, Name: name, Help: help})
	r.register(g)
	return g
}

func (r registrar) histogram(name, help string, buckets []float64) prometheus.Histogram {
	h := prometheus.NewHistogram(prometheus.HistogramOpts{Namespace: namespace, Name: name, Help: help, Buckets: buckets})
	r.register(h)
	return h
}
