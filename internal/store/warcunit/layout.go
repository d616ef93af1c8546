package warcunit

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// What a store is made of, in a folder or under a prefix.
const (
	LayoutFile  = ".fetchfleet-warc" // a Layout, as JSON
	UnitsFolder = "units"            // of a job: UNIT and the compression's ending
)

// LayoutVersion is the version of the layout that this code writes, and the newest that it reads.
const LayoutVersion = 1

// Layout is what all who use a store must agree on. Units of one name must have one file name, or both could win, so the
// compression is the store's and not the worker's.
type Layout struct {
	Layout   int              `json:"layout"`
	Identity string           `json:"identity"`
	Compress warc.Compression `json:"compress"`
}

// NewLayout returns the layout of a new store.
func NewLayout(compress warc.Compression) *Layout {
	return &Layout{Layout: LayoutVersion, Identity: disk.RandomHex(16), Compress: compress}
}

// Encode returns what LayoutFile holds.
func (l *Layout) Encode() []byte {
	line, err := json.Marshal(l)
	if err != nil {
		panic(err) // it has two strings and a number
	}
	return append(line, '\n')
}

// ParseLayout reads what LayoutFile holds. whole says that it is one, if not one for this program.
func ParseLayout(data []byte) (l *Layout, whole bool) {
	l = new(Layout)
	whole = bytes.HasSuffix(data, []byte("}\n")) && json.Unmarshal(data, l) == nil && len(l.Identity) >= 16
	return l, whole
}

// Accept refuses a layout that this program cannot work with, or that is not what was asked for: "" takes what there is.
func (l *Layout) Accept(compress warc.Compression) error {
	switch {
	case l.Layout > LayoutVersion:
		return fmt.Errorf("the store has layout version %d, this program knows %d: use a newer one", l.Layout, LayoutVersion)
	case l.Compress != warc.Gzip && l.Compress != warc.Zstd:
		return fmt.Errorf("the store is compressed with %.20q, which this program does not know: use a newer one", l.Compress)
	case compress != "" && l.Compress != compress:
		return fmt.Errorf("the store was made with %s: say compress=%s, or choose another folder for %s",
			l.Compress, l.Compress, compress)
	}
	return nil
}

// CheckNames refuses names that are none of a job and of a unit.
func CheckNames(job, unit string) error {
	if err := store.CheckName("job", job); err != nil {
		return err
	}
	return store.CheckName("unit", unit)
}

// BodyName returns the Body field of a record.
func BodyName(unit string, offset int64) string { return unit + "#" + strconv.FormatInt(offset, 10) }

// ParseBody takes a Body field apart. What this package would not have made is not there, and names nothing outside the
// store.
func ParseBody(job, body string) (bodyJob, unit string, offset int64, err error) {
	rest := body
	if other, ok := strings.CutPrefix(body, "../"); ok {
		job, rest, _ = strings.Cut(other, "/")
	}
	unit, number, _ := strings.Cut(rest, "#")
	offset, err = strconv.ParseInt(number, 10, 64)
	if err != nil || offset < 0 || CheckNames(job, unit) != nil {
		return "", "", 0, fmt.Errorf("body name %.80q is not of the form UNIT#OFFSET: %w", body, store.ErrNotFound)
	}
	return job, unit, offset, nil
}
