package pgstore

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

// The tables on a small file system, the server's log on another: a server whose log finds no space stops altogether,
// which is another test.
func TestFullDisk(t *testing.T) {
	server := shared.Server(t)
	dir := disktest.Small(t, 24<<20)
	server.Own(t, dir)
	pgtest.Exec(t, server.URL("postgres"), "CREATE TABLESPACE small LOCATION '"+dir+"'")
	t.Cleanup(func() {
		pgtest.Exec(t, server.URL("postgres"), "DROP DATABASE small WITH (FORCE)")
		pgtest.Exec(t, server.URL("postgres"), "DROP TABLESPACE small")
	})
	pgtest.Exec(t, server.URL("postgres"), "CREATE DATABASE small TABLESPACE small")
	s := openTest(t, server.URL("small"), Options{})
	u, a := begunUnit(t, s, "waits")
	free := disktest.Fill(t, dir)

	other, err := s.Begin(t.Context(), crashJob, "other")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Discard()
	_, err = putBody(t.Context(), other, make([]byte, 4<<20))
	wantFull(t, "a body", err)
	for i := range 200 { // of which each needs a little of the space that pages have left
		if err := u.Add(&store.Record{ID: fmt.Sprint(i), URL: strings.Repeat("u", 8000)}); err != nil {
			t.Fatal(err)
		}
		a.Entries = append(a.Entries, store.Entry{ID: fmt.Sprint(i), Fate: store.Recorded})
	}
	_, _, err = u.Commit(t.Context(), a)
	wantFull(t, "Commit", err)
	wantFull(t, "Check", s.Check(t.Context()))
	if _, err := s.Account(t.Context(), crashJob, "waits"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("Account of a unit that was refused: %v", err)
	}

	free()
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with space again: %v", err)
	}
	if _, won, err := u.Commit(t.Context(), a); err != nil || !won {
		t.Errorf("Commit with space again: won %v, %v", won, err)
	}
	wantSound(t, s)
}

func wantFull(t *testing.T, what string, err error) {
	t.Helper()
	wantSays(t, what, err, "disk is full")
	if errors.Is(err, store.ErrRecord) || sqlState(err) != diskFull {
		t.Errorf("%s = %v, want an error of the store", what, err)
	}
}
