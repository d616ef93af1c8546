package pgstore

import (
	"context"
	"crypto/rand"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// probeSize is about what a small unit needs: a nearly full disk should fail here.
const probeSize = 64 << 10

// Identity returns the store's identity, which was made with its tables.
func (s *Store) Identity(ctx context.Context) (string, error) {
	s.mu.Lock()
	id := s.identity
	s.mu.Unlock()
	if id != "" {
		return id, nil
	}
	if err := s.queryRow(ctx, `SELECT id FROM identity`, nil, &id); err != nil {
		return "", fmt.Errorf("identify store: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.identity = id
	return id, nil
}

// Check writes to every table that a commit writes to, removes it again and commits: never visible to anyone, but the
// tables had to grow and the commit to reach the disk. What is wrong is said as Open does.
func (s *Store) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, callLimit)
	defer cancel()
	probe := make([]byte, probeSize)
	rand.Read(probe) // never fails
	k := newKey()
	name := randomHex(16)
	b := &pgx.Batch{}
	b.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	b.Queue(`INSERT INTO units (job, unit, key, account, records) VALUES ('.check', $1, $2, '{}', 0)`, name, k)
	b.Queue(`INSERT INTO records (unit_key, n, id, job, batch, generation, url, method, outcome, attempts, bytes, unchanged,
		fetched_at, fetched_ns, elapsed_ms, worker) VALUES ($1, 0, '', '.check', '', 0, '', '', '', 0, 0, false, now(), 0, 0, $2)`, k, s.worker)
	b.Queue(`INSERT INTO bodies (owner, body, n, data) VALUES ($1, 0, 0, $2)`, k, probe)
	b.Queue(`DELETE FROM bodies WHERE owner = $1`, k)
	b.Queue(`DELETE FROM records WHERE unit_key = $1`, k)
	b.Queue(`DELETE FROM units WHERE key = $1`, k)
	b.Queue(`COMMIT`)
	if err := s.pool.SendBatch(ctx, b).Close(); err != nil {
		return trouble("check store "+s.target.name, err)
	}
	return nil
}
