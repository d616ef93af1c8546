package pgstore

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/jackc/pgx/v5"
)

const (
	verifyUnits = 200              // looked at with one query
	verifyLimit = 10 * time.Minute // for one query over a whole table
	abandoned   = time.Hour        // for which nobody commits a unit whose worker lives
)

// Verify finds what can only be there if somebody else wrote to the tables or the server lost data, for every write of
// ours is whole: units with other records than their account says, bodies that are missing or of another length, records
// and bodies of no unit. It notes what is unfinished. With repair, units that were begun over an hour ago and never
// committed, and rows of bodies that belong to nothing, are removed. The latter are looked for in all jobs, since nothing
// says of which they were. found must not use the store: a connection is held meanwhile.
func (s *Store) Verify(ctx context.Context, job string, repair bool, found func(store.Finding)) error {
	if err := store.CheckName("job", job); err != nil {
		return fmt.Errorf("verify: %w", err)
	}
	v := &verifier{s: s, job: job, repair: repair, found: found}
	for _, look := range []func(context.Context) error{v.units, v.strayRecords, v.strayBodies, v.writing, v.parts} {
		if err := look(ctx); err != nil {
			return fmt.Errorf("verify job %s: %w", job, err)
		}
	}
	return nil
}

type verifier struct {
	s      *Store
	job    string
	repair bool
	found  func(store.Finding)
}

// unitFacts are what the tables say of one unit.
type unitFacts struct {
	unit                         string
	key                          key
	account                      []byte
	records, counted, beyondLast int
}

const selectUnits = `SELECT u.unit, u.key, u.account::text, u.records, count(r.n), coalesce(max(r.n) + 1, 0)
	FROM (SELECT * FROM units WHERE job = $1 AND unit > $2 ORDER BY unit LIMIT $3) u LEFT JOIN records r ON r.unit_key = u.key
	GROUP BY u.unit, u.key, u.account::text, u.records ORDER BY u.unit`

// units looks at the units of the job, a page at a time.
func (v *verifier) units(ctx context.Context) error {
	for last, more := "", true; more; {
		var page []unitFacts
		err := v.s.page(ctx, selectUnits, []any{v.job, last, verifyUnits}, func(rows pgx.Rows) (bool, error) {
			var f unitFacts
			err := rows.Scan(&f.unit, &f.key, &f.account, &f.records, &f.counted, &f.beyondLast)
			page = append(page, f)
			return true, err
		})
		if err != nil {
			return err
		}
		for _, f := range page {
			v.unit(f)
		}
		if err := v.bodies(ctx, page); err != nil {
			return err
		}
		if more = len(page) == verifyUnits; more {
			last = page[len(page)-1].unit
		}
	}
	return nil
}

// unit compares the account of a unit with its records.
func (v *verifier) unit(f unitFacts) {
	report := func(format string, args ...any) {
		v.found(store.Finding{Kind: "structure", Where: "unit " + f.unit, What: fmt.Sprintf(format, args...)})
	}
	a, err := decodeAccount(f.account)
	if err != nil {
		report("%v", err)
		return
	}
	recorded := 0
	for _, e := range a.Entries {
		if e.Fate == store.Recorded {
			recorded++
		}
	}
	switch {
	case a.Job != v.job || a.Unit() != f.unit:
		report("its account is of unit %s of job %s", a.Unit(), a.Job)
	case f.counted != f.records || f.beyondLast != f.records:
		report("it has %d records, was committed with %d", f.counted, f.records)
	case recorded != f.records:
		report("it has %d records, its account %d", f.records, recorded)
	}
}

const (
	// selectWanted says what is there of the bodies that the records of some units refer to. How long a row is is known
	// without reading it where it is stored outside of its page. Those of unchanged pages may be another unit's.
	selectWanted = `SELECT r.id, r.body, r.bytes, count(b.n), coalesce(max(b.n) + 1, 0), coalesce(sum(length(b.data)), 0)::bigint
		FROM records r LEFT JOIN bodies b ON b.owner = r.unit_key AND r.body = replace(b.owner::text, '-', '') || '.' || b.body
		WHERE r.unit_key = ANY ($1::uuid[]) AND r.body IS NOT NULL AND r.body_job IS NULL AND NOT r.unchanged
		GROUP BY r.unit_key, r.n`
	selectOwned  = `SELECT DISTINCT owner, body FROM bodies WHERE owner = ANY ($1::uuid[])`
	selectStray  = `SELECT unit_key, count(*) FROM records r WHERE job = $1 AND NOT EXISTS (SELECT FROM units WHERE key = r.unit_key) GROUP BY 1`
	whereOrphans = ` FROM bodies b WHERE NOT EXISTS (SELECT FROM units WHERE key = b.owner)
		AND NOT EXISTS (SELECT FROM writing WHERE owner = b.owner) AND NOT EXISTS (SELECT FROM parts WHERE key = b.owner)`
)

// bodyFacts are what a record says of its body, and what is there.
type bodyFacts struct {
	id, body         string
	bytes, length    int64
	rows, beyondLast int
}

