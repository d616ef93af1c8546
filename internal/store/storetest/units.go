package storetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func nothingBeforeCommit(t *testing.T, open Opener) {
	s, reopen := open(t)
	u := begin(t, s, "b1")
	add(t, u, Record("b1", 0))
	write(t, u, random(1, 100_000))
	for _, s := range []store.Store{s, reopen()} {
		wantAbsent(t, s, "b1")
	}
}

func wantAbsent(t *testing.T, s store.Store, unit string) {
	t.Helper()
	if a, err := s.Account(t.Context(), job, unit); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Account(%s) = %v, %v, want ErrNotFound", unit, a, err)
	}
	for r, err := range s.Records(t.Context(), job, unit) {
		if !errors.Is(err, store.ErrNotFound) {
			t.Errorf("Records(%s) yields %v, %v, want ErrNotFound", unit, r, err)
		}
	}
	wantEqual(t, "the list of units", units(t, s, job), []string{})
}

func visibleEverywhere(t *testing.T, open Opener) {
	s, reopen := open(t)
	other := reopen()
	recs, a := store1(t, s, "b1", 0, 3)
	for _, s := range []store.Store{s, other, reopen()} {
		wantEqual(t, "account", account(t, s, "b1"), a)
		wantEqual(t, "records", records(t, s, "b1"), recs)
		wantEqual(t, "units", units(t, s, job), []string{"b1"})
	}
}

func emptyUnit(t *testing.T, open Opener) {
	s, reopen := open(t)
	a := &store.Account{V: 1, Job: job, Batch: "b1", Worker: "w", Delivery: "d", Entries: []store.Entry{
		{ID: "r1", Fate: store.HandedBack},
	}}
	commit(t, begin(t, s, "b1"), a)
	s = reopen()
	wantEqual(t, "account", account(t, s, "b1"), a)
	wantEqual(t, "units", units(t, s, job), []string{"b1"})
	if got := records(t, s, "b1"); len(got) != 0 {
		t.Errorf("a unit without records yields %d", len(got))
	}
}

func firstWins(t *testing.T, open Opener) {
	s, reopen := open(t)
	late := begin(t, reopen(), "b1")
	body := random(2, 5000)
	write(t, late, body)
	late1 := Record("b1", 9)
	add(t, late, late1)
	recs, a := store1(t, s, "b1", 0, 2)

	got, won, err := late.Commit(t.Context(), Account("b1", 0, "d2", late1))
	if err != nil || won {
		t.Fatalf("second Commit = %v, won %v, %v; want the first one's account", got, won, err)
	}
	wantEqual(t, "the winner's account", got, a)
	wantEqual(t, "records after the race", records(t, s, "b1"), recs)
	wantEqual(t, "account after the race", account(t, s, "b1"), a)
}

func race(t *testing.T, open Opener) {
	s, reopen := open(t)
	stores := []store.Store{s, reopen(), reopen()}
	const racers, rounds = 8, 6
	for round := range rounds {
		batch := fmt.Sprintf("b%d", round)
		var wg sync.WaitGroup
		winners, wins := make([]*store.Account, racers), make([]bool, racers)
		start := make(chan struct{})
		for i := range racers {
			u := begin(t, stores[i%len(stores)], batch)
			r := Record(batch, i)
			add(t, u, r)
			write(t, u, random(uint64(i), 3000))
			wg.Go(func() {
				<-start
				var err error
				winners[i], wins[i], err = u.Commit(t.Context(), Account(batch, 0, fmt.Sprint("d", i), r))
				if err != nil {
					t.Errorf("racer %d: %v", i, err)
					return
				}
				// A loser goes on from what is there at once: it must be whole already.
				if got := records(t, stores[i%len(stores)], batch); len(got) != 1 || got[0].ID != winners[i].Entries[0].ID {
					t.Errorf("racer %d sees records %v beside the account of %s", i, got, winners[i].Delivery)
				}
			})
		}
		close(start)
		wg.Wait()
		if t.Failed() {
			return
		}
		won := 0
		for i := range racers {
			if wins[i] {
				won++
				wantEqual(t, "the winner's delivery", winners[i].Delivery, fmt.Sprint("d", i))
			}
			wantEqual(t, "the account that a racer learnt", winners[i], winners[0])
		}
		if won != 1 {
			t.Errorf("%d of %d racers won", won, racers)
		}
	}
}

