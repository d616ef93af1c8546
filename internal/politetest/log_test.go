package politetest

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const ms = time.Millisecond

// at makes a log of requests to one host that each take length.
func at(host string, length time.Duration, starts ...time.Duration) Log {
	var l Log
	for _, s := range starts {
		l = append(l, Request{Host: host, Path: "/", Start: s * ms, End: s*ms + length, Status: 200})
	}
	return l
}

// paced makes n requests, one every interval.
func paced(n int, interval time.Duration) Log {
	var l Log
	for i := range n {
		l = append(l, Request{Host: "h", Path: "/", Start: time.Duration(i) * interval, End: time.Duration(i)*interval + ms, Status: 200})
	}
	return l
}

func TestMostCountsTheFullestWindow(t *testing.T) {
	for name, c := range map[string]struct {
		log    Log
		window time.Duration
		most   int
		at     time.Duration
	}{
		"nothing":                              {nil, time.Second, 0, 0},
		"one":                                  {at("h", 0, 500), time.Second, 1, 500 * ms},
		"the end of a window is outside":       {at("h", 0, 0, 1000), time.Second, 1, 0},
		"just inside":                          {at("h", 0, 0, 999), time.Second, 2, 0},
		"the fullest is in the middle":         {at("h", 0, 0, 900, 1800, 1850, 1900, 1950, 3000), time.Second, 4, 1800 * ms},
		"it begins at a request":               {at("h", 0, 100, 1050, 1090), time.Second, 3, 100 * ms},
		"the order of the log does not matter": {at("h", 0, 1090, 100, 1050), time.Second, 3, 100 * ms},
		"five a second is fifty in ten":        {paced(200, 200*ms), 10 * time.Second, 50, 0},
		"a little faster is more":              {paced(200, 196*ms), 10 * time.Second, 52, 0},
	} {
		t.Run(name, func(t *testing.T) {
			most, at := c.log.Most(c.window)
			if most != c.most || at != c.at {
				t.Errorf("most %d at %s, want %d at %s", most, at, c.most, c.at)
			}
		})
	}
}

func TestInServiceCountsOverlaps(t *testing.T) {
	open := at("h", 0, 0, 10, 20)
	for i := range open {
		open[i].Status, open[i].End = 0, 0
	}
	for name, c := range map[string]struct {
		log  Log
		most int
		at   time.Duration
	}{
		"nothing":                     {nil, 0, 0},
		"one after the other":         {at("h", 100*ms, 0, 100, 200), 1, 0},
		"two overlap":                 {at("h", 101*ms, 0, 100, 300), 2, 100 * ms},
		"three for a moment":          {at("h", 250*ms, 0, 100, 200, 1000), 3, 200 * ms},
		"what has not ended is there": {append(open, at("h", ms, 5000)...), 4, 5000 * ms},
		"at the same moment":          {at("h", ms, 0, 0, 0), 3, 0},
	} {
		t.Run(name, func(t *testing.T) {
			most, at := c.log.InService()
			if most != c.most || at != c.at {
				t.Errorf("most %d at %s, want %d at %s", most, at, c.most, c.at)
			}
		})
	}
}

func TestBreachesNameTheHostAndTheLimit(t *testing.T) {
	limits := Limits{Rate: 5, Burst: 1, Conns: 2}
	fast := paced(100, 195*ms)
	for i := range fast {
		fast[i].Host = "fast"
	}
	for name, c := range map[string]struct {
		log  Log
		want []string // parts, in order
	}{
		"at its rate":              {paced(200, 200*ms), nil},
		"with its burst":           {append(at("h", ms, 0), paced(100, 200*ms)...), nil},
		"faster":                   {fast, []string{"fast: 52 requests within 10s"}},
		"more in service":          {at("wide", time.Second, 0, 300, 600), []string{"wide: 3 requests in service at 600ms, want at most 2"}},
		"two hosts are not summed": {append(at("a", time.Second, 0, 300), at("b", time.Second, 0, 300)...), nil},
		"both":                     {append(at("wide", time.Second, 0, 300, 600), fast...), []string{"fast: 52", "wide: 3"}},
	} {
		t.Run(name, func(t *testing.T) {
			got := c.log.Breaches(limits, 10*time.Second)
			if len(got) != len(c.want) {
				t.Fatalf("breaches %q, want %q", got, c.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], c.want[i]) {
					t.Errorf("breach %q, want it to begin %q", got[i], c.want[i])
				}
			}
		})
	}
	if got := fast.Breaches(Limits{}, 10*time.Second); got != nil {
		t.Errorf("without limits: %q", got)
	}
}

