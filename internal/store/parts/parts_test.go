package parts

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		os.Exit(child(dir))
	}
	goleak.VerifyTestMain(m)
}

const request = "0123456789abcdef0123456789abcdef"

func take(t *testing.T, f *Folder) *Part {
	t.Helper()
	p, err := f.Take(t.Context(), request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = p.Release() })
	return p
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, p *Part, data []byte) {
	t.Helper()
	_, err := p.Write(data)
	must(t, err)
}

// random returns n bytes, always the same.
func random(n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{7}).Read(b)
	return b
}

func digestOf(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

func noteOf(length int) store.PartNote {
	return store.PartNote{URL: "http://x.test/big", ETag: `"v1"`, LastModified: "Mon, 02 Feb 2026 03:04:05 GMT", Length: int64(length)}
}

func wantKept(t *testing.T, p *Part, want []byte) {
	t.Helper()
	r, err := p.Open()
	must(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	if err != nil || !bytes.Equal(got, want) || p.Size() != int64(len(want)) {
		t.Errorf("kept are %d bytes, Size %d (error %v), want the %d written", len(got), p.Size(), err, len(want))
	}
}

// adopted is what Adopt was told of the whole.
func adopted(t *testing.T, into *[]byte) Options {
	return Options{Adopt: func(_ context.Context, _ store.Unit, _ store.BodyMeta, w *Whole) (store.BodyRef, error) {
		data, err := os.ReadFile(w.Path)
		must(t, err)
		*into = data
		return store.BodyRef{Bytes: w.Size, SHA256: w.SHA256, Body: w.Note.ETag}, nil
	}}
}

func TestABodyCutManyTimesIsTheWhole(t *testing.T) {
	for claim, sync := range map[string]bool{"flushed": true, "not flushed": false} {
		t.Run(claim, func(t *testing.T) {
			var got []byte
			o := adopted(t, &got)
			o.Sync, o.Every = sync, 10_000
			path := filepath.Join(t.TempDir(), "a", "parts")
			data := random(300_007)
			p := take(t, In(path, o))
			if diff := cmp.Diff(store.PartNote{}, p.Note()); diff != "" || p.Size() != 0 {
				t.Errorf("an empty part has %d bytes and the note %s", p.Size(), diff)
			}
			n := noteOf(len(data))
			n.Stretches = []store.Stretch{{At: time.Unix(1, 0).UTC()}}
			must(t, p.Begin(n))
			for i, at := range []int{30_000, 30_000, 30_001, 200_000, 300_007} {
				write(t, p, data[p.Size():at])
				must(t, p.Release())
				must(t, p.Release()) // does nothing
				if _, err := p.Write(nil); err == nil {
					t.Error("a part that was released takes bytes")
				}
				p = take(t, In(path, o)) // as another worker
				wantKept(t, p, data[:at])
				s := store.Stretch{From: int64(at), At: time.Unix(int64(i)+2, 0).UTC(), Exchange: &store.Exchange{Method: "GET", Status: 206}}
				n.Stretches = append(n.Stretches, s)
				must(t, p.Stretch(s))
				if diff := cmp.Diff(n, p.Note()); diff != "" {
					t.Errorf("note (-want +got):\n%s", diff)
				}
			}
			ref, err := p.Adopt(t.Context(), nil, store.BodyMeta{})
			want := store.BodyRef{Bytes: int64(len(data)), SHA256: digestOf(data), Body: `"v1"`}
			if err != nil || ref != want || !bytes.Equal(got, data) {
				t.Errorf("Adopt = %+v, %v, want %+v; the file had %d bytes", ref, err, want, len(got))
			}
			wantNothingLeft(t, path)
		})
	}
}

func wantNothingLeft(t *testing.T, path string) {
	t.Helper()
	if list, err := os.ReadDir(path); err != nil || len(list) > 0 {
		t.Errorf("left are %v, %v", list, err)
	}
}

func TestAPartIsInOneHand(t *testing.T) {
	path := t.TempDir()
	p := take(t, In(path, Options{}))
	if _, err := In(path, Options{}).Take(t.Context(), request); !errors.Is(err, store.ErrBusy) {
		t.Errorf("a part that is held was taken: %v", err)
	}
	if _, err := In(path, Options{}).Take(t.Context(), "other"); err != nil {
		t.Errorf("another part: %v", err)
	}
	must(t, p.Drop())
	must(t, p.Drop())
	must(t, p.Release())
	take(t, In(path, Options{}))
}

func TestHasSaysWhetherBytesAreKept(t *testing.T) {
	f := In(t.TempDir(), Options{})
	has := func(want bool, when string) {
		t.Helper()
		if got, err := f.Has(t.Context(), request); err != nil || got != want {
			t.Errorf("%s: Has = %v, %v", when, got, err)
		}
	}
	has(false, "at first")
	p := take(t, f)
	has(false, "taken")
	must(t, p.Begin(noteOf(10)))
	has(false, "begun")
	must(t, p.Release())
	has(false, "released empty")
	wantNothingLeft(t, f.path)
	p = take(t, f)
	must(t, p.Begin(noteOf(10)))
	write(t, p, []byte("12345"))
	has(true, "while it is written")
	must(t, p.Release())
	has(true, "released")
	must(t, take(t, f).Drop())
	has(false, "dropped")
}

// A flush that failed may succeed the next time, having lost what it was to keep.
func TestAfterAFailedFlushOnlyWhatIsDurableIsKept(t *testing.T) {
	for claim, sync := range map[string]bool{"flushed": true, "not flushed": false} {
		t.Run(claim, func(t *testing.T) {
			f := In(t.TempDir(), Options{Sync: sync, Every: 5})
			p := take(t, f)
			must(t, p.Begin(noteOf(100)))
			write(t, p, []byte("12345"))
			note := f.file(request, noteEnding)
			must(t, os.Rename(note, note+".aside"))
			must(t, os.MkdirAll(filepath.Join(note, "in the way"), 0o755))
			if _, err := p.Write([]byte("67890")); err == nil {
				t.Fatal("a checkpoint has replaced a folder")
			}
			must(t, os.RemoveAll(note))
			must(t, os.Rename(note+".aside", note))
			must(t, p.Release())
			counted, err := f.readNote(request)
			if err != nil || counted == nil || counted.Size != 5 {
				t.Errorf("the note is %+v (%v), want one of the 5 bytes that were flushed", counted, err)
			}
			if sync {
				wantKept(t, take(t, f), []byte("12345"))
			}
		})
	}
}

func TestBeginStartsOver(t *testing.T) {
	f := In(t.TempDir(), Options{Sync: true})
	p := take(t, f)
	must(t, p.Begin(noteOf(100)))
	write(t, p, random(90))
	must(t, p.Release())
	p = take(t, f)
	n := noteOf(5)
	n.ETag = `"v2"`
	must(t, p.Begin(n))
	if p.Size() != 0 || p.Note().ETag != `"v2"` {
		t.Errorf("begun with %d bytes, %+v", p.Size(), p.Note())
	}
	write(t, p, []byte("12345"))
	must(t, p.Release())
	p = take(t, f)
	wantKept(t, p, []byte("12345"))
}

func TestWhatIsDamagedStartsOver(t *testing.T) {
	for claim, damage := range map[string]func(part, note string) error{
		"the note is torn":     func(_, note string) error { return os.Truncate(note, 40) },
		"the note is gone":     func(_, note string) error { return os.Remove(note) },
		"the note is of later": func(_, note string) error { return os.WriteFile(note, []byte(`{"v":2,"size":3}`), 0o644) },
		"the digest is damaged": func(_, note string) error {
			return os.WriteFile(note, []byte(`{"v":1,"size":3,"sha256":"aGVsbG8="}`), 0o644)
		},
		"the part is shorter":      func(part, _ string) error { return os.Truncate(part, 899) },
		"the part is gone":         func(part, _ string) error { return os.Remove(part) },
		"a size below nothing":     func(_, note string) error { return os.WriteFile(note, []byte(`{"v":1,"size":-3}`), 0o644) },
		"the note is another file": func(_, note string) error { return os.WriteFile(note, []byte("\x00\x01"), 0o644) },
	} {
		t.Run(claim, func(t *testing.T) {
			f := In(t.TempDir(), Options{Sync: true})
			p := take(t, f)
			must(t, p.Begin(noteOf(1000)))
			write(t, p, random(900))
			must(t, p.Release())
			must(t, damage(f.file(request, bytesEnding), f.file(request, noteEnding)))
			p = take(t, f)
			if diff := cmp.Diff(store.PartNote{}, p.Note()); diff != "" || p.Size() != 0 {
				t.Errorf("%d bytes are kept, note %s", p.Size(), diff)
			}
			wantKept(t, p, nil)
			if _, err := p.Write([]byte("x")); err == nil {
				t.Error("a part that was not begun takes bytes")
			}
		})
	}
}

func TestOnlyWhatIsWholeIsAdopted(t *testing.T) {
	var got []byte
	f := In(t.TempDir(), adopted(t, &got))
	p := take(t, f)
	adopt := func() error { _, err := p.Adopt(t.Context(), nil, store.BodyMeta{}); return err }
	if err := adopt(); !errors.Is(err, errNotWhole) {
		t.Errorf("an empty part was adopted: %v", err)
	}
	must(t, p.Begin(noteOf(10)))
	write(t, p, []byte("12345"))
	if err := adopt(); !errors.Is(err, errNotWhole) {
		t.Errorf("half of a body was adopted: %v", err)
	}
	n := noteOf(5)
	n.Coding = "gzip"
	must(t, p.Begin(n))
	write(t, p, []byte("12345"))
	if err := adopt(); !errors.Is(err, errNotWhole) {
		t.Errorf("a coded body was adopted: %v", err)
	}
	if err := p.Stretch(store.Stretch{From: 4}); err == nil {
		t.Error("a stretch may begin before the end of what is kept")
	}
	wantKept(t, p, []byte("12345"))
}

func TestABodyThatSaysIdentityIsNotCoded(t *testing.T) {
	var got []byte
	p := take(t, In(t.TempDir(), adopted(t, &got)))
	n := noteOf(5)
	n.Coding = "Identity"
	must(t, p.Begin(n))
	write(t, p, []byte("12345"))
	if _, err := p.Adopt(t.Context(), nil, store.BodyMeta{}); err != nil || string(got) != "12345" {
		t.Errorf("adopted was %q, %v", got, err)
	}
}

func TestAnAdoptionThatFailsLosesNothing(t *testing.T) {
	failed := errors.New("no")
	for claim, adopt := range map[string]func(w *Whole) error{
		"at once":         func(*Whole) error { return failed },
		"with the moving": func(w *Whole) error { return w.Give(func(string) error { return failed }) },
	} {
		t.Run(claim, func(t *testing.T) {
			f := In(t.TempDir(), Options{Sync: true, Adopt: func(_ context.Context, _ store.Unit, _ store.BodyMeta, w *Whole) (store.BodyRef, error) {
				return store.BodyRef{}, adopt(w)
			}})
			p := take(t, f)
			must(t, p.Begin(noteOf(5)))
			write(t, p, []byte("12345"))
			if _, err := p.Adopt(t.Context(), nil, store.BodyMeta{}); !errors.Is(err, failed) {
				t.Errorf("Adopt = %v", err)
			}
			must(t, p.Release())
			wantKept(t, take(t, f), []byte("12345"))
		})
	}
}

func TestGivingMovesTheFile(t *testing.T) {
	dir := t.TempDir()
	to := filepath.Join(dir, "body")
	f := In(filepath.Join(dir, "parts"), Options{Adopt: func(_ context.Context, _ store.Unit, _ store.BodyMeta, w *Whole) (store.BodyRef, error) {
		return store.BodyRef{Body: "body"}, w.Give(func(path string) error { return os.Rename(path, to) })
	}})
	p := take(t, f)
	must(t, p.Begin(noteOf(5)))
	write(t, p, []byte("12345"))
	if ref, err := p.Adopt(t.Context(), nil, store.BodyMeta{}); err != nil || ref.Body != "body" {
		t.Fatalf("Adopt = %+v, %v", ref, err)
	}
	if data, err := os.ReadFile(to); err != nil || string(data) != "12345" {
		t.Errorf("moved were %q, %v", data, err)
	}
	wantNothingLeft(t, f.path)
	if next := take(t, f); next.Size() != 0 {
		t.Errorf("the next holder finds %d bytes", next.Size())
	}
}

func TestSweepTakesWhatIsOldAndInNobodysHands(t *testing.T) {
	f := In(filepath.Join(t.TempDir(), "parts"), Options{})
	if n, err := f.Sweep(t.Context(), time.Now()); n != 0 || err != nil {
		t.Errorf("Sweep of no folder = %d, %v", n, err)
	}
	for _, name := range []string{"held", "left"} {
		p, err := f.Take(t.Context(), name)
		must(t, err)
		must(t, p.Begin(noteOf(10)))
		write(t, p, []byte("12345"))
		if name == "left" {
			must(t, p.Release())
			continue
		}
		t.Cleanup(func() { _ = p.Release() })
	}
	for _, stray := range []string{"stray.json", "lost.tmp", "notes.txt"} {
		must(t, os.WriteFile(filepath.Join(f.path, stray), nil, 0o644))
	}
	if n, size, err := f.Count(t.Context()); n != 2 || size != 10 || err != nil {
		t.Errorf("Count = %d, %d, %v", n, size, err)
	}
	if n, err := f.Sweep(t.Context(), time.Now().Add(-time.Hour)); n != 0 || err != nil {
		t.Errorf("Sweep of what is older than an hour = %d, %v", n, err)
	}
	if n, err := f.Sweep(t.Context(), time.Now().Add(time.Hour)); n != 3 || err != nil {
		t.Errorf("Sweep = %d, %v, want left, stray and lost", n, err)
	}
	var names []string
	list, err := os.ReadDir(f.path)
	must(t, err)
	for _, e := range list {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff([]string{"held.json", "held.part", "notes.txt"}, names); diff != "" {
		t.Errorf("left (-want +got):\n%s", diff)
	}
}

func TestBadNamesAreRefused(t *testing.T) {
	f := In(t.TempDir(), Options{})
	for _, name := range []string{"", "..", "a/b", "../x", ".x", strings.Repeat("x", 200)} {
		if _, err := f.Take(t.Context(), name); !errors.Is(err, store.ErrRecord) {
			t.Errorf("Take(%.20q) = %v", name, err)
		}
		if _, err := f.Has(t.Context(), name); !errors.Is(err, store.ErrRecord) {
			t.Errorf("Has(%.20q) = %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.Take(ctx, request); !errors.Is(err, context.Canceled) {
		t.Errorf("Take = %v", err)
	}
}

func TestALargePartTakesNoMemory(t *testing.T) {
	size := int64(256 << 20)
	if testing.Short() {
		size = 64 << 20
	}
	f := In(t.TempDir(), Options{})
	p := take(t, f)
	must(t, p.Begin(store.PartNote{Length: size}))
	piece := random(1 << 20)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	for p.Size() < size {
		write(t, p, piece)
	}
	must(t, p.Release())
	p = take(t, f)
	runtime.ReadMemStats(&after)
	if p.Size() != size {
		t.Errorf("kept are %d bytes", p.Size())
	}
	if got := after.TotalAlloc - before.TotalAlloc; got > 4<<20 {
		t.Errorf("%s were allocated", fmt.Sprint(got))
	}
	must(t, p.Drop())
}

// The file that cannot be flushed is one that was closed: nothing else fails on every system.
func TestAFailedFlushIsNotForgotten(t *testing.T) {
	f := In(t.TempDir(), Options{Sync: true})
	p := take(t, f)
	must(t, p.Begin(noteOf(1000)))
	_, err := p.Write([]byte("kept"))
	must(t, err)
	must(t, p.checkpoint())
	_, err = p.Write([]byte("lost"))
	must(t, err)
	closed, err := os.Open(p.path())
	must(t, err)
	must(t, closed.Close())
	file := p.file
	p.file = closed
	if err := p.Stretch(store.Stretch{From: 8}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Stretch = %v, want the error of the flush", err)
	}
	p.file = file
	if _, err := p.Write([]byte("more")); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after a failed flush = %v, want its error", err)
	}
	must(t, p.Release())
	wantKept(t, take(t, f), []byte("kept"))
}