func notFound(t *testing.T, open Opener) {
	s, _ := open(t)
	wantAbsent(t, s, "b1")
	store1(t, s, "b1", 0, 1)
	if _, err := s.Account(t.Context(), job, "b2"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Account(b2) = %v, want ErrNotFound", err)
	}
	if _, err := s.Account(t.Context(), "other", "b1"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Account of another job = %v, want ErrNotFound", err)
	}
	if _, err := s.OpenBody(t.Context(), job, "bodies/ab/ab.html"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("OpenBody of nothing = %v, want ErrNotFound", err)
	}
}

func unitsListed(t *testing.T, open Opener) {
	s, reopen := open(t)
	var want []string
	for i := range 40 {
		batch := fmt.Sprintf("b%02d", i)
		u := begin(t, s, batch)
		if i%4 == 3 {
			continue // never committed
		}
		commit(t, u, Account(batch, 0, "d"))
		want = append(want, batch)
	}
	wantEqual(t, "units", units(t, reopen(), job), want)
}

func manyRecords(t *testing.T, open Opener) {
	s, reopen := open(t)
	// Long enough in all that a driver which keeps small units in memory must leave that path.
	var recs []*store.Record
	for i := range 300 {
		r := Record("b1", i)
		r.Headers["X-Long"] = []string{strings.Repeat("h", 8000)}
		recs = append(recs, r)
	}
	u := begin(t, s, "b1")
	add(t, u, recs...)
	commit(t, u, Account("b1", 0, "d", recs...))
	wantEqual(t, "records", records(t, reopen(), "b1"), recs)
}

func recordRefused(t *testing.T, open Opener) {
	s, _ := open(t)
	u := begin(t, s, "b1")
	first, last := Record("b1", 0), Record("b1", 2)
	bad := map[string]func(*store.Record){
		"no id":            func(r *store.Record) { r.ID = "" },
		"id not text":      func(r *store.Record) { r.ID = "a\xffb" },
		"url not text":     func(r *store.Record) { r.URL = "http://x/\xc3(" },
		"meta is not json": func(r *store.Record) { r.Meta = []byte(`{"a":`) },
	}
	add(t, u, first)
	for claim, spoil := range bad {
		r := Record("b1", 1)
		spoil(r)
		if err := u.Add(r); !errors.Is(err, store.ErrRecord) {
			t.Errorf("%s: Add = %v, want ErrRecord", claim, err)
		}
	}
	add(t, u, last)
	commit(t, u, Account("b1", 0, "d", first, last))
	wantEqual(t, "records", records(t, s, "b1"), []*store.Record{first, last})
}

func discard(t *testing.T, open Opener) {
	s, reopen := open(t)
	u := begin(t, s, "b1")
	add(t, u, Record("b1", 0))
	ref := write(t, u, random(3, 200_000))
	for range 2 { // the second does nothing
		if err := u.Discard(); err != nil {
			t.Errorf("Discard: %v", err)
		}
	}
	wantAbsent(t, reopen(), "b1")
	// No record refers to its body. A store may have put it in place already, and then it is whole.
	if r, err := s.OpenBody(t.Context(), job, ref.Body); err == nil {
		r.Close()
		wantBody(t, s, ref, random(3, 200_000))
	} else if !errors.Is(err, store.ErrNotFound) {
		t.Errorf("OpenBody of a discarded unit = %v, want ErrNotFound", err)
	}
	store1(t, s, "b1", 0, 1) // the name is free
}

func endsOnce(t *testing.T, open Opener) {
	s, _ := open(t)
	u := begin(t, s, "b1")
	r := Record("b1", 0)
	add(t, u, r)
	a := Account("b1", 0, "d", r)
	commit(t, u, a)
	if err := u.Discard(); err != nil {
		t.Errorf("Discard after Commit: %v", err)
	}
	if _, _, err := u.Commit(t.Context(), a); err == nil {
		t.Error("a second Commit succeeded")
	}
	if err := u.Add(r); err == nil {
		t.Error("Add after Commit succeeded")
	}
	if _, err := u.Body(t.Context(), store.BodyMeta{}); err == nil {
		t.Error("Body after Commit succeeded")
	}
	wantEqual(t, "account", account(t, s, "b1"), a)
	wantEqual(t, "records", records(t, s, "b1"), []*store.Record{r})
}

func foreignAccount(t *testing.T, open Opener) {
	s, _ := open(t)
	u := begin(t, s, "b1")
	if _, _, err := u.Commit(t.Context(), Account("b2", 0, "d")); err == nil {
		t.Error("a unit took the account of another")
	}
	wantAbsent(t, s, "b1")
}

