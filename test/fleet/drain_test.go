//go:build unix

package fleet_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSIGTERMWithSlowBodies stops a worker while bodies trickle in: those that end within the drain time are kept, the
// others are handed back and fetched by another worker, and at no time is half a file to be seen.
func TestSIGTERMWithSlowBodies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name   string
		drain  time.Duration
		finish bool // the bodies in flight end within the drain time
	}{
		{"drain time that suffices keeps what is in flight", 20 * time.Second, true},
		{"drain time that is too short hands it back", time.Second, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			want := map[string]string{}
			var urls []string
			for i := range 24 { // 3 s each
				u := fmt.Sprintf("%s/drip?bytes=30&ms=100&n=%d", w.origin.Host(1+i%3), i)
				urls = append(urls, u)
				want[u] = "ok"
			}
			w.enqueue(urls, unlimited...)
			watch := watchStore(t, w.store)
			first := w.worker("first", "--concurrency", "8", "--drain-timeout", c.drain.String())
			await(t, 20*time.Second, "eight bodies trickle in", func() bool { return w.origin.Total()-w.origin.Count("/robots.txt") == 8 })
			told := time.Now()
			first.terminate(c.drain + 5*time.Second)
			t.Logf("it ended %.1f s after SIGTERM", time.Since(told).Seconds())
			inFlight := int64(0)
			if c.finish {
				inFlight = 8
			}
			if s := w.status(); s.OK != inFlight || s.Open != 24-inFlight || w.origin.Total()-w.origin.Count("/robots.txt") != 8 {
				t.Errorf("after SIGTERM: %d ok, %d open, %d requested; want %d, %d, 8", s.OK, s.Open, w.origin.Total(), inFlight, 24-inFlight)
			}
			second := w.worker("second")
			w.ends(time.Minute)
			second.terminate(20 * time.Second)
			watch.end()
			w.whole(want)
			for u, r := range w.records() {
				if r.Bytes != 30 {
					t.Errorf("body of %s: %d bytes, want 30", u, r.Bytes)
				}
			}
		})
	}
}

// storeWatch looks at a store's visible files, over and over.
type storeWatch struct {
	t       testing.TB
	dir     string
	stop    chan struct{}
	running sync.WaitGroup
	looks   int
	files   int // seen by the last look
	once    sync.Once
}

func watchStore(t testing.TB, dir string) *storeWatch {
	s := &storeWatch{t: t, dir: dir, stop: make(chan struct{})}
	s.running.Go(func() {
		for {
			s.look()
			select {
			case <-s.stop:
				return
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	t.Cleanup(s.end)
	return s
}

func (s *storeWatch) end() {
	s.once.Do(func() {
		close(s.stop)
		s.running.Wait()
		s.look() // and once more, when nothing moves
		s.t.Logf("%d looks at the store, the last at %d files", s.looks, s.files)
		if s.files == 0 {
			s.t.Error("the store holds no file: nothing was watched")
		}
	})
}

func (s *storeWatch) look() {
	s.looks++
	s.files = 0
	for _, folder := range []string{"bodies", "records", "accounts"} {
		err := filepath.WalkDir(filepath.Join(s.dir, job, folder), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() {
				return err
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			s.files++
			if what := halfWritten(folder, path, data); what != "" {
				s.t.Errorf("%s of %d bytes is visible, but %s", path, len(data), what)
			}
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.t.Error(err)
		}
	}
}

// halfWritten says what is missing from a visible file, "" when it is whole.
func halfWritten(folder, path string, data []byte) string {
	switch folder {
	case "bodies":
		name, _, _ := strings.Cut(filepath.Base(path), ".")
		if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != name {
			return "its digest is not its name"
		}
	case "accounts":
		if !json.Valid(data) {
			return "it is not JSON"
		}
	default:
		if !strings.HasSuffix(string(data), "\n") {
			return "its last line has no end"
		}
		for line := range strings.Lines(string(data)) {
			if !json.Valid([]byte(line)) {
				return "a line is not JSON"
			}
		}
	}
	return ""
}
