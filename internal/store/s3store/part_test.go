package s3store

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
	"github.com/fetchfleet/fetchfleet/internal/store/storetest"
	"github.com/google/go-cmp/cmp"
)

const testPiece = 5 << 20 // the least that S3 allows

func openParts(t *testing.T, url string) *Store {
	t.Helper()
	s := openTest(t, url)
	s.piece = func(int) int64 { return testPiece }
	return s
}

func take(t *testing.T, s store.Resumer, request string) store.Part {
	t.Helper()
	p, err := s.Part(t.Context(), crashJob, request)
	if err != nil {
		t.Fatalf("Part(%s): %v", request, err)
	}
	t.Cleanup(func() { p.Release() })
	return p
}

func note(n int) store.PartNote {
	return store.PartNote{URL: "http://x.test/big", ETag: `"v1"`, Length: int64(n),
		Stretches: []store.Stretch{{At: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}}}
}

func wantHas(t *testing.T, s store.Resumer, request string, want bool) {
	t.Helper()
	if has, err := s.HasPart(t.Context(), crashJob, request); err != nil || has != want {
		t.Errorf("HasPart(%s) = %v, %v, want %v", request, has, err, want)
	}
}

// A body that is cut again and again goes on, each time with another worker, and becomes a body like any other.
func TestAPartGoesOnFromWorkerToWorker(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	t.Run("over a good line", func(t *testing.T) { goOn(t, server.URL("parts")) })
	t.Run("while every third answer is lost", func(t *testing.T) {
		proxy := s3test.NewProxy(t, server.Addr())
		proxy.Spoil(nth(3, s3test.LoseAnswer))
		goOn(t, s3test.URL(proxy.Addr(), "parts-lost"))
	})
}

func goOn(t *testing.T, url string) {
	data := random(1, 23<<20)
	wantHas(t, openParts(t, url), "r1", false)
	cuts := []int{1000, 4 << 20, testPiece, testPiece + 1, 9 << 20, 17 << 20, len(data)}
	at := 0
	for i, cut := range cuts {
		s := openParts(t, url)
		p := take(t, s, "r1")
		if p.Size() != int64(at) {
			t.Fatalf("holder %d finds %d bytes, want %d", i, p.Size(), at)
		}
		if i == 0 {
			if err := p.Begin(note(len(data))); err != nil {
				t.Fatal(err)
			}
		} else if err := p.Stretch(store.Stretch{From: int64(at)}); err != nil {
			t.Fatal(err)
		}
		if _, err := io.CopyBuffer(struct{ io.Writer }{p}, struct{ io.Reader }{bytes.NewReader(data[at:cut])}, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		at = cut
		if i < len(cuts)-1 {
			if err := p.Release(); err != nil {
				t.Fatal(err)
			}
			wantHas(t, s, "r1", true)
			continue
		}
		if got, want := p.Note(), note(len(data)); got.ETag != want.ETag || len(got.Stretches) != len(cuts) || got.Stretches[3].From != int64(cuts[2]) {
			t.Errorf("the note is %+v", got)
		}
		adopt(t, s, p, data)
	}
}

// adopt makes a part a body of a unit and looks at what came of it.
func adopt(t *testing.T, s *Store, p store.Part, data []byte) {
	t.Helper()
	u := begin(t, s, "b1")
	ref, err := p.Adopt(t.Context(), u, store.BodyMeta{ContentType: "application/pdf"})
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if sha := hex.EncodeToString(sum[:]); ref.SHA256 != sha || ref.Bytes != int64(len(data)) || !strings.HasSuffix(ref.Body, sha+".pdf") {
		t.Errorf("adopted as %+v", ref)
	}
	if err := p.Release(); err != nil {
		t.Errorf("Release after Adopt: %v", err)
	}
	if _, won, err := u.Commit(t.Context(), account("b1", "d")); err != nil || !won {
		t.Fatalf("Commit: won %v, %v", won, err)
	}
	wantBodyBytes(t, s, crashJob, ref.Body, data)
	info, err := s.c.quick.StatObject(t.Context(), s.o.Bucket, s.keys.body(crashJob, ref.Body), statOptions)
	if err != nil || info.ContentType != "application/pdf" {
		t.Errorf("the body has Content-Type %q, %v", info.ContentType, err)
	}
	wantHas(t, s, "r1", false)
	for _, left := range leftovers(t, s, crashJob) {
		if !strings.HasPrefix(left, "upload of ") { // one whose id was lost with its answer is left to Sweep
			t.Errorf("there is left %s", left)
		}
	}
	wantSwept(t, s)
}

func TestAPartHasOneHolder(t *testing.T) {
	server := s3test.Start(t)
	a, b := openParts(t, server.URL("one")), openParts(t, server.URL("one"))
	p := take(t, a, "r1")
	for _, s := range []*Store{a, b} {
		if _, err := s.Part(t.Context(), crashJob, "r1"); !errors.Is(err, store.ErrBusy) {
			t.Errorf("a second Part = %v, want ErrBusy", err)
		}
	}
	if err := p.Begin(note(4)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write([]byte("abc")); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	// Of many who want it at once one gets it.
	var mu sync.Mutex
	var got []store.Part
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			p, err := []*Store{a, b}[i%2].Part(t.Context(), crashJob, "r1")
			if err != nil && !errors.Is(err, store.ErrBusy) {
				t.Errorf("Part: %v", err)
			}
			if err == nil {
				mu.Lock()
				defer mu.Unlock()
				got = append(got, p)
			}
		})
	}
	wg.Wait()
	if len(got) != 1 || got[0].Size() != 3 {
		t.Fatalf("%d hold the part, want one", len(got))
	}
	r, err := got[0].Open()
	if err != nil {
		t.Fatal(err)
	}
	if text, err := io.ReadAll(r); string(text) != "abc" || err != nil {
		t.Errorf("the part reads as %q, %v", text, err)
	}
	r.Close()
	if err := got[0].Drop(); err != nil {
		t.Fatal(err)
	}
	wantHas(t, a, "r1", false)
	if left := leftovers(t, a, crashJob); len(left) > 0 {
		t.Errorf("after Drop there are %q", left)
	}
}