func generations(t *testing.T, open Opener) {
	s, reopen := open(t)
	recs0, a0 := store1(t, s, "b1", 0, 1)
	recs1, a1 := store1(t, s, "b1", 1, 2)
	s = reopen()
	wantEqual(t, "units", units(t, s, job), []string{"b1", "b1.1"})
	wantEqual(t, "account", account(t, s, "b1"), a0)
	wantEqual(t, "account of the replay", account(t, s, "b1.1"), a1)
	wantEqual(t, "records", records(t, s, "b1"), recs0)
	wantEqual(t, "records of the replay", records(t, s, "b1.1"), recs1)
}

func jobsApart(t *testing.T, open Opener) {
	s, _ := open(t)
	store1(t, s, "b1", 0, 1)
	wantEqual(t, "units of another job", units(t, s, "job-2"), []string{})
	u, err := s.Begin(t.Context(), "job-2", "b1")
	if err != nil {
		t.Fatal(err)
	}
	a := Account("b1", 0, "d2")
	a.Job = "job-2"
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Errorf("Commit of the same batch name in another job: won %v, %v", won, err)
	}
}

func badNames(t *testing.T, open Opener) {
	s, _ := open(t)
	bad := []string{"", ".", "..", "../x", "a/b", `a\b`, "a\x00b", "-rf", ".hidden", "a.", "a b", "ä", strings.Repeat("x", 121)}
	for _, name := range bad {
		if _, err := s.Begin(t.Context(), job, name); !errors.Is(err, store.ErrRecord) {
			t.Errorf("Begin(unit %.20q) = %v, want ErrRecord", name, err)
		}
		if _, err := s.Begin(t.Context(), name, "b1"); !errors.Is(err, store.ErrRecord) {
			t.Errorf("Begin(job %.20q) = %v, want ErrRecord", name, err)
		}
		if _, err := s.Account(t.Context(), job, name); !errors.Is(err, store.ErrRecord) {
			t.Errorf("Account(%.20q) = %v, want ErrRecord", name, err)
		}
		for _, err := range s.Units(t.Context(), name) {
			if !errors.Is(err, store.ErrRecord) {
				t.Errorf("Units(%.20q) = %v, want ErrRecord", name, err)
			}
		}
	}
	for _, body := range []string{"", "/etc/passwd", "../../x", "bodies/../../x", "bodies/ab/../x", "accounts/b1.json"} {
		if r, err := s.OpenBody(t.Context(), job, body); err == nil {
			r.Close()
			t.Errorf("OpenBody(%q) succeeded", body)
		}
	}
	long := strings.Repeat("x", 120)
	commit(t, begin(t, s, long), Account(long, 0, "d"))
}

func cancelled(t *testing.T, open Opener) {
	s, _ := open(t)
	store1(t, s, "b1", 0, 1)
	u := begin(t, s, "b2")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, beginErr := s.Begin(ctx, job, "b3")
	_, accountErr := s.Account(ctx, job, "b1")
	_, bodyErr := u.Body(ctx, store.BodyMeta{})
	_, _, commitErr := u.Commit(ctx, Account("b2", 0, "d"))
	errs := map[string]error{
		"Begin": beginErr, "Account": accountErr, "Body": bodyErr, "Commit": commitErr, "Check": s.Check(ctx),
	}
	for _, err := range s.Units(ctx, job) {
		errs["Units"] = err
	}
	for _, err := range s.Records(ctx, job, "b1") {
		errs["Records"] = err
	}
	for call, err := range errs {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a cancelled context = %v, want context.Canceled", call, err)
		}
	}
	wantEqual(t, "units", units(t, s, job), []string{"b1"})
}

func leaveEarly(t *testing.T, open Opener) {
	s, _ := open(t)
	store1(t, s, "b1", 0, 3)
	store1(t, s, "b2", 0, 3)
	for range s.Units(t.Context(), job) {
		break
	}
	for range s.Records(t.Context(), job, "b1") {
		break
	}
}

func check(t *testing.T, open Opener) {
	s, reopen := open(t)
	for _, s := range []store.Store{s, reopen()} {
		if err := s.Check(t.Context()); err != nil {
			t.Errorf("Check: %v", err)
		}
	}
	wantEqual(t, "units after Check", units(t, s, job), []string{})
}

func closed(t *testing.T, open Opener) {
	_, reopen := open(t)
	s := reopen()
	u := begin(t, s, "b1")
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
	}
	if _, err := s.Begin(t.Context(), job, "b2"); err == nil {
		t.Error("Begin after Close succeeded")
	}
	if _, _, err := u.Commit(t.Context(), Account("b1", 0, "d")); err == nil {
		t.Error("Commit after Close succeeded")
	}
}
