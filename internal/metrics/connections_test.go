package metrics

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
)

func TestConnectionsAreReadWhenTheyAreAskedFor(t *testing.T) {
	registry := prometheus.NewRegistry()
	ObserveConnections(nil, nil)
	ObserveConnections(registry, func() Connections {
		return Connections{Open: 1, Idle: 2, Waiting: 3, ProxiesOut: 4, Opened: 5, Reused: 6, DialsFailed: 7, HandshakesFull: 8,
			HandshakesResumed: 9, Waits: 10, WaitSeconds: 11.5, DNSHits: 12, DNSMisses: 13, DNSNegative: 14}
	})
	want := map[string]float64{
		"fetchfleet_connections_open":              1,
		"fetchfleet_connections_idle":              2,
		"fetchfleet_connections_waiting":           3,
		"fetchfleet_proxies_out":                   4,
		"fetchfleet_connections_opened_total":      5,
		"fetchfleet_connections_reused_total":      6,
		"fetchfleet_dials_failed_total":            7,
		"fetchfleet_tls_handshakes_total{full}":    8,
		"fetchfleet_tls_handshakes_total{resumed}": 9,
		"fetchfleet_connection_waits_total":        10,
		"fetchfleet_connection_wait_seconds_total": 11.5,
		"fetchfleet_dns_lookups_total{hit}":        12,
		"fetchfleet_dns_lookups_total{miss}":       13,
		"fetchfleet_dns_lookups_total{negative}":   14,
	}
	if diff := cmp.Diff(want, gather(t, registry)); diff != "" {
		t.Errorf("metrics (-want +got):\n%s", diff)
	}
}
