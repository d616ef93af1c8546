package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
)

// nth spoils every n-th call.
func nth(n int64, f s3test.Fault) func(s3test.Call) s3test.Fault {
	var calls atomic.Int64
	return func(s3test.Call) s3test.Fault {
		if calls.Add(1)%n == 0 {
			return f
		}
		return s3test.None
	}
}

// Every sixth call goes wrong, each time in another way, and nobody notices but the clock.
func TestConformanceOverABadLine(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	faults := []s3test.Fault{s3test.Busy, s3test.Cut, s3test.LoseAnswer, s3test.CutAnswer}
	var calls atomic.Int64
	proxy.Spoil(func(s3test.Call) s3test.Fault {
		n := calls.Add(1)
		if n%6 != 0 {
			return s3test.None
		}
		return faults[n/6%4]
	})
	n := 0
	storetest.Run(t, func(t *testing.T) (store.Store, func() store.Store) {
		n++
		url := s3test.URL(proxy.Addr(), fmt.Sprint("bad-line-", n))
		reopen := func() store.Store {
			s := openTest(t, url)
			s.piece = func(int) int64 { return testPiece }
			return s
		}
		return reopen(), reopen
	})
}

func account(batch, delivery string, records ...*store.Record) *store.Account {
	a := storetest.Account(batch, 0, delivery, records...)
	a.Job = crashJob
	return a
}

func begin(t *testing.T, s *Store, name string) *unit {
	t.Helper()
	u, err := s.Begin(t.Context(), crashJob, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Discard() })
	return u.(*unit)
}

func writeBody(ctx context.Context, u store.Unit, data []byte) (store.BodyRef, error) {
	w, err := u.Body(ctx, store.BodyMeta{ContentType: "text/html; charset=utf-8"})
	if err != nil {
		return store.BodyRef{}, err
	}
	defer w.Abort()
	if _, err := w.Write(data); err != nil {
		return store.BodyRef{}, err
	}
	return w.Finish()
}

func random(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), 7}).Read(b)
	return b
}

// While the server is away a commit fails in bounded time and loses nothing: tried again later, it succeeds.
func TestAnOutageIsWaitedOut(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openTest(t, s3test.URL(proxy.Addr(), "outage"))
	s.piece = func(int) int64 { return 5 << 20 }
	for claim, fault := range map[string]s3test.Fault{"busy": s3test.Busy, "cut": s3test.Cut} {
		t.Run(claim, func(t *testing.T) {
			u := begin(t, s, claim)
			bodies := [][]byte{random(1, 2000), random(2, 300_000), random(3, 12<<20)}
			var refs []store.BodyRef
			for _, data := range bodies {
				ref, err := writeBody(t.Context(), u, data)
				if err != nil {
					t.Fatal(err)
				}
				refs = append(refs, ref)
			}
			r := storetest.Record(claim, 1)
			if err := u.Add(r); err != nil {
				t.Fatal(err)
			}
			proxy.Spoil(nth(1, fault))
			began := time.Now()
			if _, _, err := u.Commit(t.Context(), account(claim, "d", r)); err == nil || errors.Is(err, store.ErrRecord) || errors.Is(err, store.ErrNotFound) {
				t.Errorf("Commit during an outage = %v, want trouble", err)
			}
			if err := s.Check(t.Context()); err == nil {
				t.Error("Check during an outage succeeded")
			}
			if took := time.Since(began); took > 25*time.Second {
				t.Errorf("Commit and Check took %s to fail", took)
			}
			proxy.Spoil(nil)
			if err := s.Check(t.Context()); err != nil {
				t.Errorf("Check after the outage: %v", err)
			}
			if _, won, err := u.Commit(t.Context(), account(claim, "d", r)); err != nil || !won {
				t.Fatalf("Commit after the outage: won %v, %v", won, err)
			}
			for i, ref := range refs {
				wantBodyBytes(t, s, crashJob, ref.Body, bodies[i])
			}
			wantSound(t, s, crashJob)
		})
	}
}

// The server keeps the unit and its answer is lost: the writer learns that it won, a rival that it lost.
func TestALostAnswerDoesNotLoseTheRace(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	a, b := openTest(t, s3test.URL(proxy.Addr(), "lost")), openTest(t, server.URL("lost"))
	var once sync.Once
	proxy.Spoil(func(c s3test.Call) (f s3test.Fault) {
		if c.Method == "PUT" && strings.Contains(c.Key, "/accounts/") {
			once.Do(func() { f = s3test.LoseAnswer })
		}
		return f
	})
	first, second := begin(t, a, "b1"), begin(t, b, "b1")
	if _, won, err := first.Commit(t.Context(), account("b1", "first")); err != nil || !won {
		t.Errorf("the writer whose answer was lost: won %v, %v", won, err)
	}
	winner, won, err := second.Commit(t.Context(), account("b1", "second"))
	if err != nil || won || winner.Delivery != "first" {
		t.Errorf("the rival: %+v, won %v, %v", winner, won, err)
	}
}

// All answers to the PUT are lost: Commit fails though the unit is visible. The next Commit finds its own.
func TestACommitThatCouldNotBeToldIsFound(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openTest(t, s3test.URL(proxy.Addr(), "untold"))
	proxy.Spoil(func(c s3test.Call) s3test.Fault {
		if strings.Contains(c.Key, "/accounts/") {
			return s3test.LoseAnswer
		}
		return s3test.None
	})
	u := begin(t, s, "b1")
	if _, _, err := u.Commit(t.Context(), account("b1", "d")); err == nil {
		t.Fatal("Commit succeeded without an answer")
	}
	proxy.Spoil(nil)
	if winner, won, err := u.Commit(t.Context(), account("b1", "d")); err != nil || !won || winner.Delivery != "d" {
		t.Errorf("the next Commit: %+v, won %v, %v", winner, won, err)
	}
}

// A server that takes a request and says nothing is given up in about ten seconds.
func TestASilentServerIsGivenUp(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openTest(t, s3test.URL(proxy.Addr(), "silent"))
	proxy.Spoil(nth(1, s3test.Hang))
	began := time.Now()
	err := s.Check(t.Context())
	if took := time.Since(began); err == nil || took > 15*time.Second || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("Check = %v after %s", err, took)
	}
}

func TestACutDownloadGoesOn(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openTest(t, s3test.URL(proxy.Addr(), "download"))
	data := random(4, 3<<20)
	u := begin(t, s, "b1")
	ref, err := writeBody(t.Context(), u, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Commit(t.Context(), account("b1", "d")); err != nil {
		t.Fatal(err)
	}
	var gets atomic.Int64
	proxy.Spoil(func(c s3test.Call) s3test.Fault {
		if c.Method == "GET" && gets.Add(1) <= 4 {
			return s3test.CutAnswer
		}
		return s3test.None
	})
	wantBodyBytes(t, s, crashJob, ref.Body, data)
	if gets.Load() != 5 {
		t.Errorf("the body was asked for %d times, want 5", gets.Load())
	}
	r, err := s.OpenBody(t.Context(), crashJob, ref.Body) // left early
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(r, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := r.Close(); err != nil {
		t.Error(err)
	}
}
