package pgstore

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
)

// Commit makes the unit visible. The recipe, in one transaction that units committed at the same time share:
//
//  1. INSERT the row of units, ON CONFLICT DO NOTHING. It decides the race: whoever comes second waits here until the
//     first has committed, and then reads its account.
//  2. Delete the row of writing, if the unit has bodies here already. If it is not there, Sweep was faster: the unit
//     fails.
//  3. COPY the records, and the bodies that waited in memory.
//  4. COMMIT. It makes visible the bodies written before, too, since those exist once their unit does.
//
// When Commit fails nothing is lost: it may be called again, or the unit be discarded. If the connection was cut during
// step 4 the unit may have become visible; the next Commit finds its own key there, and has won.
//
// The end of ctx ends the wait for a turn, but not a transaction that has begun, which has its own limit in time.
func (u *unit) Commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	winner, won, err := u.commit(ctx, a)
	if err != nil {
		return nil, false, fmt.Errorf("commit unit %s: %w", u.name, err)
	}
	_ = u.drop(!won) // what it fails to remove, Sweep will
	return winner, won, nil
}

func (u *unit) commit(ctx context.Context, a *store.Account) (*store.Account, bool, error) {
	switch {
	case u.ended:
		return nil, false, errEnded
	case ctx.Err() != nil:
		return nil, false, ctx.Err()
	case a.Job != u.job || a.Unit() != u.name:
		return nil, false, fmt.Errorf("the account is of unit %s of job %s, not of job %s", a.Unit(), a.Job, u.job)
	}
	account, err := encodeAccount(a)
	if err != nil {
		return nil, false, err
	}
	r := &request{unit: u, given: a, account: account, done: make(chan struct{})}
	if err := u.s.commits.do(ctx, r); err != nil {
		return nil, false, err
	}
	return r.winner, r.won, r.err
}

// encodeAccount leaves '&', '<' and '>' as they are, so that payloads come back as they were given.
func encodeAccount(a *store.Account) (string, error) {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	err := enc.Encode(a)
	return text(string(bytes.TrimSuffix(out.Bytes(), []byte("\n")))), err
}

func decodeAccount(data []byte) (*store.Account, error) {
	a := &store.Account{}
	if err := json.Unmarshal(data, a); err != nil {
		return nil, fmt.Errorf("the account is damaged: %w", err)
	}
	if a.V > store.AccountVersion {
		return nil, fmt.Errorf("the account has version %d, this program knows %d: use a newer one", a.V, store.AccountVersion)
	}
	return a, nil
}

const (
	insertUnits = `INSERT INTO units (job, unit, key, account, records)
		SELECT job, unit, key, account::json, records
		FROM unnest($1::text[], $2::text[], $3::uuid[], $4::text[], $5::int[]) AS g (job, unit, key, account, records)
		ON CONFLICT (job, unit) DO NOTHING RETURNING key`
	unlistUnits = `DELETE FROM writing w USING units u WHERE w.owner = ANY ($1::uuid[]) AND u.key = w.owner RETURNING w.owner`
	findUnits   = `SELECT job, unit, key, account FROM units
		WHERE (job, unit) IN (SELECT job, unit FROM unnest($1::text[], $2::text[]) AS g (job, unit))`
)

// commitAll commits units in one transaction. Each request learns what became of it; an error is that of all of them.
func (s *Store) commitAll(ctx context.Context, group []*request) error {
	conn, err := s.pool.Acquire(ctx)
	if err != nil {
		return trouble("wait for a connection", err)
	}
	defer conn.Release() // which closes it if it is in the middle of a transaction
	if err := s.noteJobs(ctx, conn, group); err != nil {
		return trouble("note the job", err)
	}
	// Always in the same order, so that two transactions cannot wait for each other.
	slices.SortFunc(group, func(a, b *request) int {
		return cmp.Or(cmp.Compare(a.unit.job, b.unit.job), cmp.Compare(a.unit.name, b.unit.name))
	})
	s.at("begin")
	swept, err := s.insertUnits(ctx, conn, group)
	if err != nil {
		return trouble("insert the unit", err)
	}
	if swept {
		if _, err := conn.Exec(ctx, `ROLLBACK`); err != nil {
			return trouble("roll back", err)
		}
		conn.Release()
		group = slices.DeleteFunc(group, func(r *request) bool { return r.err != nil })
		if len(group) == 0 {
			return nil
		}
		return s.commitAll(ctx, group)
	}
	s.at("inserted")
	if err := copyAll(ctx, conn, group); err != nil {
		return err
	}
	s.at("copied")
	tag, err := conn.Exec(ctx, `COMMIT`)
	if err == nil && tag.String() != "COMMIT" {
		err = fmt.Errorf("the server answered %s", tag)
	}
	if err != nil {
		return trouble("commit", err)
	}
	s.at("committed")
	s.findWinners(ctx, conn, group)
	s.at("acknowledged")
	return nil
}

