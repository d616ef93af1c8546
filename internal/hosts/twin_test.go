package hosts_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/redis/go-redis/v9"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/tasks/taskstest"
)

// twinSteps is how many steps both sources take, and twinStep the time that each of them takes at least: what they note in
// different steps has an order then, although the model takes them a moment earlier.
const (
	twinSteps = 400
	twinStep  = 11 * time.Millisecond
)

// TestRedisAnswersAsTheModelDoes takes the same random steps on both. The model's clock is the machine's, which Redis has,
// too. Limits are such that no answer hangs on a millisecond.
func TestRedisAnswersAsTheModelDoes(t *testing.T) {
	taskstest.OnBoth(t, func(t *testing.T, rdb redis.UniversalClient) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		var passed time.Duration
		q := &fakeQueues{states: map[string]string{}}
		clock := func() time.Time { return time.Now().Add(passed) }
		model := &rig{t: t, source: hosts.NewMemory(q, clock), queues: q, now: clock, pass: func(d time.Duration) { passed += d }}
		p := &twins{t: t, rigs: []*rig{model, redisRig(t, rdb)}, chance: rand.New(rand.NewPCG(seed, 0)), sites: map[string]string{}}
		for i := range twinSteps {
			p.step()
			p.same("states of all tasks", func(r *rig) any { return p.states(r) })
			if t.Failed() {
				t.Fatalf("after %d steps, the last of them: %q", i+1, p.log[max(0, len(p.log)-25):])
			}
		}
	})
}

// twins are two rigs that the same happens to.
type twins struct {
	t      *testing.T
	rigs   []*rig
	chance *rand.Rand
	asks   []hosts.Ask       // all batches that are not done
	sites  map[string]string // of hosts
	serial int
	log    []string
}

func (p *twins) logf(format string, args ...any) { p.log = append(p.log, fmt.Sprintf(format, args...)) }

// same has both do something, and compares what comes of it.
func (p *twins) same(what string, do func(*rig) any) any {
	p.t.Helper()
	want, got := do(p.rigs[0]), do(p.rigs[1])
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("%s (-model +redis):\n%s", what, diff)
	}
	return want
}

func (p *twins) states(r *rig) (out []string) {
	for _, a := range p.asks {
		out = append(out, a.Batch+" "+strings.ReplaceAll(r.queues.state(a.Queue, a.Batch), "stalled", "active"))
	}
	return out
}

func (p *twins) put(a hosts.Ask, state string) {
	for _, r := range p.rigs {
		r.queues.put(a.Queue, a.Batch, state)
	}
}

func (p *twins) step() {
	for _, r := range p.rigs {
		r.pass(twinStep)
	}
	switch n := p.chance.IntN(20); {
	case p.chance.IntN(40) == 0:
		p.move()
	case n < 3 || len(p.asks) == 0:
		p.arrive()
	case n < 10:
		p.enter(p.chance.IntN(len(p.asks)))
	case n < 13:
		p.leave(p.asks[p.chance.IntN(len(p.asks))])
	case n < 14:
		p.learn()
	case n < 15:
		p.fail(p.asks[p.chance.IntN(len(p.asks))])
	case n < 16:
		p.robots(p.asks[p.chance.IntN(len(p.asks))])
	default:
		p.pass()
	}
}

func (p *twins) arrive() {
	p.serial++
	limits := hosts.Limits{Rate: 500, Burst: 1 + p.chance.IntN(2), Conns: 2 + p.chance.IntN(3)}
	a := ask(fmt.Sprintf("b%04d", p.serial), limits, want(1+p.chance.IntN(4)), ofJob([]string{"a", "b", "c"}[p.chance.IntN(3)]),
		inQueue([]string{"critical", "default", "low"}[p.chance.IntN(3)], p.chance.IntN(3)), at(twinHosts[p.chance.IntN(2)], ""))
	a.Robots = p.chance.IntN(3) == 0
	if p.chance.IntN(2) == 0 {
		a.Patience = 47 * time.Second
	}
	p.asks = append(p.asks, a)
	p.put(a, "pending")
}

// outcome is what of an answer must be the same.
type outcome struct {
	Kind         string
	Permits      int
	Scout, Probe bool
	Times        int
	Soon         bool // somebody is to look, or patience will end
	Patience     bool
}

