package pgstore

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

// A server that is stopped without ceremony while units are being committed, and started again.
func TestServerRestartedInMidRun(t *testing.T) {
	server := pgtest.Start(t)
	raw := server.Database(t)
	s := openTest(t, raw, Options{Worker: "w"})
	var next, done, refused atomic.Int64
	half := make(chan struct{})
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < crashUnits; i = int(next.Add(1)) - 1 {
				for {
					err := commitCrashUnit(t.Context(), s, i)
					if err == nil {
						break
					}
					refused.Add(1)
					if errors.Is(err, store.ErrRecord) || errors.Is(err, store.ErrNotFound) {
						t.Errorf("a server that is away is called %v", err)
						return
					}
					awaitCheck(t.Context(), s)
				}
				if done.Add(1) == crashUnits/3 {
					close(half)
				}
			}
		})
	}
	<-half
	server.Stop(t)
	if err := s.Check(t.Context()); err == nil || !strings.Contains(err.Error(), "reached") {
		t.Errorf("Check with the server stopped = %v", err)
	}
	server.Restart(t)
	wg.Wait()
	t.Logf("%d commits were refused", refused.Load())
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with the server back: %v", err)
	}
	if seen := wantUnitsWhole(t, s); len(seen) != crashUnits {
		t.Errorf("%d units are there, want %d", len(seen), crashUnits)
	}
	wantSound(t, s)
	if _, err := s.Sweep(t.Context(), crashJob, 0); err != nil {
		t.Error(err)
	}
	wantNothingLeft(t, s)
}

// awaitCheck does what a worker does when its store is in trouble.
func awaitCheck(ctx context.Context, s *Store) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for s.Check(ctx) != nil && ctx.Err() == nil {
		<-tick.C
	}
}

// A commit whose answer was lost is found again by the next try, and is this unit's own.
func TestCommitWhoseAnswerWasLost(t *testing.T) {
	server := shared.Server(t)
	raw := server.Database(t)
	openTest(t, raw, Options{Worker: "first"})
	proxy := redistest.Proxy(t, server.Addr())
	s := openTest(t, strings.Replace(raw, server.Addr(), proxy.Addr(), 1), Options{Worker: "cut"})
	for _, step := range []string{"inserted", "copied", "committed"} {
		s.step = func(at string) {
			if at == step {
				proxy.Cut()
			}
		}
		u, a := begunUnit(t, s, "cut-"+step)
		_, _, err := u.Commit(t.Context(), a)
		proxy.Heal()
		s.step = nil
		if step != "committed" && err == nil {
			t.Errorf("Commit with the connection cut when it had %s succeeded", step)
		}
		if err != nil {
			if winner, won, err := u.Commit(t.Context(), a); err != nil || !won || winner.Delivery != a.Delivery {
				t.Errorf("Commit again after a cut when it had %s: %v, won %v, %v", step, winner, won, err)
			}
		}
		awaitCheck(t.Context(), s) // connections that were cut are still in the pool
		if got, err := s.Account(t.Context(), crashJob, "cut-"+step); err != nil || got.Delivery != a.Delivery {
			t.Errorf("Account after a cut when it had %s: %v, %v", step, got, err)
		}
	}
}

