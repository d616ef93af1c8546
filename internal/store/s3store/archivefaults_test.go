package s3store

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
)

// isCommit reports whether a call is the commit point of a unit.
func isCommit(c s3test.Call) bool {
	return strings.Contains(c.Key, "/units/") && (c.Method == "PUT" && !c.Query.Has("partNumber") || c.Method == "POST" && c.Query.Has("uploadId"))
}

// The server keeps the unit and its answer is lost: the writer learns that it won, a rival that it lost.
func TestALostAnswerDoesNotLoseAnArchivesRace(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	const format = "&format=warc"
	for claim, size := range map[string]int{"one PUT": 1000, "in pieces": 12 << 20} {
		t.Run(claim, func(t *testing.T) {
			name := fmt.Sprint("lost-", size)
			a, b := openArchiveTest(t, s3test.URL(proxy.Addr(), name)+format), openArchiveTest(t, server.URL(name)+format)
			for _, s := range []*Archive{a, b} {
				s.piece, s.onePut = func(int) int64 { return 5 << 20 }, 5<<20
			}
			first, second := beginArchive(t, a, "b1"), beginArchive(t, b, "b1")
			data := random(1, size)
			r := fetchTo(t, first, "http://x.test/", data, false)
			fetchTo(t, second, "http://x.test/", data, false)
			var lost atomic.Int64
			proxy.Spoil(func(c s3test.Call) s3test.Fault {
				if isCommit(c) && lost.Add(1) == 1 {
					return s3test.LoseAnswer
				}
				return s3test.None
			})
			if _, won, err := first.Commit(t.Context(), account("b1", "first", r)); err != nil || !won {
				t.Errorf("the writer whose answer was lost: won %v, %v", won, err)
			}
			if lost.Load() < 2 {
				t.Errorf("the commit was asked for %d times: no answer was lost", lost.Load())
			}
			winner, won, err := second.Commit(t.Context(), account("b1", "second"))
			if err != nil || won || winner.Delivery != "first" {
				t.Errorf("the rival: %+v, won %v, %v", winner, won, err)
			}
			wantBodyBytes(t, b, crashJob, r.Body, data)
			wantSound(t, b, crashJob)
		})
	}
}

// All answers to the commit are lost: it fails though the unit is visible. The next Commit finds its own.
func TestAnArchivesCommitThatCouldNotBeToldIsFound(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openArchiveTest(t, s3test.URL(proxy.Addr(), "untold")+"&format=warc")
	u := beginArchive(t, s, "b1")
	proxy.Spoil(func(c s3test.Call) s3test.Fault {
		if strings.Contains(c.Key, "/units/") {
			return s3test.LoseAnswer
		}
		return s3test.None
	})
	if _, _, err := u.Commit(t.Context(), account("b1", "d")); err == nil {
		t.Fatal("Commit succeeded without an answer")
	}
	proxy.Spoil(nil)
	if winner, won, err := u.Commit(t.Context(), account("b1", "d")); err != nil || !won || winner.Delivery != "d" {
		t.Errorf("the next Commit: %+v, won %v, %v", winner, won, err)
	}
}

// Every sixth call goes wrong, each time in another way, and nobody notices but the clock.
func TestArchiveConformanceOverABadLine(t *testing.T) {
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
		url := s3test.URL(proxy.Addr(), fmt.Sprint("bad-line-", n)) + "&format=warc"
		reopen := func() store.Store {
			s := openArchiveTest(t, url)
			s.piece, s.onePut = func(int) int64 { return 5 << 20 }, 1<<20
			return s
		}
		return reopen(), reopen
	})
}

