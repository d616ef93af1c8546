package worker_test

import (
	"bytes"
	"compress/gzip"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hibiken/asynq"
	"github.com/mccutchen/go-httpbin/v2/httpbin"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/warcstore"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

// hidden are the secrets of these tests, by variable. None may be seen anywhere but at the server.
var hidden = map[string]string{
	"FLEET_SECRET_TOKEN": "t0k3n-value-7", "FLEET_SECRET_PASSWORD": "pa55word-value", "FLEET_SECRET_CLIENT": "cl13nt-secret-value",
}

// vault resolves references to hidden.
func vault(t *testing.T) *secrets.Source {
	t.Helper()
	s, err := secrets.New(secrets.Options{Dirs: []string{}, Lookup: func(name string) (string, bool) { v, ok := hidden[name]; return v, ok }})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// lines is a log that tests read.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// guarded starts a worker with the vault, whose log at level debug is kept.
func (f *fleet) guarded(log *lines) (stop func()) {
	f.t.Helper()
	return f.start(func(o *worker.Options) {
		o.Secrets = vault(f.t)
		o.Logger = zerolog.New(io.MultiWriter(zerolog.NewTestWriter(f.t), log)).Level(zerolog.DebugLevel)
	})
}

// wantHidden looks for secrets wherever a fleet leaves anything: in every key of Redis, the files of the store, the log.
func (f *fleet) wantHidden(log *lines, more ...string) {
	f.t.Helper()
	seen := map[string]bool{} // what is not found in a place that tells something is not there
	tells := map[string]string{"key": "fetchfleet:", "file": "127.0.0.1", "log": "delivery ended"}
	check := func(where, text string) {
		kind, _, _ := strings.Cut(where, " ")
		seen[kind] = seen[kind] || strings.Contains(text, tells[kind])
		for _, secret := range slices.Concat(slices.Collect(maps.Values(hidden)), more) {
			if strings.Contains(text, secret) {
				f.t.Errorf("%s holds %s", where, secret)
			}
		}
	}
	keys := 0
	for it := f.rdb.Scan(f.t.Context(), 0, "*", 1000).Iterator(); it.Next(f.t.Context()); keys++ {
		check("key", it.Val())
		check("key "+it.Val(), dump(f.t, f.rdb, it.Val()))
	}
	files := 0
	err := filepath.WalkDir(f.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := readAll(path)
		check("file "+path, text)
		return err
	})
	if err != nil || keys < 3 || files == 0 {
		f.t.Errorf("looked at %d keys and %d files (%v)", keys, files, err)
	}
	log.mu.Lock()
	defer log.mu.Unlock()
	if log.text.Len() == 0 {
		f.t.Error("the log is empty")
	}
	check("log", log.text.String())
	if !seen["key"] || !seen["file"] || !seen["log"] {
		f.t.Errorf("looked for secrets in places that tell nothing: %v", seen)
	}
}

// dump is everything that a key holds.
func dump(t *testing.T, rdb redis.UniversalClient, key string) string {
	t.Helper()
	ctx := t.Context()
	switch kind := rdb.Type(ctx, key).Val(); kind {
	case "string":
		return rdb.Get(ctx, key).Val()
	case "hash":
		return fmt.Sprint(rdb.HGetAll(ctx, key).Val())
	case "set":
		return fmt.Sprint(rdb.SMembers(ctx, key).Val())
	case "zset":
		return fmt.Sprint(rdb.ZRange(ctx, key, 0, -1).Val())
	case "list":
		return fmt.Sprint(rdb.LRange(ctx, key, 0, -1).Val())
	default:
		return fmt.Sprint(rdb.XRange(ctx, key, "-", "+").Val())
	}
}

// inWARC puts a store that archives requests in the place of the fleet's.
func (f *fleet) inWARC() {
	f.t.Helper()
	f.dir = f.t.TempDir()
	s, err := warcstore.Open(f.t.Context(), f.dir, warcstore.Options{})
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { _ = s.Close() })
	f.store = s
}

