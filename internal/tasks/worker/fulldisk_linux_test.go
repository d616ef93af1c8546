package worker_test

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/rs/zerolog"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

func TestAFullDiskStopsIntakeUntilThereIsSpace(t *testing.T) {
	dir := disktest.Small(t, 2<<20)
	f := newFleet(t)
	s, err := filestore.Open(t.Context(), dir, filestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f.store = s
	fetcher := fetch.New(fetch.Options{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	defer fetcher.Close()
	w, err := worker.New(t.Context(), worker.Options{Redis: f.client(), Store: s, Fetcher: fetcher, Gate: newGate(f.client()), Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	free := disktest.Fill(t, dir)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- w.Run(ctx) }()
	defer func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	var lines []string
	for i := range 40 {
		lines = append(lines, f.origin.URL(fmt.Sprintf("/page/%d", i)))
	}
	f.enqueue("full", fastSpec(), lines...)
	awaitReason(t, w, "store: ")
	if st, err := f.ledger.Status(t.Context(), "full"); err != nil || st.Open != 40 || st.Recorded() != 0 {
		t.Errorf("with a full disk: %+v, %v; want nothing acknowledged", st, err)
	}
	free()
	awaitReason(t, w, "")
	if st := f.await("full", within); st.OK != 40 || len(st.Classes) != 0 {
		t.Errorf("with space again: %+v", st)
	}
	if n := len(f.records("full")); n != 40 {
		t.Errorf("%d records, want 40", n)
	}
}
