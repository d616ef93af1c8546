package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/fetchfleet/fetchfleet/internal/audit"
	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// jobNote is what an output folder remembers of its job.
type jobNote struct {
	Job  tasks.JobID `json:"job"`
	Spec tasks.Spec  `json:"spec"`
	// Complete says that its whole list was fetched.
	Complete bool `json:"complete"`
	// Store is where the results are; nil where they are in the folder itself.
	Store *storeNote `json:"store,omitempty"`
}

// jobNoteName is the note's name in the output folder.
const jobNoteName = "job.json"

// recorded reports whether the output folder has a job.
func recorded(out string) bool {
	_, err := os.Stat(filepath.Join(out, jobNoteName))
	return err == nil
}

func readJobNote(out string) (note jobNote, found bool, err error) {
	path := filepath.Join(out, jobNoteName)
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) { // opening the store says what is wrong with a file
		return note, false, nil
	}
	if err != nil {
		return note, false, fmt.Errorf("read the job of the output folder: %w", err)
	}
	var raw struct {
		Job      tasks.JobID     `json:"job"`
		Spec     json.RawMessage `json:"spec"`
		Complete bool            `json:"complete"`
		Store    *storeNote      `json:"store"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return note, false, fmt.Errorf("%s is not a job's note (%w): give another --out", path, err)
	}
	note.Job, note.Complete, note.Store = raw.Job, raw.Complete, raw.Store
	if note.Spec, err = tasks.ParseSpec(raw.Spec); err != nil {
		return note, false, fmt.Errorf("%s: %w", path, err)
	}
	return note, true, nil
}

func writeJobNote(out string, note jobNote) error {
	return writeAtomically(filepath.Join(out, jobNoteName), func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(note)
	})
}

// writeAtomically writes a file aside and puts it in its place when it is whole.
func writeAtomically(path string, write func(io.Writer) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already when all went well
	buffered := bufio.NewWriterSize(f, 256<<10)
	err = write(buffered)
	if err == nil {
		err = buffered.Flush()
	}
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return os.Rename(f.Name(), path)
}

// writeResults writes every record that counts, one JSON object a line.
func writeResults(ctx context.Context, w io.Writer, s store.Store, job tasks.JobID, each func(*store.Record)) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	return audit.Each(ctx, s, job, func(r *store.Record) error {
		each(r)
		return e.Encode(r)
	})
}

// hostOf names the host that answered, for the slowest.
func hostOf(r *store.Record) string {
	u, err := canon.Parse(r.FinalURL)
	if err != nil {
		return r.RemoteAddr
	}
	return u.Host
}
