package filestore

import (
	"context"
	"fmt"
	"regexp"

	"github.com/fetchfleet/fetchfleet/internal/store/disk"
)

// identityFile holds the store's identity: 32 hexadecimal digits and a newline.
const identityFile = ".fetchfleet-store"

// warcLayout is the file by which a store of WARC files is known.
const warcLayout = ".fetchfleet-warc"

var identityForm = regexp.MustCompile(`^[0-9a-f]{32}\n$`)

// Identity returns the store's identity, which it makes at its first use.
func (s *Store) Identity(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.identity != "" {
		return s.identity, nil
	}
	data, err := s.folder.Agree(ctx, s.run, identityFile,
		func(data []byte) (bool, error) { return identityForm.Match(data), nil },
		func() []byte { return []byte(disk.RandomHex(16) + "\n") })
	if err != nil {
		return "", fmt.Errorf("identify store: %w", err)
	}
	s.identity = string(data[:len(data)-1])
	return s.identity, nil
}
