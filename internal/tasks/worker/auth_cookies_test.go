package worker_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/mccutchen/go-httpbin/v2/httpbin"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

func cookieSpec() tasks.Spec {
	spec := fastSpec()
	spec.Cookies, spec.HostConns = true, 1
	return spec
}

func TestCookiesAreSentAfterTheRedirectThatSetThem(t *testing.T) {
	app := httptest.NewServer(httpbin.New())
	defer app.Close()
	for claim, c := range map[string]struct {
		cookies bool
		want    string
	}{"with --cookies": {true, `"k1":"v1"`}, "not without": {false, ""}} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			defer f.guarded(&lines{})()
			spec := cookieSpec()
			spec.Cookies = c.cookies
			r := f.one(spec, app.URL+"/cookies/set?k1=v1") // which redirects to /cookies, which tells them
			body := strings.Join(strings.Fields(f.body(r)), "")
			if r.Status != 200 || !strings.Contains(body, c.want) || strings.Contains(body, "v1") != c.cookies {
				t.Errorf("status %d, %s", r.Status, body)
			}
		})
	}
}

// session is a server that counts up a cookie, and knows who came without the one it set last.
func session(t *testing.T, more ...string) (s *httptest.Server, lost func() int) {
	t.Helper()
	n, without := 0, 0
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := r.Cookie("turn")
		if n > 0 && (err != nil || c.Value != fmt.Sprint("turn-value-", n)) {
			without++
		}
		n++
		http.SetCookie(w, &http.Cookie{Name: "turn", Value: fmt.Sprint("turn-value-", n), Path: "/", HttpOnly: true})
		for _, line := range more {
			w.Header().Add("Set-Cookie", line)
		}
		_, _ = io.WriteString(w, r.Header.Get("Cookie"))
	}))
	t.Cleanup(s.Close)
	return s, func() int { return without }
}

func TestAJarGoesFromVisitToVisitAndFromWorkerToWorker(t *testing.T) {
	f := newFleet(t)
	defer f.guarded(&lines{})()
	defer f.guarded(&lines{})()
	s, lost := session(t, "other=x; Domain=com", "gone=x; Max-Age=0")
	const pages = 200
	var list []string
	for i := range pages {
		list = append(list, fmt.Sprintf("%s/%d", s.URL, i))
	}
	// Each batch is a visit of its own, and while one is at a host with one permit no other begins to ask.
	f.enqueue("walk", cookieSpec(), list...)
	if got := f.await("walk", within); got.OK != pages {
		t.Errorf("status %+v", got)
	}
	if n := lost(); n > 0 {
		t.Errorf("%d of %d requests came without the cookie that was set last", n, pages)
	}
	for _, r := range f.records("walk") {
		if strings.Contains(f.body(r), "other=") || strings.Contains(f.body(r), "gone=") {
			t.Errorf("sent %s", f.body(r))
		}
	}
	keys, err := f.rdb.Keys(t.Context(), "*:jar*").Result()
	if len(keys) != 0 || err != nil {
		t.Errorf("left after the end of the job: %v, %v", keys, err)
	}
}

func TestAJarStandsInRedisWhileTheJobLasts(t *testing.T) {
	f := newFleet(t)
	defer f.guarded(&lines{})()
	s, _ := session(t)
	f.enqueue("open", cookieSpec(), s.URL+"/1", f.origin.URL("/hang"))
	deadline := time.Now().Add(within)
	for {
		values, err := f.rdb.HGetAll(t.Context(), "fetchfleet:{open}:jar:127.0.0.1").Result()
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(values["127.0.0.1;/;turn"], "turn-value-1") {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the jar holds %v", values)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func TestACookieOfTheJobIsAStartThatTheServerMayChange(t *testing.T) {
	f := newFleet(t)
	defer f.guarded(&lines{})()
	s, _ := session(t)
	spec := cookieSpec()
	spec.Header = tasks.Header{"Cookie": {"turn=mine; lang=de"}}
	f.enqueue("mixed", spec, s.URL+"/1", s.URL+"/2")
	f.await("mixed", within)
	got := map[string]bool{}
	for _, r := range f.records("mixed") {
		got[f.body(r)] = true
	}
	if !got["turn=mine; lang=de"] || !got["turn=turn-value-1; lang=de"] {
		t.Errorf("sent %v", got)
	}
}