// While the server is away a commit fails in bounded time and loses nothing: tried again later, it succeeds.
func TestAnArchivesOutageIsWaitedOut(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openArchiveTest(t, s3test.URL(proxy.Addr(), "outage")+"&format=warc")
	s.piece, s.onePut = func(int) int64 { return 5 << 20 }, 5<<20
	for claim, size := range map[string]int{"one PUT": 1000, "in pieces": 12 << 20} {
		t.Run(claim, func(t *testing.T) {
			unit := fmt.Sprint("b", size)
			u := beginArchive(t, s, unit)
			data := random(3, size)
			r := fetchTo(t, u, "http://x.test/"+unit, data, false)
			proxy.Spoil(nth(1, s3test.Busy))
			began := time.Now()
			_, _, err := u.Commit(t.Context(), account(unit, "d", r))
			if err == nil || errors.Is(err, store.ErrRecord) || errors.Is(err, store.ErrNotFound) {
				t.Errorf("Commit during an outage = %v, want trouble", err)
			}
			if took := time.Since(began); took > 12*time.Second {
				t.Errorf("Commit took %s to fail", took)
			}
			proxy.Spoil(nil)
			if _, won, err := u.Commit(t.Context(), account(unit, "d", r)); err != nil || !won {
				t.Fatalf("Commit after the outage: won %v, %v", won, err)
			}
			wantBodyBytes(t, s, crashJob, r.Body, data)
			wantSound(t, s, crashJob)
		})
	}
}

// Of many who commit one large unit at once, one wins, and its bytes are there.
func TestOneOfManyLargeUnitsWins(t *testing.T) {
	server := s3test.Start(t)
	s := openArchiveTest(t, server.URL("race")+"&format=warc")
	s.piece, s.onePut = func(int) int64 { return 5 << 20 }, 5<<20
	for round := range 3 {
		name := fmt.Sprint("b", round)
		const writers = 4
		var records [writers]*store.Record
		var won [writers]bool
		var wg sync.WaitGroup
		for i := range writers {
			u := beginArchive(t, s, name)
			records[i] = fetchTo(t, u, fmt.Sprint("http://x.test/", i), random(uint64(100*round+i), 6<<20), false)
			wg.Go(func() {
				var err error
				if _, won[i], err = u.Commit(context.Background(), account(name, fmt.Sprint(i), records[i])); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		winner, err := s.Account(t.Context(), crashJob, name)
		if err != nil {
			t.Fatal(err)
		}
		for i := range writers {
			if won[i] != (winner.Delivery == fmt.Sprint(i)) {
				t.Errorf("writer %d won: %v, and the account is of %s", i, won[i], winner.Delivery)
			}
			if won[i] {
				wantBodyBytes(t, s, crashJob, records[i].Body, random(uint64(100*round+i), 6<<20))
			}
		}
	}
	wantSound(t, s, crashJob)
	if s.pieced != kept {
		t.Errorf("the server is taken for one that does not keep the condition of an upload (%d)", s.pieced)
	}
}

func TestAnArchivesCutDownloadGoesOn(t *testing.T) {
	server := s3test.Start(t)
	proxy := s3test.NewProxy(t, server.Addr())
	s := openArchiveTest(t, s3test.URL(proxy.Addr(), "download")+"&format=warc")
	data := random(4, 3<<20)
	u := beginArchive(t, s, "b1")
	r := fetchTo(t, u, "http://x.test/", data, false)
	if _, _, err := u.Commit(t.Context(), account("b1", "d", r)); err != nil {
		t.Fatal(err)
	}
	proxy.Reset()
	wantBodyBytes(t, s, crashJob, r.Body, data)
	whole := proxy.Total()
	if whole > 5 {
		t.Errorf("a body of %d bytes takes %d calls", len(data), whole)
	}
	var gets atomic.Int64
	proxy.Spoil(func(c s3test.Call) s3test.Fault {
		if c.Method == "GET" && gets.Add(1)%2 == 1 && gets.Load() < 8 {
			return s3test.CutAnswer
		}
		return s3test.None
	})
	wantBodyBytes(t, s, crashJob, r.Body, data)
	b, err := s.OpenBody(t.Context(), crashJob, r.Body) // left early
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(b, make([]byte, 10)); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Error(err)
	}
}