func TestWorstIsOfOneHost(t *testing.T) {
	log := append(at("a", time.Second, 0, 1500, 3000), at("b", time.Second, 0, 500, 20_000)...)
	if within, service := log.Worst(10 * time.Second); within != 3 || service != 2 {
		t.Errorf("worst %d within, %d in service; want 3, 2", within, service)
	}
}

func TestLimitsWithinAWindow(t *testing.T) {
	for _, c := range []struct {
		limits Limits
		want   int
	}{
		{Limits{Rate: 5, Burst: 1}, 51},
		{Limits{Rate: 0.25, Burst: 2}, 4},
		{Limits{Rate: 0.3, Burst: 1}, 4}, // 0.3·10 is not quite 3 in binary
	} {
		if got := c.limits.Within(10 * time.Second); got != c.want {
			t.Errorf("%+v within 10s: %d, want %d", c.limits, got, c.want)
		}
	}
}

func TestGapsAndNext(t *testing.T) {
	log := at("h", 0, 0, 1000, 5000, 5500)
	if gap, at := log.Gap(); gap != 4*time.Second || at != time.Second {
		t.Errorf("gap %s at %s, want 4s at 1s", gap, at)
	}
	if gap, _ := log[:1].Gap(); gap != 0 {
		t.Errorf("gap of one request: %s", gap)
	}
	if next, ok := log.Next(1001 * ms); !ok || next.Start != 5*time.Second {
		t.Errorf("next after 1.001s: %+v, %v; want that at 5s", next, ok)
	}
	if next, ok := log.Next(5500 * ms); !ok || next.Start != 5500*ms {
		t.Errorf("next from 5.5s on: %+v, %v; want that at 5.5s", next, ok)
	}
	if _, ok := log.Next(5501 * ms); ok {
		t.Error("there is one after the last")
	}
	if n := len(log.Between(1000*ms, 5500*ms)); n != 2 {
		t.Errorf("%d from 1s to 5.5s, want 2", n)
	}
}

func TestMakespanRunsToTheLastEnd(t *testing.T) {
	log := append(at("h", 3*time.Second, 1000), at("h", ms, 2000)...)
	if got := log.Makespan(); got != 3*time.Second {
		t.Errorf("makespan %s, want 3s", got)
	}
	log = append(log, Request{Host: "h", Start: 9 * time.Second}) // still in service
	if got := log.Makespan(); got != 8*time.Second {
		t.Errorf("makespan %s, want 8s", got)
	}
	if got := Log(nil).Makespan(); got != 0 {
		t.Errorf("makespan of nothing: %s", got)
	}
}

func TestZipfSpreadsAll(t *testing.T) {
	for _, c := range []struct{ n, hosts, largest int }{{4000, 200, 680}, {1000, 10, 341}, {5, 5, 1}, {3, 5, 1}} {
		counts := Zipf(c.n, c.hosts)
		sum := 0
		for i, n := range counts {
			sum += n
			if n < 1 || i > 0 && n > counts[i-1] {
				t.Errorf("Zipf(%d, %d): host %d has %d", c.n, c.hosts, i, n)
			}
		}
		if len(counts) != c.hosts || sum != max(c.n, c.hosts) || counts[0] < c.largest || counts[0] > c.largest+c.largest/20 {
			t.Errorf("Zipf(%d, %d): %d hosts, %d in all, the largest has %d, want about %d", c.n, c.hosts, len(counts), sum, counts[0], c.largest)
		}
	}
	if got := Bound([]int{10, 680, 3}, 5); got != 136*time.Second {
		t.Errorf("bound %s, want 2m16s", got)
	}
}

func TestFiltersKeepTheOrder(t *testing.T) {
	log := Log{{Host: "a", Path: "/robots.txt", Start: 1}, {Host: "b", Path: "/x", Start: 2, Broken: true}, {Host: "a", Path: "/y", Start: 3}}
	if diff := cmp.Diff(log[:1], log.Robots()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(log[1:], log.Pages()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Log{log[0], log[2]}, log.Host("a")); diff != "" {
		t.Error(diff)
	}
	if log.Broken() != 1 {
		t.Errorf("%d broken, want 1", log.Broken())
	}
}
