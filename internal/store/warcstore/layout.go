package warcstore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/disk"
	"github.com/fetchfleet/fetchfleet/internal/store/warc"
)

// layoutFile holds the layout of the store, as JSON.
const layoutFile = ".fetchfleet-warc"

// layoutVersion is the version of the layout that this code writes, and the newest that it reads.
const layoutVersion = 1

// layout is what all who use a store must agree on. Units of one name must have one file name, or both could win, so the
// compression is the store's and not the worker's.
type layout struct {
	Layout   int              `json:"layout"`
	Identity string           `json:"identity"`
	Compress warc.Compression `json:"compress"`
}

// The folders of a job.
const (
	unitsFolder  = "units"
	mergedFolder = "warc"
	tmpFolder    = "tmp"
	mergeLock    = ".merge"
)

// The endings of temporary names.
const (
	tmpUnit  = ".unit"
	tmpMeta  = ".meta"
	tmpBody  = ".body"
	tmpMerge = ".merge"
)

const sep = string(filepath.Separator)

func (s *Store) jobPath(job, folder string) string { return s.dir + sep + job + sep + folder }

func (s *Store) tmpPath(job, name string) string { return s.jobPath(job, tmpFolder) + sep + name }

func (s *Store) unitPath(job, unit string, kind warc.Compression) string {
	return s.jobPath(job, unitsFolder) + sep + unit + kind.Ext()
}

func checkNames(job, unit string) error {
	if err := store.CheckName("job", job); err != nil {
		return err
	}
	return store.CheckName("unit", unit)
}

// bodyName returns the Body field of a record.
func bodyName(unit string, offset int64) string { return unit + "#" + strconv.FormatInt(offset, 10) }

// parseBody takes a Body field apart. What this driver would not have made is not there, and names nothing outside the
// store.
func parseBody(job, body string) (bodyJob, unit string, offset int64, err error) {
	rest := body
	if other, ok := strings.CutPrefix(body, "../"); ok {
		job, rest, _ = strings.Cut(other, "/")
	}
	unit, number, _ := strings.Cut(rest, "#")
	offset, err = strconv.ParseInt(number, 10, 64)
	if err != nil || offset < 0 || checkNames(job, unit) != nil {
		return "", "", 0, fmt.Errorf("body name %.80q is not of the form UNIT#OFFSET: %w", body, store.ErrNotFound)
	}
	return job, unit, offset, nil
}

// Identity returns the store's identity, which it makes at its first use.
func (s *Store) Identity(ctx context.Context) (string, error) {
	l, err := s.agree(ctx)
	if err != nil {
		return "", fmt.Errorf("identify store: %w", err)
	}
	return l.Identity, nil
}

// agree returns the store's layout, which it makes at its first use.
func (s *Store) agree(ctx context.Context) (*layout, error) {
	return s.findLayout(ctx, func() []byte {
		l := layout{Layout: layoutVersion, Identity: disk.RandomHex(16), Compress: s.wanted()}
		line, err := json.Marshal(l)
		if err != nil {
			panic(err) // it has two strings and a number
		}
		return append(line, '\n')
	})
}

// readLayout returns the store's layout, or nil if nobody made one yet.
func (s *Store) readLayout(ctx context.Context) (*layout, error) {
	l, err := s.findLayout(ctx, nil)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return l, err
}

func (s *Store) wanted() warc.Compression {
	if s.o.Compress != "" {
		return warc.Compression(s.o.Compress)
	}
	return warc.Gzip
}

func (s *Store) findLayout(ctx context.Context, mine func() []byte) (*layout, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout != nil {
		return s.layout, nil
	}
	l := new(layout)
	_, err := s.folder.Agree(ctx, s.run, layoutFile, func(data []byte) (bool, error) {
		*l = layout{}
		whole := bytes.HasSuffix(data, []byte("}\n")) && json.Unmarshal(data, l) == nil && len(l.Identity) >= 16
		if !whole {
			return false, nil
		}
		return true, s.accept(l)
	}, mine)
	if err != nil {
		return nil, err
	}
	s.layout = l
	return l, nil
}

// accept refuses a layout that this program or these options cannot work with.
func (s *Store) accept(l *layout) error {
	switch {
	case l.Layout > layoutVersion:
		return fmt.Errorf("the store has layout version %d, this program knows %d: use a newer one", l.Layout, layoutVersion)
	case l.Compress != warc.Gzip && l.Compress != warc.Zstd:
		return fmt.Errorf("the store is compressed with %.20q, which this program does not know: use a newer one", l.Compress)
	case s.o.Compress != "" && l.Compress != s.wanted():
		return fmt.Errorf("the store was made with %s: say compress=%s, or choose another folder for %s",
			l.Compress, l.Compress, s.wanted())
	}
	return nil
}

// kind returns how the store is compressed. A store without layout has no units.
func (s *Store) kind(ctx context.Context) (warc.Compression, error) {
	l, err := s.readLayout(ctx)
	if err != nil || l == nil {
		return s.wanted(), err
	}
	return l.Compress, nil
}