// A commit that reached the server, of which the worker heard nothing, is its own when it tries again.
func TestCommitThatCameThroughIsItsOwn(t *testing.T) {
	server := shared.Server(t)
	raw := server.Database(t)
	direct := openTest(t, raw, Options{Worker: "direct"})
	proxy := redistest.Proxy(t, server.Addr())
	s := openTest(t, strings.Replace(raw, server.Addr(), proxy.Addr(), 1), Options{Worker: "cut"})
	u, a := begunUnit(t, s, "b1")
	var watching sync.WaitGroup
	s.step = func(at string) {
		if at != "copied" {
			return
		}
		proxy.Mute(true)
		watching.Go(func() {
			for t.Context().Err() == nil {
				if _, err := direct.Account(t.Context(), crashJob, "b1"); err == nil {
					break
				}
			}
			proxy.Cut()
		})
	}
	if _, _, err := u.Commit(t.Context(), a); err == nil {
		t.Error("Commit without an answer succeeded")
	}
	watching.Wait()
	s.step = nil
	proxy.Mute(false)
	proxy.Heal()
	awaitCheck(t.Context(), s)
	if winner, won, err := u.Commit(t.Context(), a); err != nil || !won || winner.Delivery != a.Delivery {
		t.Errorf("Commit again: %v, won %v, %v", winner, won, err)
	}
	wantSound(t, direct)
	wantNothingLeft(t, direct)
}

// begunUnit begins a unit of one record and one streamed body.
func begunUnit(t *testing.T, s *Store, name string) (store.Unit, *store.Account) {
	t.Helper()
	u, err := s.Begin(t.Context(), crashJob, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Discard() })
	ref, err := putBody(t.Context(), u, make([]byte, rowSize+1))
	if err != nil {
		t.Fatal(err)
	}
	err = u.Add(&store.Record{ID: name, Job: crashJob, Batch: name, URL: "http://x.test/", Bytes: ref.Bytes, SHA256: ref.SHA256, Body: ref.Body})
	if err != nil {
		t.Fatal(err)
	}
	return u, &store.Account{V: 1, Job: crashJob, Batch: name, Delivery: "of " + name, Entries: []store.Entry{{ID: name, Fate: store.Recorded}}}
}

// A server that takes what it is sent and says nothing.
func TestServerThatIsSilent(t *testing.T) {
	t.Parallel()
	server := shared.Server(t)
	proxy := redistest.Proxy(t, server.Addr())
	s := openTest(t, strings.Replace(server.Database(t), server.Addr(), proxy.Addr(), 1), Options{Worker: "w"})
	proxy.Mute(true)
	began := time.Now()
	err := s.Check(t.Context())
	if err == nil || time.Since(began) > callLimit+5*time.Second {
		t.Errorf("Check of a silent server = %v after %v", err, time.Since(began))
	}
	proxy.Mute(false)
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check of a server that speaks again: %v", err)
	}
}

func TestTooManyConnections(t *testing.T) {
	server := pgtest.Start(t, pgtest.Set("max_connections", "6"), pgtest.Set("superuser_reserved_connections", "1"))
	raw := server.Database(t)
	pgtest.Exec(t, raw, "CREATE ROLE plain LOGIN PASSWORD 'plain'; GRANT ALL ON DATABASE postgres TO plain; GRANT CREATE ON DATABASE t1 TO plain")
	raw = strings.Replace(raw, pgtest.User+":"+pgtest.Password, "plain:plain", 1)
	s := openTest(t, raw, Options{})
	var taken []interface{ Release() }
	for range 6 {
		if c, err := s.pool.Acquire(t.Context()); err == nil {
			taken = append(taken, c)
		}
	}
	_, err := Open(t.Context(), raw, Options{})
	wantSays(t, "Open with no connection left", err, "max_connections")
	for _, c := range taken {
		c.Release()
	}
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with connections again: %v", err)
	}
}

// Twelve that read records and their bodies at once do so with two connections.
func TestReadersDoNotHoldConnections(t *testing.T) {
	raw := with(shared.Server(t).Database(t), "pool_max_conns", "2")
	s := openTest(t, raw, Options{})
	for i := range 4 {
		if err := commitCrashUnit(t.Context(), s, i); err != nil {
			t.Fatal(err)
		}
	}
	var wg sync.WaitGroup
	for range 12 {
		wg.Go(func() {
			if seen := wantUnitsWhole(t, s); len(seen) != 4 {
				t.Errorf("%d units are there, want 4", len(seen))
			}
		})
	}
	wg.Wait()
}
