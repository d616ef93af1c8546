package parts

import (
	"encoding"
	"encoding/json"
	"errors"
	"hash"
	"os"
	"path/filepath"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// noteVersion is the version of note that this code writes. A part whose note has another one starts over.
const noteVersion = 1

// note is a checkpoint, as it lies in REQUEST.json.
type note struct {
	V int `json:"v"`
	store.PartNote
	Size  int64  `json:"size"`   // bytes that surely lie in the part
	State []byte `json:"sha256"` // of the hash over those: encoding.BinaryMarshaler
}

// readNote returns nil where there is no note, or none that can be used: the part then starts over, which costs a
// transfer and is never wrong.
func (f *Folder) readNote(request string) (*note, error) {
	path := f.file(request, noteEnding)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, f.o.Explain("read", path, err)
	}
	return parseNote(data), nil
}

// parseNote returns nil for what is torn or of another version.
func parseNote(data []byte) *note {
	n := new(note)
	if err := json.Unmarshal(data, n); err != nil || n.V != noteVersion || n.Size < 0 {
		return nil
	}
	return n
}

// writeNote replaces the note, so that there is always a whole one.
func (f *Folder) writeNote(request string, n *note) error {
	data, err := json.Marshal(n)
	if err != nil {
		return err
	}
	aside, path := f.file(request, asideEnding), f.file(request, noteEnding)
	err = f.writeFile(aside, append(data, '\n'))
	if err == nil {
		err = os.Rename(aside, path)
	}
	if err != nil {
		_ = os.Remove(aside)
		return f.o.Explain("write", path, err)
	}
	return nil
}

func (f *Folder) writeFile(path string, data []byte) error {
	file, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil && f.o.Sync {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// removeNote removes the note, durably where that is wanted: before the bytes are others, no note may say that they
// are the old ones.
func (f *Folder) removeNote(request string) error {
	path := f.file(request, noteEnding)
	err := os.Remove(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && f.o.Sync {
		err = syncFolder(filepath.Dir(path))
	}
	if err != nil {
		return f.o.Explain("remove", path, err)
	}
	return nil
}

// stateOf saves the state of a hash.
func stateOf(h hash.Hash) ([]byte, error) {
	return h.(encoding.BinaryMarshaler).MarshalBinary() // crypto/sha256 documents that it is one
}
