package pgstore

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// One large body must not be held in memory, neither while it is written nor while it is read.
func TestLargeBodyIsStreamed(t *testing.T) {
	size := 100 << 20
	if testing.Short() {
		size = 60 << 20
	}
	s := openTest(t, shared.Server(t).Database(t), Options{})
	u, err := s.Begin(t.Context(), crashJob, "large")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	heap := watchHeap()
	w, err := u.Body(t.Context(), store.BodyMeta{})
	if err != nil {
		t.Fatal(err)
	}
	want := sha256.New()
	began := time.Now()
	if _, err := io.Copy(struct{ io.Writer }{w}, io.TeeReader(pattern(size), want)); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: "large"}); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d MiB written in %v", size>>20, time.Since(began))
	began = time.Now()
	r, err := s.OpenBody(t.Context(), crashJob, ref.Body)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got := sha256.New()
	n, err := io.Copy(got, r)
	if err != nil || n != int64(size) || !bytes.Equal(got.Sum(nil), want.Sum(nil)) || ref.SHA256 != hex.EncodeToString(got.Sum(nil)) {
		t.Errorf("%d bytes were read, %v, want %d and the same digest", n, err, size)
	}
	peak := heap()
	t.Logf("read in %v, the heap grew by %d MiB", time.Since(began), peak>>20)
	if limit := uint64(24 << 20); peak > limit {
		t.Errorf("the heap grew by %d bytes, want less than %d", peak, limit)
	}
}

// pattern yields n bytes, quickly.
func pattern(n int) io.Reader { return io.LimitReader(&cycle{}, int64(n)) }

type cycle struct{ at byte }

func (c *cycle) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = c.at
		c.at += 7
	}
	c.at++
	return len(p), nil
}

// watchHeap looks at what is in use, until its result is called, which returns by how much it grew at most.
func watchHeap() (peak func() uint64) {
	read := func() uint64 {
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapInuse
	}
	runtime.GC()
	first, most := read(), uint64(0)
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			if now := read(); now > first {
				most = max(most, now-first)
			}
			select {
			case <-stop:
				return
			case <-tick.C:
			}
		}
	}()
	return func() uint64 { close(stop); <-ended; return most }
}

func TestBodiesOff(t *testing.T) {
	s := openTest(t, with(shared.Server(t).Database(t), "bodies", "off"), Options{})
	u, err := s.Begin(t.Context(), crashJob, "b1")
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte("x"), 3<<20)
	ref, err := putBody(t.Context(), u, data)
	sum := sha256.Sum256(data)
	if err != nil || ref != (store.BodyRef{Bytes: 3 << 20, SHA256: hex.EncodeToString(sum[:])}) {
		t.Errorf("a body is referred to as %+v, %v; want digest and length alone", ref, err)
	}
	if _, won, err := u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: "b1"}); err != nil || !won {
		t.Errorf("Commit: won %v, %v", won, err)
	}
	if n := count(t, s, `SELECT count(*) FROM bodies`); n != 0 {
		t.Errorf("%d rows of bodies are there", n)
	}
}