// readAll is what a file says, unpacked.
func readAll(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil || !strings.HasSuffix(path, ".gz") || len(data) == 0 {
		return string(data), err
	}
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return "", err
	}
	text, err := io.ReadAll(r)
	return string(data) + string(text), err
}

func TestSchemesAreTakenByAServer(t *testing.T) {
	app := httptest.NewServer(httpbin.New())
	defer app.Close()
	password := hidden["FLEET_SECRET_PASSWORD"]
	for claim, c := range map[string]struct {
		path string
		auth tasks.AuthSpec
		want int
	}{
		"basic":               {"/basic-auth/ada/" + password, tasks.AuthSpec{Basic: "ada:${env:FLEET_SECRET_PASSWORD}"}, 200},
		"basic, other user":   {"/basic-auth/ada/" + password, tasks.AuthSpec{Basic: "bob:${env:FLEET_SECRET_PASSWORD}"}, 401},
		"bearer":              {"/bearer", tasks.AuthSpec{Bearer: "${env:FLEET_SECRET_TOKEN}"}, 200},
		"nothing":             {"/bearer", tasks.AuthSpec{}, 401},
		"digest, MD5":         {"/digest-auth/auth/ada/" + password + "/MD5", tasks.AuthSpec{Digest: "ada:${env:FLEET_SECRET_PASSWORD}"}, 200},
		"digest, SHA-256":     {"/digest-auth/auth/ada/" + password + "/SHA-256?q=%20a", tasks.AuthSpec{Digest: "ada:${env:FLEET_SECRET_PASSWORD}"}, 200},
		"digest, other user":  {"/digest-auth/auth/ada/" + password, tasks.AuthSpec{Digest: "bob:${env:FLEET_SECRET_PASSWORD}"}, 401},
		"digest, but no such": {"/bearer", tasks.AuthSpec{Digest: "bob:${env:FLEET_SECRET_PASSWORD}"}, 401},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			defer f.guarded(&lines{})()
			spec := fastSpec()
			spec.AuthSpec = c.auth
			if r := f.one(spec, app.URL+c.path); r.Status != c.want || r.Attempts != 1 {
				t.Errorf("status %d after %d attempts: %+v", r.Status, r.Attempts, r.Error)
			}
		})
	}
}

// demanding is a server that answers 200 to who sends a header field with this value, and 403 to others.
func demanding(t *testing.T, field, value string) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(field) != value {
			w.WriteHeader(http.StatusForbidden)
		}
		_, _ = io.WriteString(w, "page")
	}))
	t.Cleanup(s.Close)
	return s
}

func TestSecretsAreSeenByTheServerAlone(t *testing.T) {
	basic := base64.StdEncoding.EncodeToString([]byte("ada:" + hidden["FLEET_SECRET_PASSWORD"]))
	bearer := "Bearer " + hidden["FLEET_SECRET_TOKEN"]
	for claim, c := range map[string]struct {
		field, value string
		spec         tasks.AuthSpec
		header       tasks.Header
		line         string
	}{
		"basic":                 {"Authorization", "Basic " + basic, tasks.AuthSpec{Basic: "ada:${env:FLEET_SECRET_PASSWORD}"}, nil, ""},
		"bearer":                {"Authorization", bearer, tasks.AuthSpec{Bearer: "${env:FLEET_SECRET_TOKEN}"}, nil, ""},
		"a header of the job":   {"X-Api-Key", hidden["FLEET_SECRET_TOKEN"], tasks.AuthSpec{Secrets: true}, tasks.Header{"X-Api-Key": {"${env:FLEET_SECRET_TOKEN}"}}, ""},
		"a header of a line":    {"Authorization", bearer, tasks.AuthSpec{}, nil, `"headers":{"authorization":"Bearer ${env:FLEET_SECRET_TOKEN}"}`},
		"a line before a job":   {"Authorization", bearer, tasks.AuthSpec{Basic: "ada:${env:FLEET_SECRET_PASSWORD}"}, nil, `"headers":{"authorization":"Bearer ${env:FLEET_SECRET_TOKEN}"}`},
		"$${ is no reference":   {"X-Api-Key", "${env:FLEET_SECRET_TOKEN}", tasks.AuthSpec{}, nil, `"headers":{"X-Api-Key":"$${env:FLEET_SECRET_TOKEN}"}`},
		"a reference in Cookie": {"Cookie", "s=" + hidden["FLEET_SECRET_TOKEN"], tasks.AuthSpec{Cookies: true}, nil, `"headers":{"Cookie":"s=${env:FLEET_SECRET_TOKEN}"}`},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			f.inWARC()
			var log lines
			defer f.guarded(&log)()
			s := demanding(t, c.field, c.value)
			spec := fastSpec()
			spec.AuthSpec, spec.Header = c.spec, c.header
			line := s.URL + "/"
			if c.line != "" {
				line = fmt.Sprintf(`{"url":%q,%s}`, line, c.line)
			}
			if r := f.one(spec, line); r.Status != 200 || r.Attempts != 1 {
				t.Errorf("status %d after %d attempts: %+v", r.Status, r.Attempts, r.Error)
			}
			f.wantHidden(&log, basic)
		})
	}
}

