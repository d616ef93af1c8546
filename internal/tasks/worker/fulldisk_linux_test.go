package worker_test

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"

	"github.com/rs/zerolog"
	"golang.org/x/sys/unix"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/hosts"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
	"github.com/fetchfleet/fetchfleet/internal/tasks/worker"
)

// smallDisk mounts a file system of 2 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("only root can mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("fetchfleet-test", dir, "tmpfs", 0, "size=2m"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatalf("mount: %v", err)
		}
		t.Skipf("mount: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// ballast takes what space is left.
func ballast(t *testing.T, dir string) (free func()) {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	for err == nil {
		_, err = file.Write(make([]byte, 4096))
	}
	return func() {
		if err := os.Remove(path); err != nil {
			t.Error(err)
		}
	}
}

func TestAFullDiskStopsIntakeUntilThereIsSpace(t *testing.T) {
	dir := smallDisk(t)
	f := newFleet(t)
	s, err := filestore.Open(t.Context(), dir, filestore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	f.store = s
	fetcher := fetch.New(fetch.Options{AllowPrivate: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
	defer fetcher.Close()
	w, err := worker.New(t.Context(), worker.Options{Redis: f.client(), Store: s, Fetcher: fetcher, Gate: hosts.NewLocal(), Logger: zerolog.Nop()})
	if err != nil {
		t.Fatal(err)
	}
	free := ballast(t, dir)
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
