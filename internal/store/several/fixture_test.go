package several

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/store/jsonl"
)

const job = "job-1"

func folder(t *testing.T, dir string) *filestore.Store {
	t.Helper()
	s, err := filestore.Open(t.Context(), dir, filestore.Options{Worker: "w1", Sync: filestore.SyncOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// pipe is a reader of standard output that keeps what it reads.
type pipe struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.b.Write(b)
}

// lines counts the lines of each record id.
func (p *pipe) lines() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := map[string]int{}
	for line := range strings.Lines(p.b.String()) {
		id, _, _ := strings.Cut(strings.TrimPrefix(line, `{"id":"`), `"`)
		n[id]++
	}
	return n
}

func lines(t *testing.T, p *pipe) *jsonl.Store {
	t.Helper()
	s, err := jsonl.Open(t.Context(), jsonl.Target, jsonl.Options{Out: p})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// page is one request of a batch and what was fetched for it.
type page struct {
	id   string
	body string // "" = it has none
}

// fill stores pages in a unit the way a worker does, and returns the account to commit.
func fill(ctx context.Context, u store.Unit, batch, delivery string, pages ...page) (*store.Account, error) {
	a := &store.Account{V: store.AccountVersion, Job: job, Batch: batch, Worker: "w1", Delivery: delivery}
	for _, p := range pages {
		r := &store.Record{ID: p.id, Job: job, Batch: batch, URL: "http://x.test/" + p.id, Method: "GET", Outcome: store.OK,
			Status: 200, ContentType: "text/html", Headers: map[string][]string{"Etag": {`"` + p.id + `"`}}}
		if p.body != "" {
			ref, err := write(ctx, u, store.BodyMeta{URL: r.URL, ContentType: r.ContentType}, p.body)
			if err != nil {
				return nil, err
			}
			r.Bytes, r.SHA256, r.Body = ref.Bytes, ref.SHA256, ref.Body
		}
		if err := u.Add(r); err != nil {
			return nil, err
		}
		a.Entries = append(a.Entries, store.Entry{ID: r.ID, Fate: store.Recorded, Outcome: r.Outcome, Bytes: r.Bytes})
	}
	return a, nil
}

func write(ctx context.Context, u store.Unit, meta store.BodyMeta, text string) (store.BodyRef, error) {
	w, err := u.Body(ctx, meta)
	if err != nil {
		return store.BodyRef{}, err
	}
	defer w.Abort()
	if _, err := io.WriteString(w, text); err != nil {
		return store.BodyRef{}, err
	}
	return w.Finish()
}

// begun is a unit with pages in it that is not yet committed.
func begun(t *testing.T, s store.Store, batch, delivery string, pages ...page) (store.Unit, *store.Account) {
	t.Helper()
	u, err := s.Begin(t.Context(), job, batch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Discard() })
	a, err := fill(t.Context(), u, batch, delivery, pages...)
	if err != nil {
		t.Fatal(err)
	}
	return u, a
}

// committed is a unit with pages in it that won.
func committed(t *testing.T, s store.Store, batch, delivery string, pages ...page) {
	t.Helper()
	u, a := begun(t, s, batch, delivery, pages...)
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Fatalf("Commit(%s): won %v, %v", batch, won, err)
	}
}

// content is all that a store has of the job: accounts, records, and bodies beside them.
type content struct {
	Account *store.Account
	Records []*store.Record
	Bodies  []string
}

func contents(t *testing.T, s store.Store) map[string]content {
	t.Helper()
	all := map[string]content{}
	for name, err := range s.Units(t.Context(), job) {
		if err != nil {
			t.Fatal(err)
		}
		var c content
		if c.Account, err = s.Account(t.Context(), job, name); err != nil {
			t.Fatal(err)
		}
		for r, err := range s.Records(t.Context(), job, name) {
			if err != nil {
				t.Fatal(err)
			}
			c.Records = append(c.Records, r)
			c.Bodies = append(c.Bodies, text(t, s, r))
		}
		all[name] = c
	}
	return all
}

