// Command bench measures the numbers that fetchfleet promises and prints each beside a ceiling or a peer that ran at
// the same moment on the same machine. It starts everything it measures as processes of its own, Redis included, and
// talks to loopback addresses only.
//
//	go run ./test/bench            all of it
//	go run ./test/bench -only fetch,enqueue
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"strings"
)

// benchmark is one promise and how it is measured.
type benchmark struct {
	name string
	what string
	run  func(context.Context, *lab) error
}

var benchmarks = []benchmark{
	{"fetch", "50 k pages of 2 KiB over 64 hosts, bodies stored, against a plain pool and one task per URL", benchFetch},
	{"enqueue", "URLs per second into a local Redis, bytes of Redis per URL, memory for a million lines", benchEnqueue},
	{"latency", "ten URLs of one host that take 900 ms each, with fleet run", benchLatency},
	{"clients", "a hundred requests at a time to one host, bodies stored, beside aiohttp and HTTPX", benchClients},
	{"secure", "a thousand requests of 100 ms over HTTP/2 and HTTP/1.1, and the TLS handshakes that they take", benchSecure},
	{"memory", "8 bodies of 200 MB at once: memory of the worker", benchMemory},
	{"warc", "pages of 2 KiB into WARC files, against a plain pool that appends gzip members to one file", benchWARC},
	{"huge", "one body of 2 GB into a store of each kind: memory of the worker", benchHuge},
	{"resume", "a body of 1 GB that is cut ten times, into a store of each kind: bytes sent", benchResume},
	{"records", "100 k records into PostgreSQL", benchRecords},
	{"polite", "200 hosts at 5 requests/s each, measured at the origin, against the best that any scheduler could do", benchPolite},
	{"nolimits", "fetch without limits against a worker of a version before (FLEET_BENCH_BASE)", benchNoLimits},
}

// roles are what this program does when it starts itself as another process.
var roles = map[string]func([]string) error{"origin": runOrigin, "tlsorigin": runTLSOrigin, "pool": runPool, "append": runAppend, "perurl": runPerURL}

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-role" {
		if err := roles[os.Args[2]](os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, os.Args[2]+":", err)
			os.Exit(1)
		}
		return
	}
	if err := measure(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func measure() error {
	only := flag.String("only", "", "benchmarks to run, separated by commas (default: all)")
	pages := flag.Int("pages", 50_000, "pages of the fetch benchmark")
	runs := flag.Int("runs", 3, "runs of each; medians are printed")
	politeURLs := flag.Int("polite-urls", 4000, "URLs of the polite benchmark's lists over 200 hosts; its others scale with it")
	politeParallel := flag.Int("polite-parallel", runtime.NumCPU(), "variants of the polite benchmark that are measured at once")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	l, err := newLab(ctx, *pages, *runs)
	if err != nil {
		return err
	}
	defer l.close()
	l.polite = politeOptions{urls: *politeURLs, parallel: *politeParallel}
	for _, b := range benchmarks {
		if *only != "" && !strings.Contains(","+*only+",", ","+b.name+",") {
			continue
		}
		fmt.Printf("\n%s: %s\n", b.name, b.what)
		if err := b.run(ctx, l); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	return nil
}