// noteJobs makes the rows of jobs that this Store has not seen yet.
func (s *Store) noteJobs(ctx context.Context, conn *pgxpool.Conn, group []*request) error {
	var fresh []string
	s.mu.Lock()
	for _, r := range group {
		if !s.jobs[r.unit.job] && !slices.Contains(fresh, r.unit.job) {
			fresh = append(fresh, r.unit.job)
		}
	}
	s.mu.Unlock()
	if len(fresh) == 0 {
		return nil
	}
	slices.Sort(fresh)
	if _, err := conn.Exec(ctx, `INSERT INTO jobs (job) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING`, fresh); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, job := range fresh {
		s.jobs[job] = true
	}
	return nil
}

// insertUnits begins the transaction with the steps 1 and 2 for all units at once. It notes who won, and the error of
// those that were swept.
func (s *Store) insertUnits(ctx context.Context, conn *pgxpool.Conn, group []*request) (swept bool, err error) {
	var jobs, units, accounts []string
	var keys, listed []key
	var counts []int
	for _, r := range group {
		u := r.unit
		jobs, units, accounts = append(jobs, u.job), append(units, u.name), append(accounts, r.account)
		keys, counts = append(keys, u.key), append(counts, u.count)
		if u.tried {
			listed = append(listed, u.key)
		}
	}
	b := &pgx.Batch{}
	b.Queue(`BEGIN ISOLATION LEVEL READ COMMITTED`)
	b.Queue(insertUnits, jobs, units, keys, accounts, counts)
	if len(listed) > 0 {
		b.Queue(unlistUnits, listed)
	}
	results := conn.SendBatch(ctx, b)
	defer func() { err = errors.Join(err, results.Close()) }()
	if _, err := results.Exec(); err != nil {
		return false, err
	}
	inserted, err := collectKeys(results)
	if err != nil {
		return false, err
	}
	unlisted := map[key]bool{}
	if len(listed) > 0 {
		if unlisted, err = collectKeys(results); err != nil {
			return false, err
		}
	}
	for _, r := range group {
		r.won = inserted[r.unit.key]
		if r.won && r.unit.registered && !unlisted[r.unit.key] {
			r.err, swept = errSwept, true
		}
	}
	return swept, nil
}

func collectKeys(results pgx.BatchResults) (map[key]bool, error) {
	rows, err := results.Query()
	if err != nil {
		return nil, err
	}
	keys := map[key]bool{}
	var k key
	_, err = pgx.ForEachRow(rows, []any{&k}, func() error { keys[k] = true; return nil })
	return keys, err
}

// copyAll writes the records and the bodies held of the units that won.
func copyAll(ctx context.Context, conn *pgxpool.Conn, group []*request) error {
	records, bodies := chunks{copyHeader}, chunks{copyHeader}
	for _, r := range group {
		if !r.won {
			continue
		}
		if len(r.unit.records) > 0 {
			records = append(records, r.unit.records)
		}
		if len(r.unit.bodies) > 0 {
			bodies = append(bodies, r.unit.bodies)
		}
	}
	for _, table := range []struct {
		what, sql string
		rows      chunks
	}{{"copy records", copyRecords, records}, {"copy bodies", copyBodies, bodies}} {
		if len(table.rows) == 1 {
			continue
		}
		table.rows = append(table.rows, copyTrailer)
		if _, err := conn.Conn().PgConn().CopyFrom(ctx, &table.rows, table.sql); err != nil {
			return trouble(table.what, err)
		}
	}
	return nil
}

// findWinners reads the accounts of those to whom this group's losers lost, which may be themselves in an earlier try.
// What fails here is theirs alone: the others have committed.
func (s *Store) findWinners(ctx context.Context, conn *pgxpool.Conn, group []*request) {
	var losers []*request
	var jobs, units []string
	for _, r := range group {
		if r.won {
			r.winner = r.given
			continue
		}
		losers = append(losers, r)
		jobs, units = append(jobs, r.unit.job), append(units, r.unit.name)
	}
	if len(losers) == 0 {
		return
	}
	err := readWinners(ctx, conn, losers, jobs, units)
	for _, r := range losers {
		switch {
		case err != nil:
			r.err = trouble("read the account of the unit that was first", err)
		case r.winner == nil && r.err == nil:
			r.err = errors.New("another unit of this name was there and is gone")
		}
	}
}

func readWinners(ctx context.Context, conn *pgxpool.Conn, losers []*request, jobs, units []string) error {
	rows, err := conn.Query(ctx, findUnits, jobs, units)
	if err != nil {
		return err
	}
	var job, unit string
	var k key
	var account []byte
	_, err = pgx.ForEachRow(rows, []any{&job, &unit, &k, &account}, func() error {
		for _, r := range losers {
			if r.unit.job == job && r.unit.name == unit {
				r.won = k == r.unit.key
				r.winner, r.err = decodeAccount(account)
			}
		}
		return nil
	})
	return err
}