// A holder that says nothing for the length of a lease is taken for dead: its pieces are kept, and if it wakes it can
// spoil nothing.
func TestADeadHolderIsReplaced(t *testing.T) {
	server := s3test.Start(t)
	t.Run("file", func(t *testing.T) {
		asleep, awake := openParts(t, server.URL("dead")), openParts(t, server.URL("dead"))
		replaceDead(t, asleep, awake, func(p store.Part, data []byte) { adopt(t, awake, p, data) })
	})
	t.Run("warc", func(t *testing.T) {
		url := server.URL("dead-warc") + "&format=warc"
		asleep, awake := openArchiveParts(t, url), openArchiveParts(t, url)
		replaceDead(t, asleep, awake, func(p store.Part, data []byte) { adoptIntoArchive(t, awake, p, data) })
	})
}

func replaceDead(t *testing.T, asleep, awake either, adopt func(p store.Part, data []byte)) {
	asleep.common().lease, awake.common().lease = 600*time.Hour, 2*time.Second // the sleeper does not renew its holding
	data := random(2, 2*testPiece+1000)
	old := take(t, asleep, "r1")
	if err := old.Begin(note(len(data))); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Write(data[:testPiece+100]); err != nil { // one piece, and 100 bytes that die with the holder
		t.Fatal(err)
	}
	var p store.Part
	for began := time.Now(); p == nil; {
		var err error
		if p, err = awake.Part(t.Context(), crashJob, "r1"); err != nil && !errors.Is(err, store.ErrBusy) {
			t.Fatal(err)
		}
		if time.Since(began) > 20*time.Second {
			t.Fatal("the dead holder is not replaced")
		}
	}
	t.Cleanup(func() { p.Release() })
	if p.Size() != testPiece {
		t.Fatalf("the new holder finds %d bytes, want %d", p.Size(), testPiece)
	}
	if _, err := p.Write(data[testPiece:]); err != nil { // sends the second piece
		t.Fatal(err)
	}
	// The sleeper wakes and goes on: it uploads its own second piece and learns that the part is another's.
	if _, err := old.Write(bytes.Repeat([]byte("x"), 2*testPiece)); !errors.Is(err, errLost) || !errors.Is(err, store.ErrBusy) {
		t.Errorf("the sleeper's Write = %v, want errLost, which is ErrBusy", err)
	}
	if err := old.Release(); err != nil {
		t.Errorf("the sleeper's Release: %v", err)
	}
	adopt(p, data)
}

