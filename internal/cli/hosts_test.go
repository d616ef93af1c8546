package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
)

func TestHostFactsSayWhatHappenedAndNothingElse(t *testing.T) {
	at := time.Date(2026, 11, 20, 14, 30, 5, 0, time.UTC)
	requests, rate, seldom := int64(1), 0.1, 0.02
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
		{"a host that is asked seldom", hosts.Report{Requests: &requests, MaxRate: &seldom, State: hosts.HostFree,
			Limits: hosts.LimitsReport{Rate: 0.02, Burst: 1, Pace: 1}, Robots: hosts.RobotsReport{Status: hosts.RobotsNone}},
			"1 request, at most 0.02 a second|limits 0.02 a second, burst 1|robots.txt there is none|now free"},
		{"a host that is slowed and has no limits", hosts.Report{State: hosts.HostFree,
			Limits: hosts.LimitsReport{Pace: 0.25}, Robots: hosts.RobotsReport{Status: hosts.RobotsNone}},
			"requests not counted (no limits)|limits none, slowed to 0.25 of any rate|robots.txt there is none|now free"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := strings.Join(hostFacts(&tt.r), "|"); got != tt.want {
				t.Errorf("facts\n%s\nwant\n%s", got, tt.want)
			}
		})
	}
}

func TestAHostIsFoundHoweverItIsNamed(t *testing.T) {
	for given, want := range map[string][]string{
		"example.com":                   {"example.com"},
		"EXAMPLE.com:8080":              {"example.com:8080"},
		"example.com:80":                {"example.com"},
		"example.com:443":               {"example.com:443", "example.com"}, // the first is http://example.com:443/
		"example.com.":                  {"example.com.", "example.com"},
		"example.com.:8080":             {"example.com.:8080", "example.com:8080"},
		"Bücher.example":                {"xn--bcher-kva.example"},
		"[::1]:8080":                    {"[::1]:8080"},
		"HTTP://127.0.0.1:18807/":       {"127.0.0.1:18807"},
		"https://Example.com:443/a?b#c": {"example.com"},
		"http://example.com:443/":       {"example.com:443"},
		"":                              nil, "a b": nil, "ftp://example.com/": nil, "http://me:hunter2@x.test/": nil, "example.com/a": nil, "user@example.com": nil, "::1": nil,
	} {
		got, err := spellings(given)
		if diff := cmp.Diff(want, got); diff != "" || (err == nil) != (want != nil) {
			t.Errorf("%q: %v (-want +got):\n%s", given, err, diff)
		}
		if err != nil && (!strings.Contains(err.Error(), "a host like example.com or example.com:8080") || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%q: %v", given, err)
		}
	}
}
