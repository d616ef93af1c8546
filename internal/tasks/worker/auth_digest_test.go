package worker_test

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"

	rfc7616 "github.com/icholy/digest"

	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// strict is a server with digest authentication that takes each count of a nonce once (RFC 7616, section 3.4), and a nonce
// for so many requests.
type strict struct {
	*httptest.Server
	mu        sync.Mutex
	challenge rfc7616.Challenge // without the nonce
	lasts     int               // requests that a nonce is good for, 0 = all
	nonces    map[string]map[int]bool
	exchanges int
	refusals  []string // why, of answers that are wrong and not just too old
}

func newStrict(t *testing.T, c rfc7616.Challenge, lasts int) *strict {
	t.Helper()
	s := &strict{challenge: c, lasts: lasts, nonces: map[string]map[int]bool{}}
	s.Server = httptest.NewServer(s)
	t.Cleanup(s.Close)
	return s
}

// ServeHTTP checks the answer, or asks.
func (s *strict) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.exchanges++
	stale := false
	if field := r.Header.Get("Authorization"); field != "" {
		var why string
		if why, stale = s.wrong(r, field, body); why == "" && !stale {
			_, _ = io.WriteString(w, "page")
			return
		}
		if why != "" {
			s.refusals = append(s.refusals, why)
		}
	}
	c := s.challenge
	c.Nonce, c.Stale = fmt.Sprintf("nonce-%d", len(s.nonces)), stale
	s.nonces[c.Nonce] = map[int]bool{}
	w.Header().Add("WWW-Authenticate", `Basic realm="other"`)
	w.Header().Add("WWW-Authenticate", c.String())
	w.WriteHeader(http.StatusUnauthorized)
}

func (s *strict) wrong(r *http.Request, field string, body []byte) (why string, stale bool) {
	got, err := rfc7616.ParseCredentials(field)
	if err != nil {
		return err.Error(), false
	}
	used := s.nonces[got.Nonce]
	if used == nil || used[got.Nc] && got.QOP != "" {
		return fmt.Sprintf("nonce %s with count %d", got.Nonce, got.Nc), false
	}
	if s.lasts > 0 && len(used) >= s.lasts {
		return "", true
	}
	used[got.Nc] = true
	c := s.challenge
	c.Nonce = got.Nonce
	if got.QOP != "" {
		c.QOP = []string{got.QOP}
	}
	want, err := rfc7616.Digest(&c, rfc7616.Options{Method: r.Method, URI: r.RequestURI, Count: got.Nc, Cnonce: got.Cnonce, Username: "ada",
		Password: hidden["FLEET_SECRET_PASSWORD"], GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil }})
	if err != nil || want.Response != got.Response {
		return fmt.Sprintf("response of %s %s (%v)", r.Method, r.RequestURI, err), false
	}
	return "", false
}

func digestSpec() tasks.Spec {
	spec := fastSpec()
	spec.Digest = "ada:${env:FLEET_SECRET_PASSWORD}"
	return spec
}

func TestAChallengeIsAnsweredInAdvanceOnceItIsKnown(t *testing.T) {
	const pages = 60
	for claim, c := range map[string]struct {
		challenge rfc7616.Challenge
		lasts     int
		conns     int
		most      int // exchanges
	}{
		"one at a time":              {rfc7616.Challenge{Realm: "r", Algorithm: "SHA-256", QOP: []string{"auth"}}, 0, 1, pages + 1},
		"many at once":               {rfc7616.Challenge{Realm: "r", Opaque: "o", QOP: []string{"auth-int", " auth"}}, 0, 8, pages + 8},
		"with the body in it":        {rfc7616.Challenge{Realm: "r", Algorithm: "SHA-512-256", QOP: []string{"auth-int"}}, 0, 1, pages + 1},
		"without counts, as of old":  {rfc7616.Challenge{Realm: "r"}, 0, 1, pages + 1},
		"with the user as a hash":    {rfc7616.Challenge{Realm: "r", Algorithm: "SHA-256", QOP: []string{"auth"}, Userhash: true}, 0, 1, pages + 1},
		"a nonce that is soon stale": {rfc7616.Challenge{Realm: "r", QOP: []string{"auth"}}, 10, 1, pages + 6},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			var log lines
			defer f.guarded(&log)()
			s := newStrict(t, c.challenge, c.lasts)
			spec := digestSpec()
			spec.HostConns = c.conns
			spec.Method, spec.Data = "POST", []byte("a=1")
			var list []string
			for i := range pages {
				list = append(list, fmt.Sprintf("%s/p/%d?q=%%20%d", s.URL, i, i))
			}
			f.enqueue("digest", spec, list...)
			if got := f.await("digest", within); got.OK != pages {
				t.Errorf("status %+v", got)
			}
			s.mu.Lock()
			defer s.mu.Unlock()
			if s.exchanges > c.most || len(s.refusals) > 0 {
				t.Errorf("%d exchanges for %d pages, want at most %d; refused: %v", s.exchanges, pages, c.most, slices.Compact(s.refusals))
			}
			f.wantHidden(&log)
		})
	}
}

// With two wrong answers a row many servers lock the account.
func TestAWrongPasswordIsTriedOnce(t *testing.T) {
	f := newFleet(t)
	defer f.guarded(&lines{})()
	s := newStrict(t, rfc7616.Challenge{Realm: "r", QOP: []string{"auth"}}, 0)
	spec := digestSpec()
	spec.Digest = "ada:${env:FLEET_SECRET_TOKEN}"
	if r := f.one(spec, s.URL+"/"); r.Status != 401 || r.Error.Class != "http_401" || r.Attempts != 1 {
		t.Errorf("status %d after %d attempts: %+v", r.Status, r.Attempts, r.Error)
	}
	if s.exchanges != 2 {
		t.Errorf("%d exchanges, want one for the challenge and one for the answer", s.exchanges)
	}
}

// A server that takes no answer, but calls each of them too old, must not keep a worker busy for ever.
func TestAServerThatCallsEveryAnswerStaleIsGivenUp(t *testing.T) {
	f := newFleet(t)
	defer f.guarded(&lines{})()
	exchanges := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		exchanges++
		w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Digest realm="r", nonce="n%d", qop="auth", stale=true`, exchanges))
		w.WriteHeader(http.StatusUnauthorized)
	}))
	defer s.Close()
	if r := f.one(digestSpec(), s.URL+"/"); r.Status != 401 || exchanges != 4 {
		t.Errorf("status %d after %d exchanges, want 401 after 4", r.Status, exchanges)
	}
}
