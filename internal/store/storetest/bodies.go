package storetest

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func bodies(t *testing.T, open Opener) {
	s, reopen := open(t)
	sizes := map[string]int{
		"empty": 0, "one byte": 1, "a small page": 2048, "64 KiB": 64 << 10, "64 KiB and one": 64<<10 + 1,
		"uneven": 100_003, "8 MiB": 8 << 20,
	}
	u := begin(t, s, "b1")
	refs := make(map[string]store.BodyRef)
	for claim, n := range sizes {
		refs[claim] = write(t, u, random(uint64(n), n))
	}
	commit(t, u, Account("b1", 0, "d"))
	s = reopen()
	for claim, n := range sizes {
		t.Run(claim, func(t *testing.T) { wantBody(t, s, refs[claim], random(uint64(n), n)) })
	}
	if refs["empty"].Body != "" {
		t.Errorf("an empty body is stored as %s, want none", refs["empty"].Body)
	}
}

func sameBody(t *testing.T, open Opener) {
	s, reopen := open(t)
	for _, n := range []int{2048, 300_000} {
		data := random(9, n)
		batch := fmt.Sprint("same", n)
		u := begin(t, s, batch)
		refs := []store.BodyRef{write(t, u, data), write(t, u, data)}
		commit(t, u, Account(batch, 0, "d"))
		u = begin(t, reopen(), batch+"-again")
		refs = append(refs, write(t, u, data))
		commit(t, u, Account(batch+"-again", 0, "d"))
		for _, ref := range refs {
			wantBody(t, s, ref, data)
		}
	}
}

func concurrentBodies(t *testing.T, open Opener) {
	s, reopen := open(t)
	u := begin(t, s, "b1")
	const writers = 24
	refs := make([]store.BodyRef, writers)
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			var err error
			if refs[i], err = tryWrite(t, u, random(uint64(i), 1000+i*9000)); err != nil {
				t.Errorf("body %d: %v", i, err)
			}
			if err := u.Add(Record("b1", i)); err != nil {
				t.Errorf("record %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	commit(t, u, Account("b1", 0, "d"))
	s = reopen()
	for i, ref := range refs {
		wantBody(t, s, ref, random(uint64(i), 1000+i*9000))
	}
	seen := make(map[string]bool)
	for _, r := range records(t, s, "b1") {
		seen[r.ID] = true
	}
	if len(seen) != writers {
		t.Errorf("%d records are there, want %d", len(seen), writers)
	}
}

func abortedBody(t *testing.T, open Opener) {
	s, _ := open(t)
	u := begin(t, s, "b1")
	for _, n := range []int{100, 500_000} {
		w, err := u.Body(t.Context(), store.BodyMeta{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(random(4, n)); err != nil {
			t.Fatal(err)
		}
		w.Abort()
		w.Abort()
		if _, err := w.Finish(); err == nil {
			t.Error("Finish after Abort succeeded")
		}
	}
	kept := random(5, 100)
	w, err := u.Body(t.Context(), store.BodyMeta{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(kept); err != nil {
		t.Fatal(err)
	}
	ref, err := w.Finish()
	if err != nil {
		t.Fatal(err)
	}
	w.Abort() // does nothing
	commit(t, u, Account("b1", 0, "d"))
	wantBody(t, s, ref, kept)
}

func identity(t *testing.T, open Opener) {
	_, reopen := open(t)
	const workers = 12
	ids := make([]string, workers)
	var wg sync.WaitGroup
	for i := range workers {
		s := reopen()
		wg.Go(func() {
			var err error
			if ids[i], err = s.Identity(t.Context()); err != nil {
				t.Errorf("Identity: %v", err)
			}
		})
	}
	wg.Wait()
	last, err := reopen().Identity(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if id != last || len(id) < 16 || strings.TrimSpace(id) != id {
			t.Errorf("identities are %q and later %q, want one", ids, last)
			break
		}
	}
	other, _ := open(t)
	if id, err := other.Identity(t.Context()); err != nil || id == last {
		t.Errorf("another store has identity %q (error %v), want one of its own", id, err)
	}
	if errors.Is(err, store.ErrNotFound) {
		t.Error("a fresh store has no identity")
	}
}