func text(t *testing.T, s store.Store, r *store.Record) string {
	t.Helper()
	if r.Body == "" {
		return ""
	}
	from, err := s.OpenBody(t.Context(), r.BodyOf(), r.Body)
	if err != nil {
		t.Errorf("%s: %v", s, err)
		return "(missing)"
	}
	defer from.Close()
	data, err := io.ReadAll(io.LimitReader(from, 1<<20))
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

// wantSame demands that two stores have the same units, records and bodies, wherever those lie.
func wantSame(t *testing.T, a, b store.Store, units int) {
	t.Helper()
	have, other := contents(t, a), contents(t, b)
	if len(have) != units {
		t.Errorf("%s has units %v, want %d", a, slices.Sorted(maps.Keys(have)), units)
	}
	if diff := cmp.Diff(have, other, cmpopts.IgnoreFields(store.Record{}, "Body")); diff != "" {
		t.Errorf("the stores differ (-%s +%s):\n%s", a, b, diff)
	}
}

// archive is a folder that keeps exchanges, names bodies in a way of its own, and refuses what it is told to refuse.
type archive struct {
	*filestore.Store
	t       *testing.T
	keeps   bool
	record  func(*store.Record) error // what Add says before the folder is asked
	body    func(store.BodyMeta) error
	commit  func() error
	mu      sync.Mutex
	sent    []string // what came through Sent, a body each
	cut     []string // "REASON: what came through Write"
	hops    int
	aborted int
}

// own begins the names of an archive's bodies.
const own = "archive:"

func archived(t *testing.T, keeps bool) *archive {
	return &archive{Store: folder(t, t.TempDir()), t: t, keeps: keeps}
}

func (a *archive) String() string { return "archive" }

func (a *archive) OpenBody(ctx context.Context, job, body string) (io.ReadCloser, error) {
	name, ok := strings.CutPrefix(body, own)
	if !ok {
		return nil, fmt.Errorf("the archive was asked for %q, which is no name of its own", body)
	}
	return a.Store.OpenBody(ctx, job, name)
}

func (a *archive) Begin(ctx context.Context, job, name string) (store.Unit, error) {
	u, err := a.Store.Begin(ctx, job, name)
	if err != nil {
		return nil, err
	}
	return &archiveUnit{Unit: u, a: a}, nil
}

type archiveUnit struct {
	store.Unit
	a *archive
}

func (u *archiveUnit) KeepsExchanges() bool { return u.a.keeps }

func (u *archiveUnit) Add(r *store.Record) error {
	if u.a.record != nil {
		if err := u.a.record(r); err != nil {
			return err
		}
	}
	if r.Body != "" && !strings.HasPrefix(r.Body, own) {
		u.a.t.Errorf("record %s came to the archive with body %s, which is not its own", r.ID, r.Body)
	}
	return u.Unit.Add(r)
}

func (u *archiveUnit) Body(ctx context.Context, meta store.BodyMeta) (store.BodyWriter, error) {
	if u.a.body != nil {
		if err := u.a.body(meta); err != nil {
			return nil, err
		}
	}
	if meta.Hop {
		u.a.hops++
	}
	w, err := u.Unit.Body(ctx, meta)
	if err != nil {
		return nil, err
	}
	return &archiveBody{BodyWriter: w, a: u.a}, nil
}

func (u *archiveUnit) Commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	if u.a.commit != nil {
		if err := u.a.commit(); err != nil {
			return nil, false, err
		}
	}
	return u.Unit.Commit(ctx, a)
}

type archiveBody struct {
	store.BodyWriter
	a             *archive
	sent, written strings.Builder
}

func (b *archiveBody) Write(p []byte) (int, error) {
	b.written.Write(p)
	return b.BodyWriter.Write(p)
}

func (b *archiveBody) Sent(p []byte) (int, error) { return b.sent.Write(p) }

func (b *archiveBody) Cut(reason string) error {
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	b.a.cut = append(b.a.cut, reason+": "+b.written.String())
	b.BodyWriter.Abort()
	return nil
}

func (b *archiveBody) Abort() {
	b.a.aborted++
	b.BodyWriter.Abort()
}

func (b *archiveBody) Finish() (store.BodyRef, error) {
	ref, err := b.BodyWriter.Finish()
	if ref.Body != "" {
		ref.Body = own + ref.Body
	}
	b.a.mu.Lock()
	defer b.a.mu.Unlock()
	b.a.sent = append(b.a.sent, b.sent.String())
	return ref, err
}

// notes are what Options.Note was told.
type notes struct {
	mu   sync.Mutex
	said []string
}

func (n *notes) note(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.said = append(n.said, err.Error())
}

func (n *notes) want(t *testing.T, parts ...string) {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.said) != len(parts) {
		t.Errorf("noted: %q, want %d notes", n.said, len(parts))
		return
	}
	for i, part := range parts {
		if !strings.Contains(n.said[i], part) {
			t.Errorf("note %d is %q, want it to say %q", i, n.said[i], part)
		}
	}
}

func refuse(format string, args ...any) error {
	return fmt.Errorf("%w: %s", store.ErrRecord, fmt.Sprintf(format, args...))
}
