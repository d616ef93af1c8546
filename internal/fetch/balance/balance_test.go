package balance

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type clock struct{ now time.Time }

func newSet(endpoints ...Endpoint) (*Set, *clock) {
	c := &clock{now: time.Unix(1e9, 0)}
	s := &Set{Now: func() time.Time { return c.now }}
	s.Update(endpoints)
	return s, c
}

func hosts(members []*Member) (out []string) {
	for _, m := range members {
		out = append(out, m.Host)
	}
	return out
}

func TestTheLeastInUseIsFirstAndThenTheOneWhoseTurnItIs(t *testing.T) {
	s, _ := newSet(Endpoint{Host: "a"}, Endpoint{Host: "b"}, Endpoint{Host: "c"})
	seen := map[string]int{}
	for range 30 {
		seen[s.Order()[0].Host]++
	}
	if diff := cmp.Diff(map[string]int{"a": 10, "b": 10, "c": 10}, seen); diff != "" {
		t.Errorf("idle ones are chosen in turn (-want +got):\n%s", diff)
	}
	var releases []func()
	for range 6 {
		releases = append(releases, s.Order()[0].Use())
	}
	releases[4]()
	releases[4]() // once is enough
	free := s.Order()[0]
	if free.inUse != 1 {
		t.Errorf("%s is first, which has %d in use, want the one that has 1", free.Host, free.inUse)
	}
}

func TestOneThatFailedIsLeftAloneForAWhile(t *testing.T) {
	s, c := newSet(Endpoint{Host: "a"}, Endpoint{Host: "b"})
	for _, m := range s.Order() {
		if m.Host == "a" {
			m.Failed()
		}
	}
	for range 5 {
		if got := hosts(s.Order()); !cmp.Equal(got, []string{"b", "a"}) {
			t.Fatalf("order %v, want the one that failed last", got)
		}
	}
	if s.Down() != 1 {
		t.Errorf("%d are left alone, want 1", s.Down())
	}
	s.Update([]Endpoint{{Host: "a"}, {Host: "b"}}) // which changes nothing about it
	c.now = c.now.Add(Cooldown)
	if got := s.Order()[0].Host; got != "a" || s.Down() != 0 {
		t.Errorf("%s is first after the cooldown, %d down", got, s.Down())
	}
}

func TestTheLowestPriorityIsFirst(t *testing.T) {
	s, _ := newSet(Endpoint{Host: "spare", Priority: 2, Weight: 9}, Endpoint{Host: "main", Priority: 1})
	first := s.Order()[0]
	if first.Host != "main" {
		t.Fatalf("%s is first", first.Host)
	}
	first.Failed()
	if got := s.Order()[0].Host; got != "spare" {
		t.Errorf("%s is first when main has failed", got)
	}
}

func TestWeightsAreShares(t *testing.T) {
	s, _ := newSet(Endpoint{Host: "a", Weight: 3}, Endpoint{Host: "b", Weight: 1}, Endpoint{Host: "c", Weight: 0})
	seen := map[string]float64{}
	const n = 10000
	for range n {
		seen[s.Order()[0].Host]++
	}
	if math.Abs(seen["a"]/n-.75) > .03 || math.Abs(seen["b"]/n-.25) > .03 || seen["c"] > n*.01 {
		t.Errorf("shares of 3, 1 and 0: %v", seen)
	}
}

func TestAnUpdateKeepsWhatIsKnownOfThoseThatStay(t *testing.T) {
	s, _ := newSet(Endpoint{Host: "a"}, Endpoint{Host: "b"})
	for _, m := range s.Order() {
		m.Use()
	}
	s.Update([]Endpoint{{Host: "b"}, {Host: "c"}, {Host: "c"}})
	got := fmt.Sprint(hosts(s.Order()))
	if got != "[c b]" {
		t.Errorf("order %s, want the new one before the one in use, and none twice", got)
	}
	s.Update(nil)
	if len(s.Order()) != 0 {
		t.Error("an empty set has an order")
	}
}
