package parts

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fetchfleet/fetchfleet/internal/disktest"
)

func TestAFullDiskKeepsWhatThereIs(t *testing.T) {
	dir := disktest.Small(t, 2<<20)
	f := In(dir, Options{Sync: true, Every: 256 << 10})
	p := take(t, f)
	must(t, p.Begin(noteOf(4<<20)))
	data := random(4 << 20)
	var err error
	for err == nil {
		_, err = p.Write(data[p.Size() : p.Size()+10_000])
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("Write on a full disk = %v", err)
	}
	if _, again := p.Write([]byte("x")); !errors.Is(again, unix.ENOSPC) {
		t.Errorf("the next Write = %v", again)
	}
	_ = p.Release() // which may fail: the note has no room
	p = take(t, f)
	if p.Size() < 1<<20 {
		t.Errorf("kept are only %d bytes", p.Size())
	}
	wantKept(t, p, data[:p.Size()])
	must(t, p.Drop())

	free := disktest.Fill(t, dir)
	if p, err := f.Take(t.Context(), request); err == nil {
		err = p.Begin(noteOf(10))
		if !errors.Is(err, unix.ENOSPC) {
			t.Errorf("Begin on a full disk = %v", err)
		}
		_ = p.Drop()
	}
	free()
	p = take(t, f)
	must(t, p.Begin(noteOf(5)))
	write(t, p, []byte("12345"))
	wantKept(t, p, []byte("12345"))
}
