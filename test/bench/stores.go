package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/open"
)

// benchWARC: at least 0.75 of a plain pool that appends the same answers, gzipped, to one file; about 80 µs of CPU a page,
// Redis included.
func benchWARC(ctx context.Context, l *lab) error {
	list, err := l.pageList("warc.txt", l.pages)
	if err != nil {
		return err
	}
	var pool, off, batch []figure
	for range l.runs {
		for _, m := range []struct {
			into *[]figure
			run  func() (figure, error)
		}{
			{&pool, func() (figure, error) { return l.pool("append", list) }},
			{&off, func() (figure, error) { return l.toWARC(ctx, list, "off") }},
			{&batch, func() (figure, error) { return l.toWARC(ctx, list, "batch") }},
		} {
			f, err := m.run()
			if err != nil {
				return err
			}
			*m.into = append(*m.into, f)
		}
	}
	l.printPages("plain pool that appends gzip members", median(pool))
	for name, f := range map[string]figure{"off": median(off), "batch": median(batch)} {
		l.printPages("warc: --sync="+name+", with Redis", f)
		wall := float64(median(pool).wall) / float64(f.wall)
		fmt.Printf("  %-38s %.2f of the pool, want 0.75: %s\n", "--sync="+name+", wall", wall, verdict(wall >= .75))
		cpu := float64(f.cpu.Microseconds()) / float64(l.pages)
		fmt.Printf("  %-38s %.1f µs (the pool: %.2f of it), want about 80: %s\n", "--sync="+name+", CPU", cpu,
			float64(median(pool).cpu)/float64(f.cpu), verdict(cpu <= 85))
	}
	return nil
}

func (l *lab) printPages(name string, f figure) {
	fmt.Printf("  %-38s %8.0f pages/s  %6.1f µs CPU a page\n", name, float64(l.pages)/f.wall.Seconds(),
		float64(f.cpu.Microseconds())/float64(l.pages))
}

func (l *lab) toWARC(ctx context.Context, list, sync string) (figure, error) {
	dir, err := l.scratch()
	if err != nil {
		return figure{}, err
	}
	return l.fleetTo(ctx, l.worker(), list, "warc:"+dir, sync)
}

// storeURLs opens an empty store of each kind, with a server of its own where it needs one.
func (l *lab) storeURLs() (map[string]string, error) {
	urls := map[string]string{}
	for _, kind := range []string{"file", "warc"} {
		dir, err := l.scratch()
		if err != nil {
			return nil, err
		}
		urls[kind] = kind + ":" + dir
	}
	var err error
	if urls["s3"], err = l.startS3(); err != nil {
		return nil, err
	}
	urls["postgres"], err = l.startPostgres()
	return urls, err
}

// storeKinds are the keys of storeURLs in the order in which they are printed.
var storeKinds = []string{"file", "warc", "s3", "postgres"}

// hugeSize is the one large body of benchHuge.
const hugeSize = 2_000_000_000

// benchHuge: one body of 2 GB to each driver, the worker's memory under 96 MiB.
func benchHuge(ctx context.Context, l *lab) error {
	urls, err := l.storeURLs()
	if err != nil {
		return err
	}
	for _, kind := range storeKinds {
		took, peak, err := l.huge(ctx, urls[kind], hugeSize, 0)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		fmt.Printf("  %-10s %5.1f s, worker had %3d MiB resident at most, want under 96: %s\n", kind, took.Seconds(), peak>>20, verdict(peak < 96<<20))
	}
	return nil
}

// benchResume: a body of 1 GB that is cut ten times transfers at most 1.05 GB; on S3 one part more for each cut.
func benchResume(ctx context.Context, l *lab) error {
	const size, cut = 1_000_000_000, 95_000_000
	urls, err := l.storeURLs()
	if err != nil {
		return err
	}
	for _, kind := range storeKinds {
		before, err := l.sent(ctx)
		if err != nil {
			return err
		}
		took, peak, err := l.huge(ctx, urls[kind], size, cut)
		if err != nil {
			return fmt.Errorf("%s: %w", kind, err)
		}
		after, err := l.sent(ctx)
		if err != nil {
			return err
		}
		limit := int64(1_050_000_000)
		if kind == "s3" {
			limit += 10 * s3Piece
		}
		fmt.Printf("  %-10s %5.1f s, %4d MB sent for 1000, worker had %3d MiB at most, want at most %d MB: %s\n", kind, took.Seconds(),
			(after-before)/1e6, peak>>20, limit/1e6, verdict(after-before <= limit))
	}
	return nil
}

