package jsonl

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const job = "job-1"

func opened(t *testing.T, o Options) *Store {
	t.Helper()
	s, err := Open(t.Context(), Target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// begun is a unit with records in it.
func begun(t *testing.T, s *Store, batch string, ids ...string) (store.Unit, *store.Account) {
	t.Helper()
	u, err := s.Begin(t.Context(), job, batch)
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		r := &store.Record{ID: id, Job: job, Batch: batch, URL: "http://x.test/", Meta: json.RawMessage("{\n\"a\": 1}")}
		if err := u.Add(r); err != nil {
			t.Fatal(err)
		}
	}
	return u, &store.Account{V: 1, Job: job, Batch: batch}
}

// ids reads the lines and insists that each is whole.
func ids(t *testing.T, text string) []string {
	t.Helper()
	var all []string
	for line := range strings.Lines(text) {
		var r store.Record
		if err := json.Unmarshal([]byte(line), &r); err != nil || !strings.HasSuffix(line, "\n") {
			t.Errorf("line %q: %v", line, err)
		}
		all = append(all, r.ID)
	}
	return all
}

func TestLinesOfManyUnitsDoNotInterleave(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	s := opened(t, Options{Out: to})
	const units, records = 60, 40 // of about 10 KiB: more than a pipe holds
	var committing sync.WaitGroup
	for n := range units {
		var names []string
		for i := range records {
			names = append(names, fmt.Sprintf("%d:%d", n, i))
		}
		u, a := begun(t, s, fmt.Sprint("b", n), names...)
		committing.Go(func() {
			if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
				t.Errorf("Commit: won %v, %v", won, err)
			}
		})
	}
	go func() { committing.Wait(); to.Close() }()
	text, err := io.ReadAll(bufio.NewReader(from))
	if err != nil {
		t.Fatal(err)
	}
	got := ids(t, string(text))
	if len(got) != units*records {
		t.Fatalf("%d lines, want %d", len(got), units*records)
	}
	for i, id := range got {
		unit, _, _ := strings.Cut(id, ":")
		if want := fmt.Sprintf("%s:%d", unit, i%records); id != want {
			t.Fatalf("line %d is %s, want %s: the lines of a unit come together", i, id, want)
		}
	}
}

// choosy takes so many bytes, and then none until it is told.
type choosy struct {
	bytes.Buffer
	room int
}

var errFull = errors.New("full")

func (c *choosy) Write(p []byte) (int, error) {
	if len(p) <= c.room {
		c.room -= len(p)
		return c.Buffer.Write(p)
	}
	n, _ := c.Buffer.Write(p[:c.room])
	c.room = 0
	return n, errFull
}

func TestALineThatBrokeOffIsEnded(t *testing.T) {
	whole := &choosy{room: 1 << 20}
	u, a := begun(t, opened(t, Options{Out: whole}), "b1", "r1", "r2")
	if _, _, err := u.Commit(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	length := whole.Len()
	for room := range length {
		out := &choosy{room: room}
		s := opened(t, Options{Out: out})
		u, a := begun(t, s, "b1", "r1", "r2")
		if _, _, err := u.Commit(t.Context(), a); !errors.Is(err, errFull) || errors.Is(err, store.ErrRecord) {
			t.Fatalf("Commit with room for %d = %v, want the trouble of the output", room, err)
		}
		if err := s.Check(t.Context()); !errors.Is(err, errFull) {
			t.Fatalf("Check with a full output = %v", err)
		}
		out.room = 1 << 20
		if err := s.Check(t.Context()); err != nil {
			t.Fatalf("Check with room again: %v", err)
		}
		if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
			t.Fatalf("Commit again: won %v, %v", won, err)
		}
		got := ids(t, out.String())
		if n := len(got); n < 2 || got[n-2] != "r1" || got[n-1] != "r2" {
			t.Fatalf("after a break at byte %d of %d the lines are %q, want the unit whole at last", room, length, got)
		}
	}
}

