package s3store

import (
	"context"
	"errors"
	"fmt"
)

// Check writes and removes a small object, and says what is wrong if it cannot: the server is gone, has trouble or
// refuses, or it does not keep the condition of a PUT, which commits rely on.
func (s *base) Check(ctx context.Context) error {
	if err := s.probe(ctx); err != nil {
		return fmt.Errorf("check store: %w", err)
	}
	return nil
}

func (s *base) probe(ctx context.Context) error {
	key := s.keys.probe(s.run + "~" + randomHex(4))
	_, err := s.c.put(ctx, key, inMemory([]byte("probe\n")), "text/plain", condition{absent: true})
	if err != nil && !errors.Is(err, errTaken) { // taken: by this very call, when its first answer was lost
		return err
	}
	if !s.conditional() {
		_, err = s.c.put(ctx, key, inMemory([]byte("again\n")), "text/plain", condition{absent: true})
		if err == nil {
			err = fmt.Errorf("%s ignores the condition of a PUT (If-None-Match), so the first unit of a name would not win: "+
				"use another server or a newer version", s.c.server())
		}
		if errors.Is(err, errTaken) {
			err = nil
			s.knowConditional()
		}
	}
	return errors.Join(err, s.c.remove(context.WithoutCancel(ctx), key))
}