// s3Piece is the size of the pieces of a multipart upload.
const s3Piece = 8 << 20

func (l *lab) sent(ctx context.Context) (int64, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+l.hosts[0]+"/sent", nil)
	if err != nil {
		return 0, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 100))
	if err != nil {
		return 0, err
	}
	return strconv.ParseInt(string(text), 10, 64)
}

// huge fetches one large body into a store. It may be broken off after every cut bytes.
func (l *lab) huge(ctx context.Context, storeURL string, size, cut int64) (took time.Duration, peak int64, err error) {
	if err := l.rdb.FlushAll(ctx).Err(); err != nil {
		return 0, 0, err
	}
	url := fmt.Sprintf("http://%s/huge/%d", l.hosts[0], size)
	if cut > 0 {
		url += fmt.Sprintf("?cut=%d", cut)
	}
	list := filepath.Join(l.dir, "huge.txt")
	if err := os.WriteFile(list, []byte(url+"\n"), 0o644); err != nil {
		return 0, 0, err
	}
	if err := l.enqueue(list, "huge", "--max-body", "4GiB", "--robots", "ignore", "--backoff", "base=100ms,jitter=none"); err != nil {
		return 0, 0, err
	}
	w, err := start(exec.Command(l.worker(), "--redis", l.url, "--store", storeURL, "--allow-private", "127.0.0.0/8",
		"--listen", "", "--log-level", "warn"), nil)
	if err != nil {
		return 0, 0, err
	}
	status, err := l.await(ctx, "huge")
	took = time.Since(w.began)
	if err != nil {
		w.kill()
		return took, 0, err
	}
	if err := w.stop(); err != nil {
		return took, 0, err
	}
	if status.OK != 1 || status.Bytes != size {
		return took, 0, fmt.Errorf("the body was not stored: %+v", status)
	}
	return took, w.peak(), nil
}

// benchRecords: 100 k records to PostgreSQL, in batches of 32, at 20 k/s or better.
func benchRecords(ctx context.Context, l *lab) error {
	url, err := l.startPostgres()
	if err != nil {
		return err
	}
	s, err := open.Open(ctx, url, open.Options{Worker: "bench"})
	if err != nil {
		return err
	}
	defer s.Close()
	const records, batch, committers = 100_000, 32, 16
	var next atomic.Int64
	var wg sync.WaitGroup
	failed := make(chan error, committers)
	began := time.Now()
	for range committers {
		wg.Go(func() {
			for i := next.Add(1) - 1; i*batch < records; i = next.Add(1) - 1 {
				if err := commitUnit(ctx, s, int(i), batch); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	wg.Wait()
	select {
	case err := <-failed:
		return err
	default:
	}
	rate := records / time.Since(began).Seconds()
	fmt.Printf("  %.0f records/s by %d committers, want 20000: %s\n", rate, committers, verdict(rate >= 20_000))
	return nil
}

// commitUnit stores a unit of n records such as those of small pages.
func commitUnit(ctx context.Context, s store.Store, number, n int) error {
	name := fmt.Sprint("b", number)
	u, err := s.Begin(ctx, "bench", name)
	if err != nil {
		return err
	}
	a := &store.Account{V: store.AccountVersion, Job: "bench", Batch: name, Worker: "bench", Delivery: name}
	for i := range n {
		r := &store.Record{
			ID: fmt.Sprintf("%032x", number*n+i), Job: "bench", Batch: name, Method: "GET", Outcome: store.OK, Status: 200, Attempts: 1,
			URL: fmt.Sprintf("http://host%d.example/page/%d", number%64, i), FinalURL: fmt.Sprintf("http://host%d.example/page/%d", number%64, i),
			Headers: map[string][]string{"Content-Type": {"text/html"}, "Date": {"Fri, 20 Nov 2026 12:00:00 GMT"}, "Content-Length": {"2048"}},
			Bytes:   2048, SHA256: fmt.Sprintf("%064x", number*n+i), FetchedAt: time.Now().UTC(), ElapsedMS: 12.5,
			Timings: &store.Timings{TTFB: 12, Total: 12.5}, Protocol: "HTTP/1.1", RemoteAddr: "192.0.2.1:80", Worker: "bench",
		}
		if err := u.Add(r); err != nil {
			return err
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: store.OK, Bytes: r.Bytes, Attempts: 1})
	}
	_, _, err = u.Commit(ctx, a)
	return err
}