func TestSameBodyOfAUnitIsStoredOnce(t *testing.T) {
	s := openTest(t, shared.Server(t).Database(t), Options{})
	for _, size := range []int{3000, 200_000, 2 << 20} {
		u, err := s.Begin(t.Context(), crashJob, "b"+randomHex(4))
		if err != nil {
			t.Fatal(err)
		}
		defer u.Discard()
		first, err := putBody(t.Context(), u, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		second, err := putBody(t.Context(), u, make([]byte, size))
		if err != nil || first != second {
			t.Errorf("the same body is %+v and %+v, %v", first, second, err)
		}
	}
}

// What is in writing belongs to units that have not ended; when it is swept they fail, and nothing of them stays.
func TestSweep(t *testing.T) {
	raw := shared.Server(t).Database(t)
	dead, s := openTest(t, raw, Options{Worker: "dead"}), openTest(t, raw, Options{Worker: "alive"})
	mine, mineAccount := begunUnit(t, s, "mine")
	lost, lostAccount := begunUnit(t, dead, "lost")
	busy, err := lost.Body(t.Context(), store.BodyMeta{})
	if err != nil {
		t.Fatal(err)
	}
	defer busy.Abort()
	if n, err := s.Sweep(t.Context(), crashJob, time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep of what is an hour old removed %d, %v", n, err)
	}
	if n, err := s.Sweep(t.Context(), "other", 0); n != 0 || err != nil {
		t.Errorf("Sweep of another job removed %d, %v", n, err)
	}
	if n, err := s.Sweep(t.Context(), crashJob, 0); n != 1 || err != nil {
		t.Errorf("Sweep removed %d, %v; want the one unit that is not this store's own", n, err)
	}
	if _, err := busy.Write(make([]byte, 2*rowSize+1)); !errors.Is(err, errSwept) {
		t.Errorf("a body of a unit that was swept: %v", err)
	}
	if _, _, err := lost.Commit(t.Context(), lostAccount); !errors.Is(err, errSwept) {
		t.Errorf("Commit of a unit that was swept: %v", err)
	}
	if _, won, err := mine.Commit(t.Context(), mineAccount); err != nil || !won {
		t.Errorf("Commit beside a unit that was swept: won %v, %v", won, err)
	}
	wantNothingLeft(t, s)
	wantSound(t, s)
}

// A unit that was swept fails alone, also where it shares a transaction.
func TestSweptUnitFailsAlone(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s, other := openTest(t, raw, Options{}), openTest(t, raw, Options{})
	var group []*request
	for _, name := range []string{"a", "swept", "z"} {
		u, a := begunUnit(t, s, name)
		account, err := encodeAccount(a)
		if err != nil {
			t.Fatal(err)
		}
		group = append(group, &request{unit: u.(*unit), given: a, account: account, done: make(chan struct{})})
		if name == "swept" {
			if err := other.sweepUnit(t.Context(), u.(*unit).key); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.commits.commit(group)
	for i, r := range group {
		if swept := i == 1; errors.Is(r.err, errSwept) != swept || r.won == swept && r.err == nil {
			t.Errorf("%s: won %v, %v", r.unit.name, r.won, r.err)
		}
	}
}

// A record that the server refuses although Add took it, which nothing is known to be, fails its unit alone; and so does
// a unit beside it that was swept.
func TestRefusedUnitFailsAlone(t *testing.T) {
	s := openTest(t, shared.Server(t).Database(t), Options{})
	var group []*request
	for _, name := range []string{"a", "bad", "swept", "z"} {
		u, a := begunUnit(t, s, name)
		account, err := encodeAccount(a)
		if err != nil {
			t.Fatal(err)
		}
		switch name {
		case "bad":
			account = "{"
		case "swept":
			if err := s.sweepUnit(t.Context(), u.(*unit).key); err != nil {
				t.Fatal(err)
			}
		}
		group = append(group, &request{unit: u.(*unit), given: a, account: account, done: make(chan struct{})})
	}
	s.commits.commit(group)
	for i, r := range group {
		if (r.err != nil) != (i == 1 || i == 2) || errors.Is(r.err, errSwept) != (i == 2) {
			t.Errorf("%s: won %v, %v", r.unit.name, r.won, r.err)
		}
	}
}

// The row in writing was made, the answer was lost, and no body needed it: the unit is committed, and what its row would
// have let Sweep remove is not.
func TestCommittedUnitIsNotSwept(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s, other := openTest(t, raw, Options{}), openTest(t, raw, Options{})
	u, err := s.Begin(t.Context(), crashJob, "b000")
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.pool.Exec(t.Context(), `INSERT INTO writing (owner, job, worker) VALUES ($1, $2, 'w')`, u.(*unit).key, crashJob)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("small")
	ref, err := putBody(t.Context(), u, data)
	if err != nil {
		t.Fatal(err)
	}
	if _, won, err := u.Commit(t.Context(), &store.Account{V: 1, Job: crashJob, Batch: "b000"}); err != nil || !won {
		t.Fatalf("Commit: won %v, %v", won, err)
	}
	if _, err := other.Sweep(t.Context(), crashJob, 0); err != nil {
		t.Fatal(err)
	}
	wantBody(t, s, ref.Body, data)
	wantNothingLeft(t, s)
}
