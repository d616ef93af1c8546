package hosts

import (
	"testing"
	"time"
)

func TestStrictestLimitsAreThoseOfAllJobsTogether(t *testing.T) {
	for _, tt := range []struct {
		claim string
		jobs  []Limits
		want  Limits
	}{
		{"no job, no limit", nil, Limits{Burst: 1}},
		{"each limit from whom it is strictest", []Limits{{Rate: 5, Burst: 4, Conns: 2}, {Rate: 2, Burst: 8, Conns: 9}}, Limits{Rate: 2, Burst: 4, Conns: 2}},
		{"zero is no limit", []Limits{{Conns: 3}, {Rate: 7, Burst: 5}}, Limits{Rate: 7, Burst: 5, Conns: 3}},
		{"a job without a rate has no say in the burst", []Limits{{Burst: 1}, {Rate: 7, Burst: 5}}, Limits{Rate: 7, Burst: 5}},
	} {
		if got := strictest(tt.jobs); got != tt.want {
			t.Errorf("%s: %+v, want %+v", tt.claim, got, tt.want)
		}
	}
}

func TestBucketKeepsWindowsWithinTheRate(t *testing.T) {
	start := time.Unix(1_000_000, 0)
	for _, l := range []Limits{{Rate: 5, Burst: 1}, {Rate: 5, Burst: 10}, {Rate: 0.5, Burst: 3}, {Rate: 80, Burst: 20}} {
		var b bucket
		var sent []time.Time
		for now := start; now.Before(start.Add(40 * time.Second)); now = now.Add(700 * time.Millisecond) {
			sent = append(sent, b.lease(termsAt(l, 1), 64, now, now)...)
		}
		most := int(l.Rate*10) + l.Burst
		for i := range sent {
			if j := i + most; j < len(sent) && sent[j].Sub(sent[i]) < 10*time.Second {
				t.Fatalf("%+v: %d in %s, want at most %d in 10 s", l, most+1, sent[j].Sub(sent[i]), most)
			}
		}
		if least := int(l.Rate * 40 / 1.03); len(sent) < least {
			t.Errorf("%+v: %d send times in 40 s, want at least %d", l, len(sent), least)
		}
	}
}

func TestBucketGivesNoTimesThatAreFarAhead(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	terms := termsAt(Limits{Rate: 1, Burst: 1}, 1)
	var b bucket
	if got := len(b.lease(terms, 64, now, now)); got != 7 {
		t.Errorf("%d send times at 1/s, want those of 7 s", got)
	}
	if got := b.lease(terms, 64, now, now); len(got) != 0 {
		t.Errorf("more are given out: %v", got)
	}
	if got := b.lease(terms, 1, now, now.Add(5*time.Second)); len(got) != 0 {
		t.Errorf("one is given out beyond a cool-down that is far away: %v", got)
	}
}

func TestBucketTakesUnspentTimesBackOnlyFromTheLast(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	terms := termsAt(Limits{Rate: 1, Burst: 1}, 1)
	var b bucket
	b.lease(terms, 3, now, now)
	first := b.mark()
	b.giveBack(2, terms.every, first)
	if got := b.next(terms, now).Sub(now); got != terms.every {
		t.Errorf("after two of three came back the next goes in %s, want %s", got, terms.every)
	}
	b.giveBack(2, terms.every, first)
	if got := b.next(terms, now).Sub(now); got != terms.every {
		t.Errorf("giving them back twice has the next go in %s, want %s", got, terms.every)
	}
}

func TestPaceHalvesOnOverloadAndRecovers(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	var p tempo
	if got := p.factor(now); got != 1 {
		t.Errorf("at first %v times slower", got)
	}
	p = p.slower(now)
	p = p.slower(now.Add(time.Millisecond)) // the same overload
	if got := p.factor(now); got != 2 {
		t.Errorf("after one overload %v times slower, want 2", got)
	}
	last := 2.0
	for s := range 40 {
		got := p.factor(now.Add(time.Duration(s) * time.Second))
		if got > last || got < 1 {
			t.Fatalf("after %d s %v times slower, before that %v", s, got, last)
		}
		last = got
	}
	if last != 1 {
		t.Errorf("after 40 s %v times slower, want full speed", last)
	}
	for range 20 {
		now = now.Add(2 * time.Second)
		p = p.slower(now)
	}
	if got := p.factor(now); got != slowest {
		t.Errorf("after twenty overloads %v times slower, want %v", got, slowest)
	}
}

func TestATakenSlowerHostGetsNoBurst(t *testing.T) {
	if got := termsAt(Limits{Rate: 10, Burst: 5}, 2); got.burst != 1 || got.every != time.Duration(1.018*float64(200*time.Millisecond)) {
		t.Errorf("terms %+v, want no burst and twice the interval", got)
	}
	if got := termsAt(Limits{Burst: 1}, 2).every; got != 100*time.Millisecond {
		t.Errorf("a host without a rate is asked every %s after an overload, want 100 ms", got)
	}
}

func TestPausesDoubleUpToALimit(t *testing.T) {
	for _, tt := range []struct {
		claim string
		pause func(int) time.Duration
		want  []time.Duration // before 0, 1, 2 and 30 others
	}{
		{"cool-down", coolDown, []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 10 * time.Second}},
		{"circuit", openFor, []time.Duration{30 * time.Second, time.Minute, 2 * time.Minute, 15 * time.Minute}},
		{"robots.txt", func(n int) time.Duration { return robotsPause(time.Minute, n) }, []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 30 * time.Minute}},
	} {
		for i, n := range []int{0, 1, 2, 30} {
			if got := tt.pause(n); got != tt.want[i] {
				t.Errorf("%s after %d others: %s, want %s", tt.claim, n, got, tt.want[i])
			}
		}
	}
}