// While a request waits or has left its batch, it stands in asynq with all it brings.
func TestSecretsDoNotTravelThroughRedis(t *testing.T) {
	f := newFleet(t)
	var log lines
	defer f.guarded(&log)()
	spec := fastSpec()
	spec.Bearer, spec.Secrets, spec.Cookies = "${env:FLEET_SECRET_TOKEN}", true, true
	spec.Header = tasks.Header{"X-Key": {"${env:FLEET_SECRET_PASSWORD}"}}
	f.enqueue("travel", spec, f.origin.URL("/page/1"),
		fmt.Sprintf(`{"url":%q,"headers":{"X-Own":"${env:FLEET_SECRET_CLIENT}"}}`, f.origin.Host(3)+"/retry-after/60"),
		fmt.Sprintf(`{"url":%q,"headers":{"X-Own":"${env:FLEET_SECRET_CLIENT}"}}`, f.origin.URL("/redirect?code=307&to="+f.origin.Host(2)+"/hang")))
	for deadline := time.Now().Add(within); ; <-time.After(20 * time.Millisecond) {
		s, err := f.ledger.Status(t.Context(), "travel")
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("%+v, %v; asked %v, %d scheduled", s, err, f.origin.Counts(), len(f.list(asynq.TaskStateScheduled)))
		}
		if s.OK == 1 && s.Batches == 2 && f.origin.Count("/hang") == 1 && len(f.list(asynq.TaskStateScheduled)) == 1 {
			break
		}
	}
	waits := f.list(asynq.TaskStateScheduled)[0]
	if text := string(waits.Payload); !strings.Contains(text, "X-Own") || !strings.Contains(text, "${env:FLEET_SECRET_CLIENT}") {
		t.Errorf("what waits: %s", text)
	}
	f.wantHidden(&log)
}

// A server that quotes what it was sent in an answer that is none has it in the error, which stands in records and Redis.
func TestAnErrorThatQuotesASecretIsCleaned(t *testing.T) {
	f := newFleet(t)
	var log lines
	defer f.guarded(&log)()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_, _ = fmt.Fprintf(conn, "%s\r\n\r\n", r.Header.Get("Authorization"))
			_ = conn.Close()
		}
	})}
	go func() { _ = s.Serve(listener) }()
	defer s.Close()
	spec := fastSpec()
	spec.Bearer = "${env:FLEET_SECRET_TOKEN}"
	r := f.one(spec, "http://"+listener.Addr().String()+"/")
	if r.Error == nil || r.Error.Class != "protocol" || !strings.Contains(r.Error.Message, secrets.Hidden) {
		t.Errorf("error %+v, want one with %s in it", r.Error, secrets.Hidden)
	}
	f.wantHidden(&log)
}