func TestAReaderThatIsGoneIsToldOnce(t *testing.T) {
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer to.Close()
	var told []error
	s := opened(t, Options{Out: to, Gone: func(err error) { told = append(told, err) }})
	from.Close()
	for _, batch := range []string{"b1", "b2"} {
		u, a := begun(t, s, batch, "r")
		if _, _, err := u.Commit(t.Context(), a); !errors.Is(err, ErrGone) {
			t.Errorf("Commit = %v, want ErrGone", err)
		}
	}
	if err := s.Check(t.Context()); !errors.Is(err, ErrGone) {
		t.Errorf("Check = %v, want ErrGone for ever", err)
	}
	if len(told) != 1 || !errors.Is(told[0], ErrGone) {
		t.Errorf("told %q, want it told once", told)
	}
}

func TestAReaderThatDoesNotReadKeepsNobodyFromStopping(t *testing.T) {
	from, to := io.Pipe() // without a buffer: a write waits for its reader
	s := opened(t, Options{Out: to})
	u, a := begun(t, s, "b1", "r1")
	next, account := begun(t, s, "b2", "r2")
	ctx, stop := context.WithCancel(t.Context())
	stopped := make(chan error, 2)
	go func() {
		_, _, err := u.Commit(ctx, a)
		stopped <- err
	}()
	first := make([]byte, 1)
	if _, err := from.Read(first); err != nil { // the write is under way now
		t.Fatal(err)
	}
	go func() {
		_, _, err := next.Commit(ctx, account)
		stopped <- err
	}()
	stop()
	for range 2 {
		if err := <-stopped; !errors.Is(err, context.Canceled) {
			t.Errorf("Commit = %v, want context.Canceled", err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	rest := make(chan string)
	go func() {
		text, _ := io.ReadAll(from)
		rest <- string(text)
	}()
	if err := s.out.write(t.Context(), nil); err != nil { // after the line before it
		t.Error(err)
	}
	to.Close()
	if diff := cmp.Diff([]string{"r1"}, ids(t, string(first)+<-rest)); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
}

func TestAUnitEndsOnce(t *testing.T) {
	out := &choosy{room: 1 << 20}
	s := opened(t, Options{Out: out})
	u, a := begun(t, s, "b1", "r1")
	if err := u.Add(&store.Record{}); !errors.Is(err, store.ErrRecord) {
		t.Errorf("Add of a record without id = %v, want ErrRecord", err)
	}
	foreign := &store.Account{V: 1, Job: job, Batch: "b2"}
	if _, _, err := u.Commit(t.Context(), foreign); err == nil {
		t.Error("a unit took the account of another")
	}
	if _, _, err := u.Commit(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Commit(t.Context(), a); err == nil {
		t.Error("a second Commit succeeded")
	}
	if err := u.Add(&store.Record{ID: "r"}); err == nil {
		t.Error("Add after Commit succeeded")
	}
	dropped, _ := begun(t, s, "b2", "r2")
	if err := dropped.Discard(); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"r1"}, ids(t, out.String())); diff != "" {
		t.Errorf("lines (-want +got):\n%s", diff)
	}
	late, account := begun(t, s, "b3", "r3")
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Begin(t.Context(), job, "b4"); err == nil {
		t.Error("Begin after Close succeeded")
	}
	if _, _, err := late.Commit(t.Context(), account); err == nil {
		t.Error("Commit after Close succeeded")
	}
}

func TestNothingIsKept(t *testing.T) {
	s := opened(t, Options{Out: io.Discard})
	u, a := begun(t, s, "b1", "r1")
	w, err := u.Body(t.Context(), store.BodyMeta{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(w, "abc"); err != nil {
		t.Fatal(err)
	}
	want := store.BodyRef{Bytes: 3, SHA256: "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"}
	if ref, err := w.Finish(); err != nil || ref != want {
		t.Errorf("Finish = %+v, %v, want %+v", ref, err, want)
	}
	if _, _, err := u.Commit(t.Context(), a); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Account(t.Context(), job, "b1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Account = %v, want ErrNotFound, so that a redelivery writes it again", err)
	}
	for unit, err := range s.Units(t.Context(), job) {
		t.Errorf("Units yields %s, %v", unit, err)
	}
	if _, err := s.OpenBody(t.Context(), job, "x"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("OpenBody = %v, want ErrNotFound", err)
	}
}

func TestOnlyStandardOutput(t *testing.T) {
	_, err := Open(t.Context(), "out.jsonl", Options{})
	if err == nil || !strings.Contains(err.Error(), "jsonl:-") {
		t.Errorf("Open of a file = %v, want it to name what is possible", err)
	}
}
