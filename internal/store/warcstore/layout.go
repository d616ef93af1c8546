package warcstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fetchfleet/fetchfleet/internal/store/warc"
	"github.com/fetchfleet/fetchfleet/internal/store/warcunit"
)

// layoutFile holds the layout of the store, as JSON.
const layoutFile = warcunit.LayoutFile

// fileIdentity is the file by which a store of files is known.
const fileIdentity = ".fetchfleet-store"

// The folders of a job.
const (
	unitsFolder  = warcunit.UnitsFolder
	mergedFolder = "warc"
	partsFolder  = "parts"
	tmpFolder    = "tmp"
	mergeLock    = ".merge"
)

// The endings of temporary names.
const (
	tmpUnit  = warcunit.TmpUnit
	tmpMerge = ".merge"
)

const sep = string(filepath.Separator)

func (s *Store) jobPath(job, folder string) string { return s.dir + sep + job + sep + folder }

func (s *Store) tmpPath(job, name string) string { return s.jobPath(job, tmpFolder) + sep + name }

func (s *Store) unitPath(job, unit string, kind warc.Compression) string {
	return s.jobPath(job, unitsFolder) + sep + unit + kind.Ext()
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
func (s *Store) agree(ctx context.Context) (*warcunit.Layout, error) {
	return s.findLayout(ctx, func() []byte { return warcunit.NewLayout(s.wanted()).Encode() })
}

// readLayout returns the store's layout, or nil if nobody made one yet.
func (s *Store) readLayout(ctx context.Context) (*warcunit.Layout, error) {
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

func (s *Store) findLayout(ctx context.Context, mine func() []byte) (*warcunit.Layout, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.layout != nil {
		return s.layout, nil
	}
	var l *warcunit.Layout
	_, err := s.folder.Agree(ctx, s.run, layoutFile, func(data []byte) (bool, error) {
		var whole bool
		if l, whole = warcunit.ParseLayout(data); !whole {
			return false, nil
		}
		return true, l.Accept(warc.Compression(s.o.Compress))
	}, mine)
	if err != nil {
		return nil, err
	}
	s.layout = l
	return l, nil
}

// kind returns how the store is compressed. A store without layout has no units.
func (s *Store) kind(ctx context.Context) (warc.Compression, error) {
	l, err := s.readLayout(ctx)
	if err != nil || l == nil {
		return s.wanted(), err
	}
	return l.Compress, nil
}