// Between one worker's Adopt and its Commit another may begin anew, with what the origin says then. Each gets its own bytes.
func TestAnAdoptedPartIsNotOverwritten(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	a, b := openParts(t, server.URL("again")), openParts(t, server.URL("again"))
	var units []*unit
	var refs []store.BodyRef
	for i, s := range []*Store{a, b} {
		p := take(t, s, "r1")
		if err := p.Begin(note(testPiece + 1)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(random(uint64(i), testPiece+1)); err != nil {
			t.Fatal(err)
		}
		u := begin(t, s, fmt.Sprint("b", i))
		ref, err := p.Adopt(t.Context(), u, store.BodyMeta{})
		if err != nil {
			t.Fatal(err)
		}
		units, refs = append(units, u), append(refs, ref)
	}
	for i, u := range units {
		if _, won, err := u.Commit(t.Context(), account(u.name, "d")); err != nil || !won {
			t.Fatalf("Commit of unit %d: won %v, %v", i, won, err)
		}
		wantBodyBytes(t, u.s, crashJob, refs[i].Body, random(uint64(i), testPiece+1))
	}
	if left := leftovers(t, a, crashJob); len(left) > 0 {
		t.Errorf("there are left %q", left)
	}
}

// A holder that slept over its lease with a whole part learns so before the part becomes a body, and spoils nothing.
func TestAWholePartThatWasLostIsNotAdopted(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	asleep, awake := openParts(t, server.URL("whole")), openParts(t, server.URL("whole"))
	asleep.lease = 600 * time.Hour // it does not renew its holding
	old := take(t, asleep, "r1")
	if err := old.Begin(note(testPiece + 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Write(random(1, testPiece+1)); err != nil {
		t.Fatal(err)
	}
	r, err := old.Open()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	state, o, err := awake.readPart(t.Context(), awake.keys.partState(crashJob, "r1"))
	if err != nil {
		t.Fatal(err)
	}
	p := &part{s: &awake.base, ctx: t.Context(), job: crashJob, request: "r1", key: awake.keys.partState(crashJob, "r1"), state: state, etag: o.etag}
	p.state.Holder = "another"
	if err := p.save(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := old.Adopt(t.Context(), begin(t, asleep, "b1"), store.BodyMeta{}); !errors.Is(err, store.ErrBusy) {
		t.Errorf("Adopt of what another has = %v, want ErrBusy", err)
	}
	wantHas(t, awake, "r1", true)
}

// A part of an older program, which had one key for all uploads of a request, goes on.
func TestAPartOfAnOlderProgramGoesOn(t *testing.T) {
	t.Parallel()
	server := s3test.StartBeside(t)
	s := openParts(t, server.URL("older"))
	data := random(1, 2*testPiece)
	p := take(t, s, "r1").(*part)
	p.up.key = s.keys.folder(crashJob, partsFolder) + "r1.bytes"
	if _, err := p.Write(data[:testPiece+1]); err != nil {
		t.Fatal(err)
	}
	if err := p.change(t.Context(), func(h *heldPart) { h.Key = "" }); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	next := take(t, s, "r1")
	if next.Size() != testPiece+1 {
		t.Fatalf("the part has %d bytes, want %d", next.Size(), testPiece+1)
	}
	if _, err := next.Write(data[testPiece+1:]); err != nil {
		t.Fatal(err)
	}
	adopt(t, s, next, data)
}

// A holder renews its holding though nothing comes.
func TestALivingHolderKeepsItsPart(t *testing.T) {
	server := s3test.Start(t)
	a, b := openParts(t, server.URL("living")), openParts(t, server.URL("living"))
	a.lease, b.lease = 3*time.Second, 3*time.Second
	p := take(t, a, "r1")
	for began := time.Now(); time.Since(began) < 5*time.Second; time.Sleep(100 * time.Millisecond) { // the server's clock is the real one
		if _, err := b.Part(t.Context(), crashJob, "r1"); !errors.Is(err, store.ErrBusy) {
			t.Fatalf("Part after %s = %v, want ErrBusy", time.Since(began), err)
		}
	}
	if err := p.Drop(); err != nil {
		t.Fatal(err)
	}
}

// Begin starts over, and what was kept is gone.
func TestAPartStartsOver(t *testing.T) {
	server := s3test.Start(t)
	s := openParts(t, server.URL("over"))
	p := take(t, s, "r1")
	for i := range 3 {
		n := note(testPiece + i)
		n.ETag = fmt.Sprint(i)
		if err := p.Begin(n); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(n, p.Note()); diff != "" || p.Size() != 0 {
			t.Errorf("after Begin it has %d bytes, note (-want +got):\n%s", p.Size(), diff)
		}
		if _, err := p.Write(random(uint64(i), testPiece+i)); err != nil {
			t.Fatal(err)
		}
	}
	adopt(t, s, p, random(2, testPiece+2))
}

// Servers abort uploads that are old. Then there is nothing to go on from.
func TestAnUploadThatIsGoneLeavesAnEmptyPart(t *testing.T) {
	server := s3test.Start(t)
	s := openParts(t, server.URL("gone"))
	p := take(t, s, "r1")
	if err := p.Begin(note(2 * testPiece)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Write(random(1, testPiece+1)); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Fatal(err)
	}
	for u, err := range s.c.uploads(t.Context(), s.keys.body(crashJob, "")) {
		if err != nil {
			t.Fatal(err)
		}
		if err := s.c.abort(t.Context(), u.Key, u.UploadID); err != nil {
			t.Fatal(err)
		}
	}
	p = take(t, s, "r1")
	if p.Size() != 0 || p.Note().URL != "" {
		t.Errorf("the part has %d bytes, %+v", p.Size(), p.Note())
	}
}

// At the end of a job Sweep drops what nobody holds, and nothing else.
func TestSweepDropsParts(t *testing.T) {
	server := s3test.Start(t)
	s := openParts(t, server.URL("swept"))
	held := take(t, s, "held")
	for _, p := range []store.Part{held, take(t, s, "left")} {
		if err := p.Begin(note(3 * testPiece)); err != nil {
			t.Fatal(err)
		}
		if _, err := p.Write(random(1, testPiece+1000)); err != nil {
			t.Fatal(err)
		}
		if p != held {
			if err := p.Release(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if n, err := s.Sweep(t.Context(), crashJob, time.Hour); n != 0 || err != nil {
		t.Errorf("Sweep of what is an hour old removed %d, %v", n, err)
	}
	// Seen from another worker, whose own nothing is.
	if _, err := openParts(t, server.URL("swept")).Sweep(t.Context(), crashJob, 0); err != nil {
		t.Error(err)
	}
	wantHas(t, s, "left", false)
	if _, err := held.Write(random(2, 2*testPiece-1000)); err != nil {
		t.Errorf("a part that is held, after Sweep: %v", err)
	}
	adoptRest := append(random(1, testPiece+1000), random(2, 2*testPiece-1000)...)
	u := begin(t, s, "b9")
	ref, err := held.Adopt(t.Context(), u, store.BodyMeta{})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := u.Commit(t.Context(), account("b9", "d", storetest.Record("b9", 1))); err != nil {
		t.Fatal(err)
	}
	wantBodyBytes(t, s, crashJob, ref.Body, adoptRest)
	if left := leftovers(t, s, crashJob); len(left) > 0 {
		t.Errorf("there are left %q", left)
	}
}
