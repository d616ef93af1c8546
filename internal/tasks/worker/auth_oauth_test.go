package worker_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// bank gives out tokens to the one client it knows, each good for a number of requests or for a time, and serves pages to
// those who bring the newest.
type bank struct {
	*httptest.Server
	mu     sync.Mutex
	issued int
	asked  int           // exchanges at the token endpoint
	uses   int           // of the newest token
	lasts  int           // uses that a token is good for, 0 = any number
	life   time.Duration // told; 0 = it does not say
	fails  func(w http.ResponseWriter, n int) bool
	form   []string
	wrong  int // pages asked for without the newest token
}

func newBank(t *testing.T) *bank {
	t.Helper()
	b := &bank{}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /token", b.token)
	mux.HandleFunc("/", b.page)
	b.Server = httptest.NewServer(mux)
	t.Cleanup(b.Close)
	return b
}

func (b *bank) token(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked++
	if b.fails != nil && b.fails(w, b.asked) {
		return
	}
	id, secret, _ := r.BasicAuth()
	if id != "client-1" || secret != hidden["FLEET_SECRET_CLIENT"] || r.FormValue("grant_type") != "client_credentials" {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = fmt.Fprintf(w, `{"error":"invalid_client","error_description":"no client with %s"}`, secret)
		return
	}
	b.form = append(b.form, r.FormValue("scope")+"|"+r.FormValue("audience"))
	b.issued, b.uses = b.issued+1, 0
	life := ""
	if b.life > 0 {
		life = fmt.Sprintf(`,"expires_in":%d`, int(b.life.Seconds()))
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = fmt.Fprintf(w, `{"access_token":%q,"token_type":"bearer"%s}`, b.newest(), life)
}

func (b *bank) newest() string { return fmt.Sprintf("issued-token-%d-value", b.issued) }

func (b *bank) page(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.issued == 0 || r.Header.Get("Authorization") != "Bearer "+b.newest() || b.lasts > 0 && b.uses >= b.lasts {
		b.wrong++
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	b.uses++
	_, _ = io.WriteString(w, "page")
}

func (b *bank) spec() tasks.Spec {
	spec := fastSpec()
	spec.OAuth = &tasks.OAuth{TokenURL: b.URL + "/token", ClientID: "client-1", ClientSecret: "${env:FLEET_SECRET_CLIENT}",
		Scope: "read write", Audience: "https://api.example"}
	return spec
}

func (b *bank) list(n int) []string {
	var list []string
	for i := range n {
		list = append(list, fmt.Sprintf("%s/p/%d", b.URL, i))
	}
	return list
}

func TestATokenIsAskedForOnceAndRenewedWhenItEnds(t *testing.T) {
	for claim, c := range map[string]struct {
		lasts int
		life  time.Duration
		conns int
		pages int
		asked int
	}{
		"one for all, however many wait for it": {conns: 16, life: time.Hour, pages: 100, asked: 1},
		"one that names no end":                 {conns: 4, pages: 20, asked: 1},
		"another after a 401":                   {conns: 1, lasts: 10, life: time.Hour, pages: 30, asked: 3},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			var log lines
			defer f.guarded(&log)()
			b := newBank(t)
			b.lasts, b.life = c.lasts, c.life
			spec := b.spec()
			spec.HostConns = c.conns
			f.enqueue("tokens", spec, b.list(c.pages)...)
			if got := f.await("tokens", within); got.OK != int64(c.pages) {
				t.Errorf("status %+v", got)
			}
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.asked != c.asked {
				t.Errorf("the endpoint was asked %d times, want %d", b.asked, c.asked)
			}
			if want := c.asked - 1; b.wrong != want {
				t.Errorf("%d pages were refused, want %d", b.wrong, want)
			}
			if b.form[0] != "read write|https://api.example" {
				t.Errorf("asked for %s", b.form[0])
			}
			f.wantHidden(&log, "issued-token")
		})
	}
}

func TestATokenIsRenewedBeforeItsEnd(t *testing.T) {
	f := newFleet(t)
	defer f.guarded(&lines{})()
	b := newBank(t)
	b.life = time.Second // a tenth of it is left for the way
	spec := b.spec()
	spec.HostConns, spec.HostRate = 1, 10
	f.enqueue("life", spec, b.list(25)...)
	got := f.await("life", within)
	b.mu.Lock()
	defer b.mu.Unlock()
	if got.OK != 25 || b.issued < 2 || b.wrong != 0 {
		t.Errorf("%d tokens, %d pages refused, status %+v", b.issued, b.wrong, got)
	}
}

func TestTroubleAtTheTokenEndpointIsOfClassAuth(t *testing.T) {
	for claim, c := range map[string]struct {
		fails    func(w http.ResponseWriter, n int) bool
		secret   string
		attempts int
		says     string
	}{
		"for a while: tried again": {func(w http.ResponseWriter, n int) bool {
			if n <= 2 {
				w.WriteHeader(http.StatusBadGateway)
			}
			return n <= 2
		}, "${env:FLEET_SECRET_CLIENT}", 0, ""},
		"a client that it does not know: final": {nil, "${env:FLEET_SECRET_PASSWORD}", 1, "it answered 401 invalid_client"},
		"no token in its answer: final": {func(w http.ResponseWriter, _ int) bool {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"token":"x"}`)
			return true
		}, "${env:FLEET_SECRET_CLIENT}", 1, "its answer holds no token"},
		"a redirect is not followed: final": {func(w http.ResponseWriter, _ int) bool {
			w.Header().Set("Location", "/elsewhere")
			w.WriteHeader(http.StatusTemporaryRedirect)
			return true
		}, "${env:FLEET_SECRET_CLIENT}", 1, "it answered 307"},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			var log lines
			defer f.guarded(&log)()
			b := newBank(t)
			b.fails = c.fails
			spec := b.spec()
			spec.OAuth.ClientSecret = c.secret
			spec.Backoff.Base = tasks.Duration(time.Second) // as long as the endpoint is left alone
			r := f.one(spec, b.URL+"/")
			if c.attempts == 0 {
				if r.Status != 200 || r.Attempts < 2 {
					t.Errorf("status %d after %d attempts: %+v", r.Status, r.Attempts, r.Error)
				}
				return
			}
			if r.Error == nil || r.Error.Class != "auth" || r.Attempts != c.attempts || !strings.Contains(r.Error.Message, c.says) {
				t.Errorf("%d attempts: %+v, want %q", r.Attempts, r.Error, c.says)
			}
			f.wantHidden(&log)
		})
	}
}

// A job that may name any token endpoint could else have the worker knock at doors of its own network.
func TestATokenEndpointIsBehindTheGuardOfAddresses(t *testing.T) {
	f := newFleet(t)
	defer f.guarded(&lines{})()
	b := newBank(t)
	spec := b.spec()
	spec.OAuth.TokenURL = "http://10.1.2.3/token"
	r := f.one(spec, b.URL+"/")
	if r.Error == nil || r.Error.Class != "auth" || !strings.Contains(r.Error.Message, "10.1.2.3") || r.Attempts != 1 {
		t.Errorf("%d attempts: %+v", r.Attempts, r.Error)
	}
}
