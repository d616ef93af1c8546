package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
)

func TestHostFactsSayWhatHappenedAndNothingElse(t *testing.T) {
	at := time.Date(2026, 11, 20, 14, 30, 5, 0, time.UTC)
	requests, rate := int64(1), 0.1
	for _, tt := range []struct {
		name string
		r    hosts.Report
		want string
	}{
		{"a host of which next to nothing is known", hosts.Report{State: hosts.HostFree, Robots: hosts.RobotsReport{Status: hosts.RobotsUnknown}},
			"requests not counted (no limits)|limits none|robots.txt not asked for|now free"},
		{"one of everything", hosts.Report{
			Requests: &requests, MaxRate: &rate, Waits: 1, Waited: 1500, WaitedMost: 1500,
			Robots:        hosts.RobotsReport{Status: hosts.RobotsRules, Since: &at, Fetches: 1, Disallowed: 1},
			RetryAfterMet: 1, RetryAfterKept: 20_000, RetryAfterLongest: 20_000, Overloads: 1, NoAnswer: 1, CircuitOpened: 1,
			Limits: hosts.LimitsReport{Rate: 0.5, Burst: 1, Conns: 1, Pace: 0.25}, State: hosts.HostCooling, Until: &at, Visits: 1, InLine: 2,
		}, "1 request, at most 0.1 a second|limits 0.5 a second, burst 1, 1 in service, slowed to 0.25 of that|" +
			"batches in line 1 time, 1.5s in all, 1.5s at most|" +
			"robots.txt obeyed (2026-11-20T14:30:05Z), fetched 1 time, 1 request not sent for it|" +
			"Retry-After met 1 time, kept for 20s in all, 20s at most|1 answer 429 or 503 without Retry-After|" +
			"1 request without an answer|set aside 1 time|" +
			"now cooling until 2026-11-20T14:30:05Z, visited by 1 batch, in line: 2 batches"},
		{"a host that is visited", hosts.Report{State: hosts.HostVisited, Visits: 2, Robots: hosts.RobotsReport{Status: "known"}},
			"requests not counted (no limits)|limits none|robots.txt known|now visited by 2 batches"},
		{"a host in trouble", hosts.Report{State: hosts.HostCircuitOpen, Until: &at, Robots: hosts.RobotsReport{Status: hosts.RobotsNoAnswer}},
			"requests not counted (no limits)|limits none|robots.txt no answer|now circuit open until 2026-11-20T14:30:05Z"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(hostFacts(&tt.r), "|"); got != tt.want {
				t.Errorf("facts\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}
