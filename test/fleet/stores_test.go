//go:build unix

package fleet_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch/fetchtest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
)

// drivers open an empty store of each kind, the real thing behind it, and return its URL.
var drivers = map[string]func(t *testing.T) string{
	"file":      func(t *testing.T) string { return "file:" + filepath.Join(t.TempDir(), "store") },
	"warc":      func(t *testing.T) string { return "warc:" + filepath.Join(t.TempDir(), "store") },
	"warc zstd": func(t *testing.T) string { return "warc:" + filepath.Join(t.TempDir(), "store") + "?compress=zstd" },
	"s3":        s3Store,
	"s3 warc":   func(t *testing.T) string { return s3Store(t) + "&format=warc" },
	"postgres":  pgStore,
}

// s3Store opens an empty prefix of a bucket of a server of its own.
func s3Store(t *testing.T) string { return s3test.StartBeside(t).URL("soak") }

// pgStore opens an empty database of a server of its own.
func pgStore(t *testing.T) string { return pgtest.Start(t).Database(t) }

// kills is how often a worker is killed in a soak.
func kills() int {
	if os.Getenv("FLEET_SOAK") != "" {
		return 100
	}
	return 5
}

// urlsPerKill is how long a list is, so that the job outlasts the kills.
const urlsPerKill = 250

// TestSoakStores kills workers at random moments while they fill a store of each kind, and then counts.
func TestSoakStores(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a minute")
	}
	for claim, open := range drivers {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			soak(t, open(t))
		})
	}
}

// soak has three workers fill a store, of which one is killed and replaced again and again.
func soak(t *testing.T, url string) {
	w := newWorld(t)
	w.store = url
	urls, want := w.varied(urlsPerKill * kills())
	w.enqueue(urls, variedPolicy...)
	fleet := &crew{world: w, size: []string{"--visits", "32", "--concurrency", "16"}}
	staff := []*process{fleet.hire("w0"), fleet.hire("w1"), fleet.hire("w2")}
	w.takesBatches(staff[0])
	for kill := range kills() {
		time.Sleep(time.Duration(200+rand.IntN(1800)) * time.Millisecond) // at random is what this is about
		i := kill % len(staff)
		staff[i].kill()
		staff[i] = fleet.hire(fmt.Sprint("w", i))
		if w.status().State == "ended" {
			t.Fatalf("the job ended after %d kills: it is too short", kill)
		}
	}
	w.ends(5*time.Minute + time.Duration(kills())*6*time.Second) // six drivers share the machine
	fleet.dismiss()
	w.whole(want)
	w.verify()
	w.checkLarge()
}

// largeBody is the size of the large bodies of varied lists.
const largeBody = 2 << 20

// variedPolicy is for varied lists.
var variedPolicy = []string{"--host-rate", "0", "--host-conns", "4", "--retries", "3", "--backoff", "base=100ms,cap=200ms,jitter=none",
	"--resume-above", "1MiB", "--robots", "ignore"}

// varied is a list of n pages on some hosts, most of them slow, some missing, redirected, coded or large, with
// what is to become of each.
func (w *world) varied(n int) (urls []string, want map[string]string) {
	want = map[string]string{}
	for i := range n {
		host := w.origin.Host(1 + i%8)
		if i%100 == 19 {
			want[fmt.Sprintf("%s/resumable?kb=2048&every=1536&seed=%d", host, i)] = "ok"
			continue
		}
		switch i % 20 {
		case 7:
			want[fmt.Sprintf("%s/status/404?n=%d", host, i)] = "http_404"
		case 11:
			want[fmt.Sprintf("%s/redirect?to=/page/%d", host, i)] = "ok"
		case 15:
			want[fmt.Sprintf("%s/gzip?size=%d", host, 5000+i)] = "ok"
		default:
			want[fmt.Sprintf("%s/slow/%d?ms=%d", host, i, 50+i%200)] = "ok"
		}
	}
	return slices.Sorted(maps.Keys(want)), want
}

// verify runs fleet verify, which must find nothing wrong.
func (w *world) verify(extra ...string) {
	w.t.Helper()
	p := start(w.t, command{name: "fleet", args: append([]string{"verify", job, "--store", w.store, "--json"}, extra...)})
	if code := p.exit(2 * time.Minute); code != 0 {
		w.t.Errorf("verify: exit code %d, want 0: %.2000s", code, p.stdout.String())
	}
	if !json.Valid(p.stdout.Bytes()) {
		w.t.Errorf("verify: its result is no JSON: %q", p.stdout.String())
	}
}

// checkLarge holds the large bodies against what the origin serves.
func (w *world) checkLarge() {
	w.t.Helper()
	for u, r := range w.records() {
		var seed int
		if _, err := fmt.Sscanf(u[len(w.origin.Host(1)):], "/resumable?kb=2048&every=1536&seed=%d", &seed); err != nil || r.Outcome != store.OK {
			continue
		}
		h := sha256.New()
		if _, err := io.Copy(h, fetchtest.Resumable(seed, largeBody)); err != nil {
			w.t.Fatal(err)
		}
		if want := hex.EncodeToString(h.Sum(nil)); r.SHA256 != want || r.Bytes != largeBody {
			w.t.Errorf("%s: %d bytes with digest %s, want %s", u, r.Bytes, r.SHA256, want)
		}
	}
}
