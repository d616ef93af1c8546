package main

import (
	"context"
	"fmt"
	"os"
)

// benchNoLimits: a job without limits is as fast as with a worker that knows no politeness, to 2 %. That worker is the
// program that FLEET_BENCH_BASE names, of a version before; without it only this version is measured.
func benchNoLimits(ctx context.Context, l *lab) error {
	list, err := l.pageList("nolimits.txt", l.pages)
	if err != nil {
		return err
	}
	base := os.Getenv("FLEET_BENCH_BASE")
	here := l.worker()
	workers := []string{here}
	if base != "" {
		workers = append(workers, base)
	}
	figures := map[string][]figure{}
	for run := range 2 * l.runs { // in pairs, each first as often as the other
		for i := range workers {
			path := workers[(i+run)%len(workers)]
			f, err := l.fleet(ctx, path, list, "off")
			if err != nil {
				return fmt.Errorf("%s: %w", path, err)
			}
			figures[path] = append(figures[path], f)
		}
	}
	l.printNoLimits(median(figures[here]), figures[base])
	return nil
}

func (l *lab) printNoLimits(here figure, base []figure) {
	row := func(name string, f figure) {
		fmt.Printf("  %-34s %8.0f pages/s  %6.1f µs CPU a page\n", name, float64(l.pages)/f.wall.Seconds(),
			float64(f.cpu.Microseconds())/float64(l.pages))
	}
	row("this version, no limits", here)
	if len(base) == 0 {
		fmt.Println("  name a worker of a version before in FLEET_BENCH_BASE to compare with it")
		return
	}
	before := median(base)
	row("FLEET_BENCH_BASE, no limits", before)
	wall, cpu := float64(before.wall)/float64(here.wall), float64(before.cpu)/float64(here.cpu)
	fmt.Printf("  %-34s %.3f of the version before, want 0.98: %s\n", "wall", wall, verdict(wall >= .98))
	fmt.Printf("  %-34s %.3f of the version before, want 0.98: %s\n", "CPU", cpu, verdict(cpu >= .98))
}
