package pgstore

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/redistest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
	"github.com/google/go-cmp/cmp"
)

func takenPart(t *testing.T, s *Store) store.Part {
	t.Helper()
	p, err := s.Part(t.Context(), crashJob, "r1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Release() })
	return p
}

func noteOf(data []byte) store.PartNote {
	return store.PartNote{URL: "http://x.test/\u0000", ETag: `"e"`, Length: int64(len(data)), Stretches: []store.Stretch{{At: time.Unix(1, 2).UTC()}}}
}

func partBytes(t *testing.T, p store.Part) []byte {
	t.Helper()
	r, err := p.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func bytesOf(n int) []byte {
	b := make([]byte, n)
	_, _ = io.ReadFull(&cycle{}, b)
	return b
}

// A body that is cut twice and goes on at another worker, becomes the body of a unit without going through a worker.
func TestPartGoesOnElsewhere(t *testing.T) {
	raw := shared.Server(t).Database(t)
	data := bytesOf(5<<20 + 17)
	want := noteOf(data)
	for i, cut := range []int{0, 1_500_000, 4 << 20} {
		s := openTest(t, raw, Options{Worker: "w"})
		p := takenPart(t, s)
		if p.Size() != int64(cut) {
			t.Fatalf("the part has %d bytes, want %d", p.Size(), cut)
		}
		if i == 0 {
			if err := p.Begin(want); err != nil {
				t.Fatal(err)
			}
		} else {
			stretch := store.Stretch{From: p.Size(), Exchange: &store.Exchange{Method: "GET", Status: 206}}
			want.Stretches = append(want.Stretches, stretch)
			if diff := cmp.Diff(want.Stretches[:i], p.Note().Stretches); diff != "" {
				t.Errorf("stretches differ (-want +got):\n%s", diff)
			}
			if err := p.Stretch(stretch); err != nil {
				t.Fatal(err)
			}
		}
		next := []int{1_500_000, 4 << 20, len(data)}[i]
		if _, err := p.Write(data[cut:next]); err != nil {
			t.Fatal(err)
		}
		if p.Size() != int64(next) {
			t.Errorf("Size is %d, want %d", p.Size(), next)
		}
		if err := p.Release(); err != nil {
			t.Fatal(err)
		}
		if there, err := s.HasPart(t.Context(), crashJob, "r1"); !there || err != nil {
			t.Errorf("HasPart = %v, %v", there, err)
		}
	}
	s := openTest(t, raw, Options{})
	p := takenPart(t, s)
	if got := partBytes(t, p); !bytes.Equal(got, data) {
		t.Errorf("the part reads as %d bytes, not as the %d written", len(got), len(data))
	}
	if diff := cmp.Diff(want, p.Note()); diff != "" {
		t.Errorf("note differs (-want +got):\n%s", diff)
	}
	adopted(t, s, p, data)
	if there, err := s.HasPart(t.Context(), crashJob, "r1"); there || err != nil {
		t.Errorf("HasPart after Adopt = %v, %v", there, err)
	}
}

// adopted adopts a part into a unit and looks at the body.
func adopted(t *testing.T, s *Store, p store.Part, data []byte) {
	t.Helper()
	u, err := s.Begin(t.Context(), crashJob, "b1")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	ref, err := p.Adopt(t.Context(), u, store.BodyMeta{})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if ref.Bytes != int64(len(data)) || ref.SHA256 != hex.EncodeToString(sum[:]) {
		t.Errorf("the body is referred to as %+v, want digest %x", ref, sum)
	}
	if err := p.Release(); err != nil {
		t.Errorf("Release after Adopt: %v", err)
	}
	if _, err := s.OpenBody(t.Context(), crashJob, ref.Body); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("OpenBody before the commit: %v", err)
	}
	r := plainRecord()
	r.Bytes, r.SHA256, r.Body = ref.Bytes, ref.SHA256, ref.Body
	if err := u.Add(r); err != nil {
		t.Fatal(err)
	}
	a := &store.Account{V: 1, Job: crashJob, Batch: "b1", Entries: []store.Entry{{ID: r.ID, Fate: store.Recorded}}}
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Fatalf("Commit: won %v, %v", won, err)
	}
	wantBody(t, s, ref.Body, data)
	wantSound(t, s)
	wantNothingLeft(t, s)
}

