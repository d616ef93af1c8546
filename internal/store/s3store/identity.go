package s3store

import (
	"context"
	"errors"
	"fmt"
	"regexp"
)

var identityForm = regexp.MustCompile(`^[0-9a-f]{32}\n$`)

// Identity returns the store's identity, which it makes at its first use.
func (s *Store) Identity(ctx context.Context) (string, error) {
	s.mu.Lock()
	id := s.identity
	s.mu.Unlock()
	if id != "" {
		return id, nil
	}
	id, err := s.agree(ctx)
	if err != nil {
		return "", fmt.Errorf("identify store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity = id
	return id, nil
}

// agree returns the identity that is there, or puts one: the first wins.
func (s *Store) agree(ctx context.Context) (string, error) {
	id, err := s.readIdentity(ctx)
	if !isMissing(err) {
		return id, err
	}
	proposal := randomHex(16)
	_, err = s.c.put(ctx, s.keys.identity(), inMemory([]byte(proposal+"\n")), "text/plain", condition{absent: true})
	if err != nil && !errors.Is(err, errTaken) {
		return "", err
	}
	return s.readIdentity(ctx)
}

func (s *Store) readIdentity(ctx context.Context) (string, error) {
	o, err := s.c.get(ctx, s.keys.identity(), 4096)
	if err != nil {
		return "", err
	}
	if !identityForm.Match(o.data) {
		return "", fmt.Errorf("%s holds no identity that this program knows: a newer version wrote it, then use that one, "+
			"or it is damaged, then choose another prefix", s.keys.identity())
	}
	return string(o.data[:len(o.data)-1]), nil
}
