package progress

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestQuantilesAreAtMostFourPercentOff(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	distributions := map[string]func() float64{
		"uniform to 2 s":         func() float64 { return random.Float64() * 2e9 },
		"log-normal about 80 ms": func() float64 { return math.Exp(random.NormFloat64()) * 80e6 },
		"two peaks": func() float64 {
			if random.IntN(10) == 0 {
				return 30e9 + random.Float64()*1e9
			}
			return 1e6 + random.Float64()*1e6
		},
		"always the same": func() float64 { return 123456789 },
	}
	for name, draw := range distributions {
		t.Run(name, func(t *testing.T) {
			var l Latency
			all := make([]time.Duration, 10_000)
			for i := range all {
				all[i] = time.Duration(draw())
				l.Observe("host", all[i])
			}
			slices.Sort(all)
			for _, q := range []float64{0, .5, .9, .95, .99, .999, 1} {
				got, want := l.Quantile(q), all[max(int(math.Ceil(q*float64(len(all)))), 1)-1]
				if off := math.Abs(float64(got-want)) / float64(want); off > 0.041 && want > leastLatency {
					t.Errorf("Quantile(%v) = %s, want %s: %.1f%% off", q, got, want, 100*off)
				}
			}
		})
	}
}

func TestEveryLatencyHasItsBucket(t *testing.T) {
	for _, d := range []time.Duration{-1, 0, 1, leastLatency, time.Millisecond, time.Second, time.Hour, 2 * time.Hour} {
		i := bucket(d)
		if i < 0 || i >= buckets {
			t.Fatalf("bucket(%s) = %d of %d", d, i, buckets)
		}
		if d > leastLatency {
			if off := math.Abs(float64(middle(i)-d)) / float64(d); off > 0.041 {
				t.Errorf("bucket of %s stands for %s: %.1f%% off", d, middle(i), 100*off)
			}
		}
	}
	if got := bucket(math.MaxInt64); got != buckets-1 {
		t.Errorf("the longest time goes to bucket %d, want the last", got)
	}
}

func TestNothingObservedIsZero(t *testing.T) {
	var l Latency
	if l.Quantile(.5) != 0 || l.Max() != 0 || len(l.Slowest(5)) != 0 {
		t.Error("an empty Latency tells figures")
	}
}

func TestSlowestHostsAreKeptWhenThereAreTooMany(t *testing.T) {
	var l Latency
	l.Observe("slow.example", 9*time.Second)
	l.Observe("slower.example", 10*time.Second)
	for i := range 3 * mostHosts {
		l.Observe(fmt.Sprintf("host%d.example", i), time.Duration(i%97+1)*time.Millisecond)
	}
	if n := len(l.hosts); n > mostHosts {
		t.Errorf("%d hosts are kept, want at most %d", n, mostHosts)
	}
	want := []HostLatency{
		{Host: "slower.example", Requests: 1, Mean: 10 * time.Second, Max: 10 * time.Second},
		{Host: "slow.example", Requests: 1, Mean: 9 * time.Second, Max: 9 * time.Second},
	}
	if diff := cmp.Diff(want, l.Slowest(2)); diff != "" {
		t.Errorf("Slowest(2) (-want +got):\n%s", diff)
	}
}

func BenchmarkObserve(b *testing.B) {
	var l Latency
	b.ReportAllocs()
	for b.Loop() {
		l.Observe("host.example", 80*time.Millisecond)
	}
}
