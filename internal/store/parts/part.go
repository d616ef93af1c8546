package parts

import (
	"context"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Part is a part in its holder's hands. It implements store.Part.
type Part struct {
	folder  *Folder
	request string
	file    *os.File // locked; nil when the holding has ended
	note    store.PartNote
	begun   bool      // whether there is a note
	hash    hash.Hash // of the bytes kept
	size    int64
	saved   int64 // what the last checkpoint counts
	err     error // the first of Write, and of a flush: nothing is trusted after it
}

var _ store.Part = (*Part)(nil)

// errEnded is returned by a part that was released, adopted or dropped.
var errEnded = errors.New("the part was given up")

// load goes back to the last checkpoint, or takes all that there is where nothing is flushed.
func (p *Part) load() error {
	n, err := p.folder.readNote(p.request)
	if err != nil {
		return err
	}
	fi, err := p.file.Stat()
	if err != nil {
		return p.trouble("open", err)
	}
	p.hash = sha256.New()
	if n == nil || fi.Size() < n.Size || p.hash.(encoding.BinaryUnmarshaler).UnmarshalBinary(n.State) != nil {
		return p.clear()
	}
	p.note, p.begun, p.size, p.saved = n.PartNote, true, n.Size, n.Size
	if p.folder.o.Sync {
		if err := p.file.Truncate(n.Size); err != nil {
			return p.trouble("truncate", err)
		}
	}
	if _, err := p.file.Seek(n.Size, io.SeekStart); err != nil {
		return p.trouble("open", err)
	}
	more, err := io.Copy(p.hash, p.file) // nothing, where it was truncated
	p.size += more
	if err != nil {
		return p.trouble("read", err)
	}
	return nil
}

// clear drops what is kept. The note goes first: bytes without one are nothing.
func (p *Part) clear() error {
	if err := p.folder.removeNote(p.request); err != nil {
		return err
	}
	p.note, p.begun, p.size, p.saved, p.hash = store.PartNote{}, false, 0, 0, sha256.New()
	if err := p.file.Truncate(0); err != nil {
		return p.trouble("truncate", err)
	}
	if _, err := p.file.Seek(0, io.SeekStart); err != nil {
		return p.trouble("truncate", err)
	}
	return nil
}

func (p *Part) path() string { return p.folder.file(p.request, bytesEnding) }

func (p *Part) trouble(op string, err error) error { return p.folder.o.Explain(op, p.path(), err) }

// Note is what was kept with the bytes.
func (p *Part) Note() store.PartNote {
	n := p.note
	n.Stretches = slices.Clone(n.Stretches)
	return n
}

// Size is how many bytes are kept.
func (p *Part) Size() int64 { return p.size }

// Begin drops whatever is kept, and starts over with a note.
func (p *Part) Begin(n store.PartNote) error {
	if err := p.usable(); err != nil {
		return fmt.Errorf("begin part of request %s: %w", p.request, err)
	}
	if err := p.clear(); err != nil {
		return fmt.Errorf("begin part of request %s: %w", p.request, err)
	}
	p.note, p.begun = n, true
	p.note.Stretches = slices.Clone(n.Stretches)
	return p.checkpoint()
}

func (p *Part) usable() error {
	if p.file == nil {
		return errEnded
	}
	return p.err
}

// Stretch notes that the bytes from here on come from another exchange.
func (p *Part) Stretch(s store.Stretch) error {
	if err := p.usable(); err != nil {
		return fmt.Errorf("go on with part of request %s: %w", p.request, err)
	}
	if !p.begun || s.From != p.size {
		return fmt.Errorf("go on with part of request %s: the stretch begins at %d, kept are %d bytes", p.request, s.From, p.size)
	}
	p.note.Stretches = append(p.note.Stretches, s)
	return p.checkpoint()
}

// Write appends. After an error every call returns that error.
func (p *Part) Write(b []byte) (int, error) {
	if err := p.usable(); err != nil {
		return 0, err
	}
	if !p.begun {
		return 0, fmt.Errorf("write part of request %s: it was not begun", p.request)
	}
	n, err := p.file.Write(b)
	p.hash.Write(b[:n])
	p.size += int64(n)
	if err != nil {
		p.err = p.trouble("write", err)
	} else if p.size-p.saved >= p.folder.o.Every {
		p.err = p.checkpoint()
	}
	if p.err != nil {
		return n, p.err
	}
	return n, nil
}

// checkpoint makes sure of the bytes and then of the note that counts them.
func (p *Part) checkpoint() error {
	if p.size > p.saved {
		if err := p.flush(); err != nil {
			return err
		}
	}
	state, err := stateOf(p.hash)
	if err != nil {
		return fmt.Errorf("save digest: %w", err)
	}
	if err := p.folder.writeNote(p.request, &note{V: noteVersion, PartNote: p.note, Size: p.size, State: state}); err != nil {
		return err
	}
	p.saved = p.size
	return nil
}

// flush makes the bytes durable. One that failed may succeed the next time, having lost what it was to keep: the part is not
// used any more, and goes on from its last checkpoint in other hands.
func (p *Part) flush() error {
	if p.folder.o.Sync && p.err == nil {
		if err := p.file.Sync(); err != nil {
			p.err = p.trouble("flush", err)
		}
	}
	return p.err
}

// Release ends the holding and keeps the part. After an error what the last checkpoint counts is kept.
func (p *Part) Release() error {
	if p.file == nil {
		return nil
	}
	if p.size == 0 {
		return p.Drop()
	}
	var err error
	if p.err == nil && p.size > p.saved {
		err = p.checkpoint()
	}
	err = errors.Join(err, p.end())
	if err != nil {
		return fmt.Errorf("release part of request %s: %w", p.request, err)
	}
	return nil
}

// end ends the holding: closing the file frees the lock.
func (p *Part) end() error {
	file := p.file
	p.file = nil
	return file.Close()
}

// Drop removes the part and ends the holding. The note goes first, and the name while it is still locked, so that
// nobody who comes next finds half of it.
func (p *Part) Drop() error {
	if p.file == nil {
		return nil
	}
	err := p.folder.removeNote(p.request)
	if err == nil {
		err = p.remove()
	}
	if p.file != nil {
		err = errors.Join(err, p.end())
	}
	if err != nil {
		return fmt.Errorf("drop part of request %s: %w", p.request, err)
	}
	return nil
}

func (p *Part) remove() error {
	var err error
	if closeFirst {
		err = p.end()
	}
	_ = os.Remove(p.folder.file(p.request, asideEnding)) // of a holder that died
	if rerr := os.Remove(p.path()); rerr != nil && !errors.Is(rerr, os.ErrNotExist) {
		err = errors.Join(err, p.trouble("remove", rerr))
	}
	return err
}

// limited reads what a part held when it was opened.
type limited struct {
	io.Reader
	io.Closer
}

// Open reads the part from its beginning.
func (p *Part) Open() (io.ReadCloser, error) {
	if p.file == nil {
		return nil, fmt.Errorf("open part of request %s: %w", p.request, errEnded)
	}
	file, err := os.Open(p.path())
	if err != nil {
		return nil, p.trouble("open", err)
	}
	return limited{io.LimitReader(file, p.size), file}, nil
}

// errNotWhole is returned where a part cannot be a body yet.
var errNotWhole = errors.New("it is not a whole body")

// Adopt makes the part a body of a unit. After an error it is still held.
func (p *Part) Adopt(ctx context.Context, u store.Unit, meta store.BodyMeta) (store.BodyRef, error) {
	err := p.usable()
	switch {
	case err != nil:
	case p.folder.o.Adopt == nil:
		err = errors.ErrUnsupported
	case p.note.Coded() || p.size != p.note.Length || !p.begun:
		err = fmt.Errorf("%w: %d bytes of %d, coding %q", errNotWhole, p.size, p.note.Length, p.note.Coding)
	default:
		err = p.flush()
	}
	if err != nil {
		return store.BodyRef{}, fmt.Errorf("adopt part of request %s: %w", p.request, err)
	}
	w := &Whole{p: p, Path: p.path(), Size: p.size, SHA256: hex.EncodeToString(p.hash.Sum(nil)), Note: p.Note()}
	ref, err := p.folder.o.Adopt(ctx, u, meta, w)
	if err != nil {
		return ref, fmt.Errorf("adopt part of request %s: %w", p.request, err)
	}
	if p.file == nil { // given away
		return ref, nil
	}
	return ref, p.Drop()
}

// Whole is a part that is a whole body, during Adopt.
type Whole struct {
	Path   string // of the file that holds it, which is not to be written to
	Size   int64
	SHA256 string // lower-case hex
	Note   store.PartNote
	p      *Part
}

// Give has the file moved: move is called with its path and, if it succeeds, there is no file there any more. It ends
// the holding. When move fails the part is as it was, except that a crash between its two halves would lose it.
//
// The note goes first. Behind the file it could meet the part that the next holder has begun by then; as long as a file
// has its old name, it can be written to.
func (w *Whole) Give(move func(path string) error) error {
	p := w.p
	if err := p.folder.removeNote(p.request); err != nil {
		return err
	}
	if closeFirst {
		if err := p.end(); err != nil {
			return err
		}
	}
	if err := move(w.Path); err != nil {
		if p.file == nil {
			return err
		}
		return errors.Join(err, p.checkpoint())
	}
	if p.file != nil {
		return p.end()
	}
	return nil
}
