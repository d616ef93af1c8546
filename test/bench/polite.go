package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/fetchfleet/fetchfleet/internal/politetest"
)

// politeOptions say how much the polite benchmark does.
type politeOptions struct {
	urls     int // of the lists over 200 hosts; the others scale with it
	parallel int // variants that are measured at once
}

// politeHosts is how many hosts the Zipf lists have.
const politeHosts = 200

// politeWindow is the window that limits are promised for.
const politeWindow = 10 * time.Second

// perHost are the limits of all variants but those that say otherwise: the defaults of a job.
var perHost = politetest.Limits{Rate: 5, Burst: 1, Conns: 4}

// benchPolite: makespan at most 1.03 of the bound with one worker and three, 15 s more for each killed, 1.12 where
// slots are scarce; in no window of 10 s more than rate·10 + burst, never more in service than the limit; below 0.2
// Redis calls a URL; a slow host holds up nobody.
func benchPolite(ctx context.Context, l *lab) error {
	zipf := politetest.Zipf(l.polite.urls, politeHosts)
	tours := []*tour{
		{name: "one worker", counts: zipf, workers: 1, most: 1.03},
		{name: "three workers", counts: zipf, workers: 3, most: 1.03},
		{name: "three, one killed, one joins", counts: zipf, workers: 3, most: 1.03, grace: 15 * time.Second, during: killAndHire},
		{name: "one worker, --visits 25", counts: zipf, workers: 1, most: 1.12, flags: []string{"--visits", "25"}},
		{name: "calls: 20 hosts alike, one worker", counts: alike(20, l.polite.urls*12/100), workers: 1, calls: 0.2},
	}
	with, without := besideGiant(l.polite.urls)
	tours = append(tours, with, without)
	if err := l.run(ctx, tours); err != nil {
		return err
	}
	if without.took > 0 {
		ratio := with.took.Seconds() / without.took.Seconds()
		fmt.Printf("  a hundred hosts beside a slow one: done after %.1f s, without it %.1f s: %.3f, want at most 1.03: %s\n",
			with.took.Seconds(), without.took.Seconds(), ratio, verdict(ratio <= 1.03))
	}
	return nil
}

// besideGiant is a hundred hosts at 1/s, with and without one that has thousands of URLs. There are slots for little
// more than all of them, so that one which takes many is felt.
func besideGiant(urls int) (with, without *tour) {
	limits := politetest.Limits{Rate: 1, Burst: 1, Conns: 4}
	each, giant := urls/40, urls*3/4
	flags := []string{"--visits", "128"}
	with = &tour{name: "100 hosts at 1/s beside a giant", counts: append(alike(100, each), giant), until: 100, limits: limits, workers: 1, flags: flags}
	without = &tour{name: "100 hosts at 1/s alone", counts: alike(100, each), limits: limits, workers: 1, flags: flags}
	return with, without
}

// alike is so many hosts with so many URLs each.
func alike(hosts, each int) []int {
	counts := make([]int, hosts)
	for i := range counts {
		counts[i] = max(each, 1)
	}
	return counts
}

// killAndHire kills a worker when a third of the time has passed, and lets one join at half of it. The worker is the one
// that visits the largest host, which has no time to lose.
func killAndHire(ctx context.Context, r *running) error {
	if err := sleep(ctx, r.bound/3); err != nil {
		return err
	}
	victim, err := r.visitor(r.origin.Host(0))
	if err != nil {
		return err
	}
	r.workers[victim].kill()
	r.workers = slices.Delete(r.workers, victim, victim+1)
	if err := sleep(ctx, r.bound/6); err != nil {
		return err
	}
	return r.hire()
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// run measures tours, some at once, and prints each as it is done. What costs the machine most is the beginning, when
// all hosts are visited, so they begin one after the other.
func (l *lab) run(ctx context.Context, tours []*tour) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(max(l.polite.parallel, 1))
	var printing sync.Mutex
	for i, t := range tours {
		g.Go(func() error {
			if err := sleep(ctx, time.Duration(i%max(l.polite.parallel, 1))*8*time.Second); err != nil {
				return err
			}
			if err := l.tour(ctx, t, i); err != nil {
				return fmt.Errorf("%s: %w", t.name, err)
			}
			printing.Lock()
			defer printing.Unlock()
			t.print()
			return nil
		})
	}
	return g.Wait()
}

// print prints what was measured beside what is promised.
func (t *tour) print() {
	row := func(format string, args ...any) {
		fmt.Printf("  %-36s "+format+"\n", append([]any{t.name}, args...)...)
	}
	bound, took := t.bound().Seconds(), t.took.Seconds()
	promise := ""
	if t.most > 0 {
		promise = fmt.Sprintf(", want at most %.2f", t.most)
		if t.grace > 0 {
			promise += fmt.Sprintf(" and %s", t.grace)
		}
		promise += ": " + verdict(took <= t.most*bound+t.grace.Seconds())
	}
	row("makespan %.1f s, bound %.1f s: %.3f%s", took, bound, took/bound, promise)
	row("%.1f s from the start of the workers until they were done", t.ended.Seconds())
	row("most in 10 s %d, want at most %d: %s; in service %d, want at most %d: %s", t.within, t.limits.Within(politeWindow),
		verdict(t.within <= t.limits.Within(politeWindow)), t.inService, t.limits.Conns, verdict(t.inService <= t.limits.Conns))
	switch {
	case !t.counted:
		row("Redis calls for politeness: the workers do not count them")
	case t.calls > 0:
		row("%.3f Redis calls a URL for politeness, want below %.1f: %s", t.perURL, t.calls, verdict(t.perURL < t.calls))
	default:
		row("%.3f Redis calls a URL for politeness", t.perURL)
	}
	for _, wrong := range t.wrong {
		row("NOT reached: %s", wrong)
	}
}
