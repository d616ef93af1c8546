package filestore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
)

// identityFile holds the store's identity: 32 hexadecimal digits and a newline.
const identityFile = ".fetchfleet-store"

var identityForm = regexp.MustCompile(`^[0-9a-f]{32}\n$`)

// Identity returns the store's identity, which it makes at its first use.
func (s *Store) Identity(ctx context.Context) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.identity != "" {
		return s.identity, nil
	}
	id, err := s.agree(ctx)
	if err != nil {
		return "", fmt.Errorf("identify store: %w", err)
	}
	s.identity = id
	return id, nil
}

// agree returns the first whole identity among identityFile, identityFile.1, …, and links one of its own to the first
// free name. Identities are linked whole, so whoever comes second reads what the first one wrote. A torn file, which
// only a failing disk or a hand can leave, is never repaired in place, where two might repair it differently: it stays
// torn for everyone, and the next name decides.
func (s *Store) agree(ctx context.Context) (string, error) {
	for n := 0; n < 100; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		path := filepath.Join(s.dir, identityFile)
		if n > 0 {
			path += "." + strconv.Itoa(n)
		}
		id, err := readIdentity(path)
		switch {
		case err == nil && id != "":
			return id, nil
		case err == nil:
			n++ // torn
		case !errors.Is(err, os.ErrNotExist):
			return "", trouble("read", path, err)
		default:
			if err := s.propose(path); err != nil {
				return "", err
			}
		}
	}
	return "", fmt.Errorf("all of %s and its successors are damaged", filepath.Join(s.dir, identityFile))
}

// readIdentity returns "" for a file that holds no identity.
func readIdentity(path string) (string, error) {
	data, err := os.ReadFile(path)
	if err != nil || !identityForm.Match(data) {
		return "", err
	}
	return string(data[:len(data)-1]), nil
}

// propose links a new identity to path, durably, unless another is there.
func (s *Store) propose(path string) error {
	tmp := filepath.Join(s.dir, probePrefix+s.run+"~"+randomHex(4))
	defer func() { _ = removeTmp(tmp) }()
	if err := writeFile(tmp, []byte(randomHex(16)+"\n")); err != nil {
		return trouble("write", tmp, err)
	}
	if err := syncFile(tmp); err != nil {
		return trouble("flush", tmp, err)
	}
	err := os.Link(tmp, path)
	switch {
	case errors.Is(err, os.ErrExist):
		return nil
	case err != nil && isNoLinks(err):
		return noLinks(s.dir, err)
	case err != nil:
		return trouble("link", path, err)
	}
	if err := syncFile(s.dir); err != nil {
		return trouble("flush", s.dir, err)
	}
	return nil
}
