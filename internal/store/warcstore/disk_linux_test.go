package warcstore

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestFullDisk(t *testing.T) {
	dir := disktest.Small(t, 4<<20)
	s := openTest(t, dir, Options{})
	if _, err := s.Identity(t.Context()); err != nil {
		t.Fatal(err)
	}
	wantFull := func(what string, err error) {
		t.Helper()
		wantSays(t, what, err, "no space left on "+dir)
		if errors.Is(err, store.ErrRecord) || !errors.Is(err, unix.ENOSPC) {
			t.Errorf("%s = %v, want an error of the store that wraps ENOSPC", what, err)
		}
	}
	_, err := tryUnit(t, s, "b1", answer{url: "http://x.test/", status: 200, body: random(1, 6<<20)})
	wantFull("a large body", err)
	small, smallAccount, _, err := beginUnit(t, s, "b2", mixed()[:3]...)
	if err != nil {
		t.Fatal(err)
	}
	large, largeAccount, records, err := beginUnit(t, s, "b3", answer{url: "http://x.test/3", status: 200, body: random(2, 1<<20+1)})
	if err != nil {
		t.Fatal(err)
	}
	free := disktest.Fill(t, dir)
	wantFull("Check", s.Check(t.Context()))
	_, _, err = small.Commit(t.Context(), smallAccount)
	wantFull("Commit of a small unit", err)
	for unit := range s.Units(t.Context(), testJob) {
		t.Errorf("unit %s is visible on a full disk", unit)
	}
	free()
	if err := s.Check(t.Context()); err != nil {
		t.Errorf("Check with space again: %v", err)
	}
	for _, u := range []struct {
		store.Unit
		a *store.Account
	}{{small, smallAccount}, {large, largeAccount}} {
		if _, won, err := u.Commit(t.Context(), u.a); err != nil || !won {
			t.Errorf("Commit of the same unit with space again: won %v, %v", won, err)
		}
	}
	wantBody(t, s, records[0], random(2, 1<<20+1))
	free = disktest.Fill(t, dir)
	wantFull("Compact", s.Compact(t.Context(), testJob))
	wantSound(t, s)
	free()
	if err := s.Compact(t.Context(), testJob); err != nil {
		t.Errorf("Compact with space again: %v", err)
	}
	wantBody(t, s, records[0], random(2, 1<<20+1))
	if left := tmpFiles(t, s); len(left) > 0 {
		t.Errorf("tmp holds %q", left)
	}
	wantSound(t, s)
}

func TestReadOnlyMount(t *testing.T) {
	dir := disktest.Small(t, 4<<20)
	s := openTest(t, dir, Options{})
	records := storeUnit(t, s, "b1", mixed()[:2]...)
	u, account, _, err := beginUnit(t, s, "b2", mixed()[2])
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	_, _, err = u.Commit(t.Context(), account)
	wantSays(t, "Commit", err, "read-only")
	wantSays(t, "Check", s.Check(t.Context()), "read-only")
	reader := openTest(t, dir, Options{MustExist: true})
	wantBody(t, reader, records[1], mixed()[1].body)
	wantSound(t, reader)
}
