package worker

import (
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/hosts/robots"
	"github.com/fetchfleet/fetchfleet/internal/hosts/rules"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

func TestLimitsAreTheJobsTightenedByCrawlDelayUnlessARuleNamesThem(t *testing.T) {
	rate, none, conns, burst := 2.0, 0.0, 9, 6
	for _, tt := range []struct {
		name  string
		rule  rules.Rule
		delay string
		want  hosts.Limits
	}{
		{"the job's", rules.Rule{}, "", hosts.Limits{Rate: 5, Burst: 3, Conns: 4}},
		{"a longer Crawl-delay", rules.Rule{}, "10", hosts.Limits{Rate: 0.1, Burst: 1, Conns: 4}},
		{"a shorter one takes the burst", rules.Rule{}, "0.1", hosts.Limits{Rate: 5, Burst: 1, Conns: 4}},
		{"a rule's rate", rules.Rule{Rate: &rate}, "10", hosts.Limits{Rate: 2, Burst: 3, Conns: 4}},
		{"a rule's rate without a limit", rules.Rule{Rate: &none}, "10", hosts.Limits{Rate: 0, Burst: 3, Conns: 4}},
		{"a rule's delay", rules.Rule{Delay: 2 * time.Second}, "10", hosts.Limits{Rate: 0.5, Burst: 1, Conns: 4}},
		{"a rule of other things leaves it", rules.Rule{Conns: &conns, Burst: &burst}, "10", hosts.Limits{Rate: 0.1, Burst: 1, Conns: 9}},
	} {
		d := &delivery{spec: tasks.Spec{HostRate: 5, HostBurst: 3, HostConns: 4}, manners: manners{rule: tt.rule}}
		if tt.delay != "" {
			d.manners.robots = robots.Parse([]byte("User-agent: *\nCrawl-delay: " + tt.delay)).For("fetchfleet")
		}
		if got := d.limits(); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.name, got, tt.want)
		}
	}
}

func TestOnlyAnAnswerSaysThatAHostIsWellAndOnlySilenceThatItIsNot(t *testing.T) {
	want := map[fetch.Class]hosts.Lesson{
		fetch.ConnectRefused: hosts.Failed, fetch.ConnectUnreachable: hosts.Failed, fetch.ConnectTimeout: hosts.Failed,
		fetch.TLSTimeout: hosts.Failed, fetch.HeaderTimeout: hosts.Failed, fetch.Reset: hosts.Failed,
		fetch.BodyCut: hosts.Well, fetch.HeaderTooLarge: hosts.Well, fetch.BodyTooLarge: hosts.Well, fetch.Decode: hosts.Well,
		fetch.DecodeTooLarge: hosts.Well, fetch.DecodeRatio: hosts.Well, fetch.ContentType: hosts.Well, fetch.RedirectInvalid: hosts.Well, fetch.TooManyRedirects: hosts.Well,
	}
	for _, c := range fetch.Classes() { // those not named teach nothing
		if got := lesson(c); got != want[c] {
			t.Errorf("%s teaches %q, want %q", c, got, want[c])
		}
	}
}
