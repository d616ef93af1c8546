package warcunit

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// Finished is a unit whole, as it is to be stored: in Data, or in a file. It is valid until End returns or Finish is
// called again, and is not to be changed.
type Finished struct {
	Attempt string // that the account in it names, unique for ever
	Data    []byte
	File    *os.File // nil where Data has it
	Path    string   // of File; there is such a name where Workshop.Named says so
	Size    int64
}

// End is the frame of a commit. It calls commit while nobody else uses the unit, and ends the unit unless it fails. The
// errors are for the caller to wrap.
func (u *Unit) End(a *store.Account, commit func() (winner *store.Account, won bool, err error)) (*store.Account, bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.ended {
		return nil, false, errEnded
	}
	if a.Job != u.job || a.Unit() != u.name {
		return nil, false, fmt.Errorf("of job %s: the account is of unit %s of job %s", u.job, a.Unit(), a.Job)
	}
	winner, won, err := commit()
	if err != nil {
		return nil, false, err
	}
	if won {
		u.s.known.add(u.job, u.name, u.own)
	}
	_ = u.drop() // what it fails to remove, Sweep will
	return winner, won, nil
}

// Finish makes the unit whole. It is for the function that End calls, and leaves the unit as it was, so that it can be
// repeated.
func (u *Unit) Finish(a *store.Account) (*Finished, error) {
	u.commits++
	account := &Stored{
		Account: a, Layout: LayoutVersion, Attempt: u.stem + "~" + strconv.Itoa(u.commits), Records: u.records, Captures: u.captures,
	}
	if err := u.flushLines(); err != nil {
		return nil, err
	}
	part, whole := u.meta.Size(), u.data.Size()+u.meta.Size()
	if u.data.file != nil || u.meta.file != nil {
		last, err := account.AppendTo(nil, u.kind, part, whole)
		if err != nil {
			return nil, err
		}
		return u.completeFile(account.Attempt, last)
	}
	n := len(u.data.mem)
	all, err := account.AppendTo(append(u.data.mem, u.meta.mem...), u.kind, part, whole)
	if err != nil {
		return nil, err
	}
	u.data.mem = all[:n]
	return &Finished{Attempt: account.Attempt, Data: all, Size: int64(len(all))}, nil
}

// completeFile appends to the file of a large unit what a commit before this one may have appended already.
func (u *Unit) completeFile(attempt string, last []byte) (*Finished, error) {
	if err := u.data.toFile(); err != nil {
		return nil, err
	}
	size := u.data.size
	err := u.data.file.Truncate(size)
	if err == nil {
		err = u.data.stream(func(w io.Writer) error {
			if _, err := io.Copy(w, u.meta.reader(0)); err != nil {
				return err
			}
			_, err := w.Write(last)
			return err
		})
	}
	whole := u.data.size
	u.data.size = size
	if err != nil {
		return nil, disk.Trouble("write unit", u.data.path, err)
	}
	return &Finished{Attempt: attempt, File: u.data.file, Path: u.data.path, Size: whole}, nil
}