func TestASecretThatThisWorkerDoesNotHaveEndsTheRequest(t *testing.T) {
	for claim, c := range map[string]struct {
		auth tasks.AuthSpec
		line string
		says string
	}{
		"not allowed":   {tasks.AuthSpec{Bearer: "${env:PATH}"}, "", "--bearer: secret ${env:PATH}: this worker may not resolve it: --secret-env allows FLEET_SECRET_*"},
		"not there":     {tasks.AuthSpec{Basic: "u:${env:FLEET_SECRET_GONE}"}, "", "--basic: secret ${env:FLEET_SECRET_GONE}: it is not there"},
		"in a header":   {tasks.AuthSpec{}, `"headers":{"X-K":"${env:HOME}"}`, "header X-K: secret ${env:HOME}: this worker may not"},
		"a certificate": {tasks.AuthSpec{ClientCert: "${env:FLEET_SECRET_TOKEN}", ClientKey: "${env:FLEET_SECRET_TOKEN}"}, "", "${env:FLEET_SECRET_TOKEN}: tls: failed to find any PEM data"},
	} {
		t.Run(claim, func(t *testing.T) {
			f := newFleet(t)
			var log lines
			defer f.guarded(&log)()
			spec := fastSpec()
			spec.AuthSpec = c.auth
			line := f.origin.URL("/page/1")
			if c.line != "" {
				line = fmt.Sprintf(`{"url":%q,%s}`, line, c.line)
			}
			r := f.one(spec, line)
			if r.Outcome != store.Failed || r.Error.Class != "secret" || !strings.Contains(r.Error.Message, c.says) || r.Attempts != 1 {
				t.Errorf("%s after %d attempts: %+v, want %q", r.Outcome, r.Attempts, r.Error, c.says)
			}
			if n := f.origin.Total(); n != 0 {
				t.Errorf("%d requests were sent", n)
			}
			f.wantHidden(&log)
		})
	}
}

// What is meant for one host must not reach another, whoever sends the worker there.
func TestCredentialsStayAtTheOriginOfTheList(t *testing.T) {
	f := newFleet(t)
	var log lines
	defer f.guarded(&log)()
	spec := fastSpec()
	spec.Bearer, spec.Secrets = "${env:FLEET_SECRET_TOKEN}", true
	spec.Header = tasks.Header{"X-Key": {"${env:FLEET_SECRET_PASSWORD}"}, "X-Plain": {"stays"}}
	back := f.origin.Host(2) + "/redirect?to=" + url.QueryEscape(f.origin.URL("/echo"))
	for claim, c := range map[string]struct {
		target string
		want   bool
	}{
		"to the same origin":               {f.origin.URL("/echo"), true},
		"after a redirect within it":       {f.origin.URL("/redirect?to=/echo"), true},
		"not after one to another":         {f.origin.URL("/redirect?to=" + f.origin.Host(2) + "/echo"), false},
		"not when another leads them back": {f.origin.URL("/redirect?to=" + url.QueryEscape(back)), false},
	} {
		t.Run(claim, func(t *testing.T) {
			job := tasks.JobID(strings.ReplaceAll(claim, " ", "-"))
			f.enqueue(job, spec, c.target)
			f.await(job, within)
			for _, r := range f.records(job) {
				if r.Status != 200 {
					t.Fatalf("%+v", r)
				}
				header := f.echo(r).Header
				key, auth := header.Get("X-Key") != "", header.Get("Authorization") != ""
				if key != c.want || auth != c.want || header.Get("X-Plain") != "stays" {
					t.Errorf("sent %v", header)
				}
			}
		})
	}
}

func TestCredentialsGoToTheHostsThatTheJobNames(t *testing.T) {
	f := newFleet(t)
	var log lines
	defer f.guarded(&log)()
	spec := fastSpec()
	spec.Bearer, spec.AuthHosts = "${env:FLEET_SECRET_TOKEN}", []string{"127.0.0.1"}
	f.enqueue("named", spec, f.origin.URL("/echo"), f.origin.Host(2)+"/echo")
	f.await("named", within)
	for _, r := range f.records("named") {
		want := strings.HasPrefix(r.URL, f.origin.URL(""))
		if got := f.echo(r).Header.Get("Authorization") != ""; got != want {
			t.Errorf("%s: credentials sent: %t", r.URL, got)
		}
	}
}