func (f bodyFacts) judge() (store.Finding, bool) {
	finding := store.Finding{Where: "record " + f.id}
	switch {
	case f.rows == 0:
		finding.Kind, finding.What = "missing", fmt.Sprintf("its body %s is not there", f.body)
	case f.rows != f.beyondLast:
		finding.Kind, finding.What = "missing", fmt.Sprintf("its body %s has %d of %d rows or more", f.body, f.rows, f.beyondLast)
	case f.bytes != f.length:
		finding.Kind, finding.What = "length", fmt.Sprintf("its body %s has %d bytes, the record says %d", f.body, f.length, f.bytes)
	}
	return finding, finding.Kind != ""
}

// bodies looks at the bodies of a page of units.
func (v *verifier) bodies(ctx context.Context, page []unitFacts) error {
	keys := make([]key, 0, len(page))
	names := make(map[key]string, len(page))
	for _, f := range page {
		keys = append(keys, f.key)
		names[f.key] = f.unit
	}
	known := make(map[string]bool)
	rows := func(rows pgx.Rows) (bool, error) {
		var f bodyFacts
		err := rows.Scan(&f.id, &f.body, &f.bytes, &f.rows, &f.beyondLast, &f.length)
		known[f.body] = true
		if finding, bad := f.judge(); err == nil && bad {
			v.found(finding)
		}
		return true, err
	}
	if err := v.slow(ctx, selectWanted, []any{keys}, rows); err != nil {
		return err
	}
	return v.slow(ctx, selectOwned, []any{keys}, func(rows pgx.Rows) (bool, error) {
		var k key
		var n int
		err := rows.Scan(&k, &n)
		if name := bodyName(k, n); err == nil && !known[name] {
			v.found(store.Finding{Kind: "orphan", Where: "body " + name, Note: true,
				What: fmt.Sprintf("unit %s has it, and no record of the unit refers to it", names[k])})
		}
		return true, err
	})
}

// strayRecords looks for records of no unit.
func (v *verifier) strayRecords(ctx context.Context) error {
	return v.slow(ctx, selectStray, []any{v.job}, func(rows pgx.Rows) (bool, error) {
		var k key
		var n int
		err := rows.Scan(&k, &n)
		v.found(store.Finding{Kind: "orphan", Where: "unit_key " + hex.EncodeToString(k[:]), What: fmt.Sprintf("%d records of no unit", n)})
		return true, err
	})
}

// strayBodies looks for rows of bodies that belong to no unit, committed or not, and to no part.
func (v *verifier) strayBodies(ctx context.Context) error {
	var owners []key
	err := v.slow(ctx, `SELECT DISTINCT owner`+whereOrphans, nil, func(rows pgx.Rows) (bool, error) {
		var k key
		err := rows.Scan(&k)
		owners = append(owners, k)
		return true, err
	})
	for _, k := range owners {
		finding := store.Finding{Kind: "orphan", Where: "bodies of owner " + hex.EncodeToString(k[:]), What: "no unit and no part of any job has them"}
		if err == nil && v.repair {
			err = v.slow(ctx, `DELETE`+whereOrphans+` AND owner = $1`, []any{k}, nil)
			finding.Mended = err == nil
		}
		v.found(finding)
	}
	return err
}

// writing looks for units that were begun and have not ended.
func (v *verifier) writing(ctx context.Context) error {
	type open struct {
		owner     key
		worker    string
		since     time.Time
		abandoned bool
	}
	var list []open
	err := v.slow(ctx, `SELECT owner, worker, begun_at, begun_at < now() - make_interval(secs => $2) FROM writing WHERE job = $1`,
		[]any{v.job, abandoned.Seconds()}, func(rows pgx.Rows) (bool, error) {
			var o open
			err := rows.Scan(&o.owner, &o.worker, &o.since, &o.abandoned)
			list = append(list, o)
			return true, err
		})
	for _, o := range list {
		finding := store.Finding{
			Kind: "temporary", Where: "bodies of owner " + hex.EncodeToString(o.owner[:]), Note: true,
			What: fmt.Sprintf("a unit that worker %s began at %s and has not committed", o.worker, o.since.UTC().Format(time.RFC3339)),
		}
		if err == nil && v.repair && o.abandoned && !v.s.isLive(o.owner) {
			err = v.s.sweepUnit(ctx, o.owner)
			finding.Mended = err == nil
		}
		v.found(finding)
	}
	return err
}

// parts notes the beginnings of bodies that are kept.
func (v *verifier) parts(ctx context.Context) error {
	return v.slow(ctx, `SELECT request, size, held_until >= now() FROM parts WHERE job = $1`, []any{v.job}, func(rows pgx.Rows) (bool, error) {
		var request string
		var size int64
		var held bool
		err := rows.Scan(&request, &size, &held)
		what := fmt.Sprintf("%d bytes of a body wait for the rest", size)
		if held {
			what = fmt.Sprintf("%d bytes or more of a body are in a worker's hands", size)
		}
		v.found(store.Finding{Kind: "temporary", Where: "part of request " + request, What: what, Note: true})
		return true, err
	})
}

// slow is page for what may have to read a whole table. each is nil for what yields no rows.
func (v *verifier) slow(ctx context.Context, sql string, args []any, each func(pgx.Rows) (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, verifyLimit)
	defer cancel()
	err := pgx.BeginFunc(ctx, v.s.pool, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, `SET LOCAL statement_timeout = 0`); err != nil {
			return err
		}
		rows, err := tx.Query(ctx, sql, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			if _, err := each(rows); err != nil {
				return err
			}
		}
		return rows.Err()
	})
	return trouble("query", err)
}
