package metrics

import "github.com/prometheus/client_golang/prometheus"

// Connections are the figures of a worker's connections, as of one moment.
type Connections struct {
	Open, Idle, Waiting, ProxiesOut   float64
	Opened, Reused, DialsFailed       float64
	HandshakesFull, HandshakesResumed float64
	Waits, WaitSeconds                float64
	DNSHits, DNSMisses, DNSNegative   float64
}

// connectionFigure is one metric of Connections.
type connectionFigure struct {
	desc  *prometheus.Desc
	kind  prometheus.ValueType
	value func(*Connections) float64
	label []string // the value of the label, if it has one
}

// connections reads all figures at once when they are asked for.
type connections struct {
	read    func() Connections
	figures []connectionFigure
}

// ObserveConnections registers figures that read gives out whenever they are asked for; with a nil reg it does nothing.
func ObserveConnections(reg prometheus.Registerer, read func() Connections) {
	if reg != nil {
		reg.MustRegister(&connections{read: read, figures: connectionFigures()})
	}
}

func connectionFigures() []connectionFigure {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(prometheus.BuildFQName(namespace, "", name), help, labels, nil)
	}
	gauge := func(name, help string, value func(*Connections) float64) connectionFigure {
		return connectionFigure{desc(name, help), prometheus.GaugeValue, value, nil}
	}
	counter := func(name, help string, value func(*Connections) float64) connectionFigure {
		return connectionFigure{desc(name, help), prometheus.CounterValue, value, nil}
	}
	handshakes := desc("tls_handshakes_total", "TLS handshakes, by kind: full or resumed.", "kind")
	lookups := desc("dns_lookups_total", "Names looked up, by result: hit (from memory), miss (asked for), negative (either of them, and not there).", "result")
	labelled := func(d *prometheus.Desc, label string, value func(*Connections) float64) connectionFigure {
		return connectionFigure{d, prometheus.CounterValue, value, []string{label}}
	}
	return []connectionFigure{
		gauge("connections_open", "Connections to hosts and proxies.", func(c *Connections) float64 { return c.Open }),
		gauge("connections_idle", "Those of them that no request uses.", func(c *Connections) float64 { return c.Idle }),
		gauge("connections_waiting", "Requests that wait for a connection, as their number is limited.", func(c *Connections) float64 { return c.Waiting }),
		gauge("proxies_out", "Proxies that are left alone, as they failed.", func(c *Connections) float64 { return c.ProxiesOut }),
		counter("connections_opened_total", "Connections made.", func(c *Connections) float64 { return c.Opened }),
		counter("connections_reused_total", "Requests that got a connection made before.", func(c *Connections) float64 { return c.Reused }),
		counter("dials_failed_total", "Connections that could not be made.", func(c *Connections) float64 { return c.DialsFailed }),
		counter("connection_waits_total", "Waits for a connection, as their number is limited.", func(c *Connections) float64 { return c.Waits }),
		counter("connection_wait_seconds_total", "Time spent in those waits.", func(c *Connections) float64 { return c.WaitSeconds }),
		labelled(handshakes, "full", func(c *Connections) float64 { return c.HandshakesFull }),
		labelled(handshakes, "resumed", func(c *Connections) float64 { return c.HandshakesResumed }),
		labelled(lookups, "hit", func(c *Connections) float64 { return c.DNSHits }),
		labelled(lookups, "miss", func(c *Connections) float64 { return c.DNSMisses }),
		labelled(lookups, "negative", func(c *Connections) float64 { return c.DNSNegative }),
	}
}

// Describe implements prometheus.Collector.
func (c *connections) Describe(to chan<- *prometheus.Desc) {
	for _, f := range c.figures {
		to <- f.desc
	}
}

// Collect implements prometheus.Collector.
func (c *connections) Collect(to chan<- prometheus.Metric) {
	now := c.read()
	for _, f := range c.figures {
		to <- prometheus.MustNewConstMetric(f.desc, f.kind, f.value(&now), f.label...)
	}
}
