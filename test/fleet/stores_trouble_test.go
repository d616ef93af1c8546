//go:build unix

package fleet_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

// TestFleetWaitsForItsStore takes the store away in the middle of a job, in the way that each kind has, and gives it back.
func TestFleetWaitsForItsStore(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	tests := map[string]func(t *testing.T) (store string, takeAway, giveBack func()){
		"a full disk under warc":         fullDisk,
		"PostgreSQL restarted":           restartedPostgres,
		"S3 that answers 503":            func(t *testing.T) (string, func(), func()) { return troubledS3(t, refusing) },
		"S3 that cuts every connection":  func(t *testing.T) (string, func(), func()) { return troubledS3(t, cutting) },
		"S3 that cuts answers in halves": func(t *testing.T) (string, func(), func()) { return troubledS3(t, deaf) },
	}
	for claim, prepare := range tests {
		t.Run(claim, func(t *testing.T) {
			t.Parallel()
			store, takeAway, giveBack := prepare(t)
			w := newWorld(t)
			w.store = store
			urls, want := w.varied(400)
			w.enqueue(urls, variedPolicy...)
			fleet := &crew{world: w, size: []string{"--visits", "16", "--concurrency", "8"}}
			one := fleet.hire("w0")
			fleet.hire("w1")
			address := w.address(one)
			await(t, time.Minute, "some is done", func() bool { return w.status().Recorded() > 40 })
			takeAway()
			await(t, 40*time.Second, "a worker says what is wrong with its store", func() bool {
				status, reason := ready(t, address)
				return status == http.StatusServiceUnavailable && strings.Contains(reason, "store")
			})
			recorded := w.status().Recorded()
			giveBack()
			await(t, time.Minute, "the fleet goes on", func() bool { return w.status().Recorded() > recorded })
			w.ends(3 * time.Minute)
			fleet.dismiss()
			w.whole(want)
			w.verify()
		})
	}
}

func restartedPostgres(t *testing.T) (store string, takeAway, giveBack func()) {
	server := pgtest.Start(t)
	return server.Database(t), func() { server.Stop(t) }, func() { server.Restart(t) }
}

// What a proxy does to S3 requests.
const (
	passing int32 = iota
	refusing
	cutting
	deaf // it passes requests on, and breaks off the answers
)

func troubledS3(t *testing.T, how int32) (store string, takeAway, giveBack func()) {
	direct := s3Store(t)
	u, err := url.Parse(direct)
	if err != nil {
		t.Fatal(err)
	}
	query := u.Query()
	target, err := url.Parse(query.Get("endpoint"))
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target); r.Out.Host = r.In.Host }, // the signature covers it
	}
	var mode atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch mode.Load() {
		case refusing:
			w.WriteHeader(http.StatusServiceUnavailable)
		case cutting:
			panic(http.ErrAbortHandler)
		case deaf:
			proxy.ServeHTTP(httptest.NewRecorder(), r)
			panic(http.ErrAbortHandler)
		default:
			proxy.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(server.Close)
	query.Set("endpoint", server.URL)
	u.RawQuery = query.Encode()
	return u.String(), func() { mode.Store(how) }, func() { mode.Store(passing) }
}