func (p *twins) enter(i int) {
	again := p.rigs[0].queues.state(p.asks[i].Queue, p.asks[i].Batch) == "active"
	if !again { // a delivery finds out once
		p.asks[i].Site = p.sites[p.asks[i].Host]
	}
	a := p.asks[i]
	p.logf("enter %s of %s at %s on %q, robots %v, again %v", a.Batch, a.Job, a.Host, a.Site, a.Robots, again)
	got := p.same("answer", func(r *rig) any {
		switch answer := r.begin(a); {
		case answer.Grant != nil:
			g := answer.Grant
			return outcome{Kind: "visit", Permits: g.Permits, Scout: g.Scout, Probe: g.Probe, Times: len(g.Times.At)}
		case answer.Line != nil:
			return outcome{Kind: "line", Soon: answer.Line.Next > 0, Patience: answer.Line.PatienceEnd > 0}
		case answer.Unavailable.Robots:
			return outcome{Kind: "robots unavailable"}
		}
		return outcome{Kind: "host unavailable"}
	}).(outcome)
	p.logf("→ %+v", got)
	switch got.Kind {
	case "visit":
	case "line":
		if p.chance.IntN(8) > 0 {
			p.put(a, "retry")
		} else {
			p.put(a, "stalled") // its worker died before the deferral
		}
	default:
		p.done(a)
	}
}

func (p *twins) done(a hosts.Ask) {
	p.put(a, "gone")
	p.asks = slices.DeleteFunc(p.asks, func(x hosts.Ask) bool { return x.Batch == a.Batch })
}

func (p *twins) leave(a hosts.Ask) {
	back, well := p.chance.IntN(3)-1, p.chance.IntN(2)
	p.logf("leave %s, back %d, well %d", a.Batch, back, well)
	p.same("leave", func(r *rig) any {
		sweep, err := r.source.Leave(p.t.Context(), a, back, 0, hosts.Times{}, well)
		return fmt.Sprint(sweep > 0, err)
	})
	if back < 0 && p.rigs[0].queues.state(a.Queue, a.Batch) == "active" {
		p.done(a)
	}
}

// twinHosts are the hosts, and twinSites what may be theirs; "" is the host itself.
var (
	twinHosts = []string{host, "example.net:8080"}
	twinSites = []string{"", "@192.0.2.1", "@192.0.2.1", "@2001:db8::1"}
)

// move has a host resolve to another address.
func (p *twins) move() {
	name := twinHosts[p.chance.IntN(len(twinHosts))]
	p.sites[name] = twinSites[p.chance.IntN(len(twinSites))]
	p.logf("move %s to %q", name, p.sites[name])
}

func (p *twins) learn() {
	name := twinHosts[p.chance.IntN(len(twinHosts))]
	at := hosts.Ask{Host: name, Site: p.sites[name], Job: "a"}
	l := []hosts.Lesson{hosts.Asked, hosts.Overload, hosts.Failed, hosts.Failed, hosts.Failed, hosts.Well}[p.chance.IntN(6)]
	times := 1 + p.chance.IntN(6)
	p.logf("learn %s %d times at %s on %q", l, times, name, at.Site)
	for range times {
		p.same("left alone (s)", func(r *rig) any { return r.learnAt(at, l, 9*time.Second).Round(time.Second) })
	}
}

// fail has a worker die, or a batch be cancelled.
func (p *twins) fail(a hosts.Ask) {
	state := p.rigs[0].queues.state(a.Queue, a.Batch)
	p.logf("fail %s, %s", a.Batch, state)
	switch {
	case state == "retry" || state == "pending":
		p.done(a)
	case p.chance.IntN(2) == 0:
		p.put(a, "stalled")
	default:
		p.put(a, "pending")
		p.same("vacate", func(r *rig) any { return r.source.Vacate(p.t.Context(), []string{a.Batch}) })
	}
}

func (p *twins) robots(a hosts.Ask) {
	known := p.chance.IntN(2) == 0
	p.logf("robots of %s known %v", a.Batch, known)
	p.same("robots", func(r *rig) any {
		sweep, err := r.source.Robots(p.t.Context(), a, known, 37*time.Second, "1 all -\n")
		return fmt.Sprint(sweep > 0, err)
	})
	p.same("lease", func(r *rig) any {
		t, later, err := r.source.Lease(p.t.Context(), a, 2, 3)
		return fmt.Sprint(t.Permits, later > 0, errors.Is(err, hosts.ErrLeft))
	})
}

func (p *twins) pass() {
	d := []time.Duration{70, 1310, 5230, 11170, 33110}[p.chance.IntN(5)] * time.Millisecond
	p.logf("%s pass", d)
	for _, r := range p.rigs {
		r.pass(d)
	}
	p.same("sweep", func(r *rig) any { return r.sweep() > 0 })
}
