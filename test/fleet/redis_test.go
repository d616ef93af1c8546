//go:build unix

package fleet_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
)

// TestFleetOutlivesRedis kills Redis under two workers and a producer, and starts it again after 15 s.
func TestFleetOutlivesRedis(t *testing.T) {
	if testing.Short() {
		t.Skip("Redis is away for 15 s")
	}
	t.Parallel()
	const away = 15 * time.Second
	w := newWorld(t)
	want := map[string]string{}
	var urls []string
	for i := range 4000 {
		u := fmt.Sprintf("%s/slow/%d?ms=200", w.origin.Host(1+i%20), i)
		urls = append(urls, u)
		want[u] = "ok"
	}
	fleet := &crew{world: w, size: []string{"--concurrency", "32"}}
	workers := []*process{fleet.hire("one"), fleet.hire("two")}
	producer, feed := w.fed(unlimited...)
	feed(urls[:2000])
	await(t, time.Minute, "the job is under way", func() bool { return w.status().Recorded() > 100 })

	w.redis.Kill()
	at := time.Now()
	feed(urls[2000:])
	feed(nil)
	for _, p := range workers {
		address := w.address(p)
		await(t, 10*time.Second, "the worker says that Redis is away", func() bool {
			code, reason := ready(t, address)
			return code == 503 && strings.Contains(reason, "redis")
		})
		t.Logf("%s says so after %.1f s", p.name, time.Since(at).Seconds())
	}
	time.Sleep(5 * time.Second) // what was in flight has ended by now
	measured, before := time.Now(), make([]time.Duration, len(workers))
	for i, p := range workers {
		before[i] = cpuTime(t, p.os.Pid)
	}
	time.Sleep(time.Until(at.Add(away)))
	for i, p := range workers {
		used, length := cpuTime(t, p.os.Pid)-before[i], time.Since(measured)
		t.Logf("%s used %s of processor time in %.1f s without Redis", p.name, used, length.Seconds())
		if used > length/10 {
			t.Errorf("%s spins while Redis is away: %s of processor time in %s", p.name, used, length)
		}
	}
	recorded := len(w.records()) // by the store: Redis cannot be asked
	w.redis.Restart()
	back := time.Now()
	await(t, 20*time.Second, "the fleet goes on", func() bool { return w.status().Recorded() > int64(recorded) })
	t.Logf("the fleet went on %.1f s after Redis was back", time.Since(back).Seconds())
	if code := producer.exit(time.Minute); code != 0 {
		t.Errorf("the producer: exit code %d, want 0", code)
	}
	if res := w.result(producer); res.BadLines != 0 || res.Lines != int64(len(urls)) {
		t.Errorf("the producer: %+v, want %d lines, none bad", res, len(urls))
	}
	for _, p := range workers {
		await(t, 10*time.Second, "the worker is ready", func() bool { code, _ := ready(t, w.address(p)); return code == 200 })
	}
	w.ends(2 * time.Minute)
	fleet.dismiss()
	w.whole(want)
	t.Logf("the origin saw %d requests more than there are URLs", w.origin.Total()-len(urls))
}

// fed starts a producer that reads what feed is given, until feed is given nothing. feed does not wait for it.
func (w *world) fed(extra ...string) (p *process, feed func(urls []string)) {
	w.t.Helper()
	input, output, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	p = w.producer(input, extra...)
	input.Close() // the producer has it
	lines := make(chan []string, 10)
	var writing sync.WaitGroup
	writing.Go(func() {
		defer output.Close()
		for urls := range lines {
			if _, err := io.Copy(output, list(urls)); err != nil {
				return // the producer has ended
			}
		}
	})
	end := sync.OnceFunc(func() { close(lines) })
	w.t.Cleanup(func() {
		end()
		output.Close() // ends a write that nobody reads
		writing.Wait()
	})
	return p, func(urls []string) {
		if urls == nil {
			end()
			return
		}
		lines <- urls
	}
}

// TestProducerGivesUpNamingTheJob leaves Redis away until the producer loses patience, and then runs it again.
func TestProducerGivesUpNamingTheJob(t *testing.T) {
	if testing.Short() {
		t.Skip("a producer waits a minute for Redis")
	}
	t.Parallel()
	w := newWorld(t)
	var urls []string
	want := map[string]string{}
	for i := range 200 {
		u := fmt.Sprintf("%s/page/%d", w.origin.Host(1+i%4), i)
		// A body that does not fit into a payload goes to Redis while the list is read.
		urls = append(urls, fmt.Sprintf(`{"url":%q,"method":"POST","body":%q}`, u, strings.Repeat("x", 5000)))
		want[u] = "ok"
	}
	producer, feed := w.fed(unlimited...)
	feed(urls[:100])
	await(t, 30*time.Second, "some are accepted", func() bool { return w.status().Accepted > 0 })
	w.redis.Kill()
	feed(urls[100:])
	feed(nil)
	if code := producer.exit(3 * time.Minute); code != 1 {
		t.Errorf("the producer: exit code %d, want 1", code)
	}
	if said := producer.text(); !strings.Contains(said, "--job "+job) || !strings.Contains(said, "no Redis at "+w.redis.Addr()) {
		t.Errorf("the producer said %q, want no Redis at %s, and --job %s to continue", said, w.redis.Addr(), job)
	}
	if res := w.result(producer); res.BadLines != 0 || res.Sealed {
		t.Errorf("the producer: %+v, want no bad lines and a job that is not sealed", res)
	}
	w.redis.Restart()
	w.enqueue(urls, unlimited...)
	worker := w.worker("worker")
	w.ends(time.Minute)
	worker.terminate(20 * time.Second)
	w.whole(want)
}

// TestRedisThatCannotBeUsedIsNamed starts each command on a Redis that is not there, or does not let it in.
func TestRedisThatCannotBeUsedIsNamed(t *testing.T) {
	t.Parallel()
	closed := nobody(t)
	guarded := redistest.Start(t, redistest.Password("right"))
	for _, c := range []struct{ name, url, want string }{
		{"no Redis", "redis://" + closed, "no Redis at " + closed},
		{"no password", "redis://" + guarded.Addr(), "wants a password"},
		{"wrong password", "redis://:wrong@" + guarded.Addr(), "wrong user or password"},
	} {
		for _, args := range [][]string{
			{"worker", "--store", t.TempDir(), "--listen", ""},
			{"enqueue", "--job", job},
			{"fleet", "status", job},
			{"fleet", "audit", job, "--store", t.TempDir()},
		} {
			t.Run(args[0]+" "+c.name, func(t *testing.T) {
				t.Parallel()
				p := start(t, command{name: args[0], args: with(args[1:], "--redis", c.url), stdin: list([]string{"http://example.com/"})})
				if code := p.exit(30 * time.Second); code != 1 {
					t.Errorf("exit code %d, want 1", code)
				}
				said := p.text()
				if !strings.Contains(said, c.want) || !strings.Contains(said, "--redis") {
					t.Errorf("said %q, want %q and the flag --redis", said, c.want)
				}
				if strings.Contains(said, ":wrong@") {
					t.Errorf("said the password: %q", said)
				}
			})
		}
	}
}

// nobody returns an address where nobody listens.
func nobody(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