func TestPartIsInOneHand(t *testing.T) {
	raw := shared.Server(t).Database(t)
	a, b := openTest(t, raw, Options{}), openTest(t, raw, Options{})
	p := takenPart(t, a)
	for _, s := range []*Store{a, b} {
		if _, err := s.Part(t.Context(), crashJob, "r1"); !errors.Is(err, store.ErrBusy) {
			t.Errorf("Part of another's = %v, want ErrBusy", err)
		}
	}
	data := bytesOf(rowSize + 5)
	if err := p.Begin(noteOf(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(data); err != nil {
		t.Fatal(err)
	}
	// The holder falls silent for longer than its lease.
	pgtest.Exec(t, raw, `UPDATE fetchfleet.parts SET held_until = now() - interval '1 second'`)
	next := takenPart(t, b)
	if next.Size() != rowSize {
		t.Errorf("the next holder finds %d bytes, want the one row that was written", next.Size())
	}
	if _, err := p.Write(data); !errors.Is(err, store.ErrBusy) {
		t.Errorf("Write of a holder that lost its part = %v, want ErrBusy", err)
	}
	if err := p.Release(); err != nil {
		t.Errorf("Release of a part that is another's: %v", err)
	}
	if _, err := next.Write(data[rowSize:]); err != nil {
		t.Fatal(err)
	}
	adopted(t, b, next, data)
}

func TestPartStartsOver(t *testing.T) {
	s := openTest(t, shared.Server(t).Database(t), Options{})
	p := takenPart(t, s)
	for _, n := range []int{2<<20 + 3, 100, 0} {
		data := bytesOf(n)
		if err := p.Begin(noteOf(data)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(data); err != nil {
			t.Fatal(err)
		}
		if got := partBytes(t, p); !bytes.Equal(got, data) || p.Size() != int64(n) {
			t.Errorf("the part has %d bytes, want %d", len(got), n)
		}
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, `SELECT count(*) FROM parts`); n != 0 {
		t.Error("an empty part stays after its release")
	}
	wantNothingLeft(t, s)
}

// A state of the digest that this program cannot read costs a reading of the part, not the part.
func TestPartWithAForeignDigest(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s := openTest(t, raw, Options{})
	data := bytesOf(2<<20 + 3)
	p := takenPart(t, s)
	if err := p.Begin(noteOf(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(data[:rowSize+9]); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, raw, `UPDATE fetchfleet.parts SET digest = 'another form'`)
	p = takenPart(t, s)
	if _, err := p.Write(data[rowSize+9:]); err != nil {
		t.Fatal(err)
	}
	adopted(t, s, p, data)
}

func TestPartsThatCannotBeAdopted(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s := openTest(t, raw, Options{})
	u, err := s.Begin(t.Context(), crashJob, "b1")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Discard()
	data := bytesOf(100)
	tests := map[string]store.PartNote{
		"one that is not whole": {Length: 101},
		"one that is coded":     {Length: 100, Coding: "gzip"},
	}
	p := takenPart(t, s)
	for claim, note := range tests {
		if err := p.Begin(note); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(data); err != nil {
			t.Fatal(err)
		}
		if ref, err := p.Adopt(t.Context(), u, store.BodyMeta{}); err == nil {
			t.Errorf("%s became %+v", claim, ref)
		}
	}
	if err := p.Drop(); err != nil {
		t.Fatal(err)
	}
	if err := p.Drop(); err != nil {
		t.Errorf("a second Drop: %v", err)
	}
	wantNothingLeft(t, s)
	if _, err := p.Write(data); err == nil {
		t.Error("Write after Drop succeeded")
	}
}

func TestPartThatSaysIdentityIsAdopted(t *testing.T) {
	s := openTest(t, shared.Server(t).Database(t), Options{})
	data := bytesOf(rowSize + 5)
	note := noteOf(data)
	note.Coding = "Identity"
	p := takenPart(t, s)
	if err := p.Begin(note); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(data); err != nil {
		t.Fatal(err)
	}
	adopted(t, s, p, data)
}

// The first row was written and the answer lost: Release keeps what is there, Drop removes it with the part.
func TestPartWhoseFirstAnswerWasLost(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s, direct := openTest(t, raw, Options{}), openTest(t, raw, Options{})
	data := bytesOf(rowSize)
	tests := map[string]struct {
		end  func(store.Part) error
		kept int64
	}{
		"released": {store.Part.Release, rowSize},
		"dropped":  {store.Part.Drop, 0},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			p := takenPart(t, s)
			if err := p.Begin(noteOf(data)); err != nil {
				t.Fatal(err)
			}
			hidden := *p.(*part) // writes what p never learns of
			if _, err := hidden.Write(data); err != nil {
				t.Fatal(err)
			}
			p.(*part).err = errors.New("no answer")
			if err := tt.end(p); err != nil {
				t.Fatal(err)
			}
			wantNothingLeft(t, direct)
			next := takenPart(t, direct)
			if next.Size() != tt.kept {
				t.Errorf("the next holder finds %d bytes, want %d", next.Size(), tt.kept)
			}
			if err := next.Drop(); err != nil {
				t.Fatal(err)
			}
			wantNothingLeft(t, direct)
		})
	}
}

// With a server that takes what it is sent and says nothing, neither Adopt nor letting go waits for ever.
func TestPartAtASilentServer(t *testing.T) {
	t.Parallel()
	server := shared.Server(t)
	proxy := redistest.Proxy(t, server.Addr())
	s := openTest(t, strings.Replace(server.Database(t), server.Addr(), proxy.Addr(), 1), Options{})
	u, err := s.Begin(t.Context(), crashJob, "b1")
	if err != nil {
		t.Fatal(err)
	}
	data := bytesOf(rowSize)
	p := takenPart(t, s)
	if err := p.Begin(noteOf(data)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(data); err != nil {
		t.Fatal(err)
	}
	proxy.Mute(true)
	began := time.Now()
	var asking sync.WaitGroup
	asking.Go(func() {
		if _, err := p.Adopt(context.Background(), u, store.BodyMeta{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Adopt = %v", err)
		}
	})
	other := &part{s: s, key: newKey(), holder: newKey()}
	if err := other.letGo(context.Background()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("letGo = %v", err)
	}
	asking.Wait()
	if took := time.Since(began); took > callLimit+5*time.Second {
		t.Errorf("they took %v", took)
	}
	proxy.Mute(false)
	awaitCheck(t.Context(), s)
	if err := errors.Join(u.Discard(), p.Drop()); err != nil {
		t.Error(err)
	}
	wantNothingLeft(t, s)
}

func TestPartsNobodyCameForAreSwept(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s := openTest(t, raw, Options{})
	p := takenPart(t, s)
	if err := p.Begin(noteOf(bytesOf(5))); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(bytesOf(3)); err != nil {
		t.Fatal(err)
	}
	sweep := func(age time.Duration) int {
		n, err := s.Sweep(t.Context(), crashJob, age)
		if err != nil {
			t.Error(err)
		}
		return n
	}
	if n := sweep(0); n != 0 {
		t.Error("a part in somebody's hands was swept")
	}
	if err := s.sweepPart(t.Context(), p.(*part).key); err != nil || count(t, s, `SELECT count(*) FROM parts`) != 1 {
		t.Errorf("a part that was taken between the look and the removal was swept, %v", err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	if n := sweep(time.Hour); n != 0 {
		t.Error("a part of a moment ago was swept as one of an hour")
	}
	if n := sweep(0); n != 1 {
		t.Errorf("%d parts were swept, want 1", n)
	}
	wantNothingLeft(t, s)
}
