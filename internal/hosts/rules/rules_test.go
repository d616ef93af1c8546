package rules

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/google/go-cmp/cmp"
)

func mustParse(t testing.TB, text string) *Table {
	t.Helper()
	table, err := Parse("hosts", strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	return table
}

const sample = "\ufeff# the fleet's\r\n" + `
example.org           rate=1 burst=2 conns=1   # a comment
*.example.org         delay=2s agent="friendly \"bot\"/1.0 # (+https://…)"
deep.www.example.org  agent=""
api.partner.com:8443  rate=100 conns=32 robots=ignore
*.bad.example         blocked robots=obey
good.bad.example      blocked=no
[2001:DB8:0::1]:8080  rate=0
192.0.2.1             delay=1m
BÜCHER.example        conns=7
*.Müller.example.     conns=8
*                     conns=2
`

func TestTheMoreSpecificRuleWinsKeyByKey(t *testing.T) {
	table := mustParse(t, sample)
	two := new(2)
	agent := `friendly "bot"/1.0 # (+https://…)`
	for host, want := range map[string]Rule{
		"elsewhere.test":           {Conns: two},
		"elsewhere.test:8443":      {Conns: two},
		"example.org":              {Rate: new(1.0), Burst: two, Conns: new(1)},
		"example.org.":             {Rate: new(1.0), Burst: two, Conns: new(1)},
		"example.org:8080":         {Conns: two},
		"notexample.org":           {Conns: two},
		"www.example.org":          {Conns: two, Delay: 2 * time.Second, Agent: agent},
		"www.example.org.:99":      {Conns: two, Delay: 2 * time.Second, Agent: agent},
		"a.b.www.example.org:8443": {Conns: two, Delay: 2 * time.Second, Agent: agent},
		"deep.www.example.org":     {Conns: two, Delay: 2 * time.Second},
		"api.partner.com:8443":     {Rate: new(100.0), Conns: new(32), Robots: Ignore},
		"api.partner.com.:8443":    {Rate: new(100.0), Conns: new(32), Robots: Ignore},
		"api.partner.com":          {Conns: two},
		"bad.example":              {Conns: two},
		"very.bad.example":         {Conns: two, Robots: Obey, Blocked: true},
		"good.bad.example":         {Conns: two, Robots: Obey},
		"good.bad.example:81":      {Conns: two, Robots: Obey, Blocked: true},
		"[2001:db8::1]:8080":       {Rate: new(0.0), Conns: two},
		"[2001:db8::1]":            {Conns: two},
		"192.0.2.1":                {Conns: two, Delay: time.Minute},
		"xn--bcher-kva.example":    {Conns: new(7)},
		"a.xn--mller-kva.example":  {Conns: new(8)},
		"localhost":                {Conns: two},
		"":                         {Conns: two},
		".":                        {Conns: two},
		":1":                       {Conns: two},
	} {
		if diff := cmp.Diff(want, table.For(host)); diff != "" {
			t.Errorf("%q: -want +got:\n%s", host, diff)
		}
	}
	if got := table.Len(); got != 11 {
		t.Errorf("%d rules, want 11", got)
	}
}

// What is asked for a host is what canonical URLs call it.
func TestHostsAreSpeltAsInCanonicalURLs(t *testing.T) {
	for _, host := range []string{"EXAMPLE.org", "a_b.example", "bücher.example:8080", "[::FFFF:1]", "0x7f.1", "faß.example", "日本.example"} {
		u, err := canon.Parse("https://" + host + "/path")
		if err != nil {
			t.Fatal(err)
		}
		if got := mustParse(t, host+" blocked").For(u.Host); !got.Blocked {
			t.Errorf("a rule for %s does not hold for %s", host, u.Host)
		}
	}
}

func TestNoTableAsksForNothing(t *testing.T) {
	var none *Table
	var noFile *File
	for name, got := range map[string]Rule{"Table": none.For("x.test"), "File": noFile.For("x.test"), "empty": mustParse(t, "\n# nothing\n").For("x.test")} {
		if diff := cmp.Diff(Rule{}, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", name, diff)
		}
	}
	if none.String() != "" || none.Len() != 0 {
		t.Errorf("no table has %d rules, %q", none.Len(), none)
	}
}

func TestPaceIsTheStricterOfRateAndDelay(t *testing.T) {
	for claim, c := range map[string]struct {
		rules string
		rate  float64
		burst int
	}{
		"nothing named leaves what was given":      {"conns=1", 5, 3},
		"a rate replaces it":                       {"rate=50 burst=7", 50, 7},
		"no limit is a rate as well":               {"rate=0", 0, 3},
		"a delay alone, without a burst":           {"delay=2s", 0.5, 1},
		"a delay where there was no limit":         {"rate=0 delay=250ms", 4, 1},
		"a delay stricter than the rate":           {"rate=10 burst=5 delay=1s", 1, 1},
		"a rate stricter than the delay":           {"rate=0.5 delay=1s", 0.5, 1},
		"a delay that does not slow the rate down": {"delay=1ms burst=9", 5, 1},
	} {
		rate, burst := mustParse(t, "x.test "+c.rules).For("x.test").Pace(5, 3)
		if rate != c.rate || burst != c.burst {
			t.Errorf("%s: got %v and %d, want %v and %d", claim, rate, burst, c.rate, c.burst)
		}
	}
}

func BenchmarkFor(b *testing.B) {
	var text strings.Builder
	for i := range 100_000 {
		fmt.Fprintf(&text, "host%d.example rate=1\n*.site%d.example delay=2s\n", i, i)
	}
	table := mustParse(b, text.String()+"* conns=2\n")
	for _, host := range []string{"host77.example", "a.b.site99.example:8080", "nothing.known.about.it.test"} {
		b.Run(host, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				table.For(host)
			}
		})
	}
}
