package pgstore

import (
	"context"
	"crypto/rand"
	"embed"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migration is one numbered step of the schema: migrations/NNNN_name.sql. A released one is never changed.
type migration struct {
	version int
	sql     string
}

// migrateLimit is how long one worker waits for another that makes the tables.
const migrateLimit = 90 * time.Second

// oldest is the oldest server that is accepted, as in server_version_num.
const oldest = 130000

func loadMigrations() ([]migration, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql") // sorted by name, and so by number
	if err != nil {
		return nil, err
	}
	var list []migration
	for i, name := range names {
		sql, err := migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		number, _, _ := strings.Cut(strings.TrimPrefix(name, "migrations/"), "_")
		version, err := strconv.Atoi(number)
		if err != nil || version != i+1 {
			return nil, fmt.Errorf("migration %s is not number %d", name, i+1)
		}
		list = append(list, migration{version, string(sql)})
	}
	return list, nil
}

// prepare looks whether the server and the schema are what this program needs, and unless the schema must exist
// makes it so.
func (s *Store) prepare(ctx context.Context, mustExist bool) error {
	steps, err := loadMigrations()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, migrateLimit)
	defer cancel()
	first, stop := context.WithTimeout(ctx, callLimit)
	defer stop()
	conn, err := s.pool.Acquire(first)
	if err != nil {
		return trouble("connect", err)
	}
	defer conn.Release()
	if err := checkServer(first, conn.Conn(), mustExist); err != nil {
		return err
	}
	version, err := schemaVersion(first, conn.Conn(), s.target.Schema)
	if err != nil {
		return trouble("read the schema's version", err)
	}
	want := len(steps)
	switch {
	case version > want:
		return newer(s.target.Schema, version, want)
	case version == want:
		return nil
	case version == 0 && mustExist:
		return fmt.Errorf("there is no schema %q of fetchfleet in this database: give the URL that the workers were given, with its schema",
			s.target.Schema)
	case mustExist:
		return fmt.Errorf("schema %q has version %d, this program wants %d: start a worker of this version, which brings it up to date",
			s.target.Schema, version, want)
	}
	return migrate(ctx, conn.Conn(), s.target.Schema, steps)
}

func newer(schema string, version, want int) error {
	return fmt.Errorf("schema %q has version %d, made by a newer program, this one knows %d: use the newer program, or another schema",
		schema, version, want)
}

// checkServer refuses a server that is too old, has another encoding or, for a writer, takes no writes.
func checkServer(ctx context.Context, conn *pgx.Conn, reader bool) error {
	var version int
	var name, encoding, database string
	var noWrites bool
	err := conn.QueryRow(ctx, `SELECT current_setting('server_version_num')::int, current_setting('server_version'),
		current_setting('server_encoding'), current_database(),
		pg_is_in_recovery() OR current_setting('transaction_read_only')::bool`).Scan(&version, &name, &encoding, &database, &noWrites)
	switch {
	case err != nil:
		return trouble("ask for the server's version", err)
	case version < oldest:
		return fmt.Errorf("the server is PostgreSQL %s, 13 or newer is needed: name another server", name)
	case encoding != "UTF8":
		return fmt.Errorf("database %q is encoded in %s, which cannot hold every URL: make one with createdb -E UTF8 -T template0", database, encoding)
	case noWrites && !reader:
		return errors.New(advice[readOnly])
	}
	return nil
}

// schemaVersion returns 0 for a schema that is not there or not ours.
func schemaVersion(ctx context.Context, conn *pgx.Conn, schema string) (version int, err error) {
	var there bool
	err = conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = $1 AND c.relname = 'schema_version')`, schema).Scan(&there)
	if err != nil || !there {
		return 0, err
	}
	err = conn.QueryRow(ctx, `SELECT coalesce(max(version), 0) FROM schema_version`).Scan(&version)
	return version, err
}

// migrate applies the steps that are missing, in one transaction, while others wait for its lock.
func migrate(ctx context.Context, conn *pgx.Conn, schema string, steps []migration) error {
	tx, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: pgx.ReadCommitted})
	if err != nil {
		return trouble("begin a migration", err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }() // does nothing after Commit
	if _, err := tx.Exec(ctx, `SET LOCAL lock_timeout = '60s'`); err != nil {
		return trouble("begin a migration", err)
	}
	if _, err := tx.Exec(ctx, `SELECT pg_advisory_xact_lock($1)`, lockOf(schema)); err != nil {
		return trouble("wait for another worker's migration", err)
	}
	version, err := schemaVersion(ctx, conn, schema)
	if err != nil {
		return trouble("read the schema's version", err)
	}
	if version > len(steps) {
		return newer(schema, version, len(steps))
	}
	if version == 0 {
		if err := makeSchema(ctx, tx, schema); err != nil {
			return trouble(fmt.Sprintf("make schema %q", schema), err)
		}
	}
	for _, step := range steps[version:] {
		if _, err := tx.Exec(ctx, step.sql); err != nil {
			return trouble(fmt.Sprintf("bring schema %q to version %d", schema, step.version), err)
		}
		if _, err := tx.Exec(ctx, `INSERT INTO schema_version (version) VALUES ($1)`, step.version); err != nil {
			return trouble("note the schema's version", err)
		}
	}
	if _, err := tx.Exec(ctx, `INSERT INTO identity (id) VALUES ($1) ON CONFLICT DO NOTHING`, randomHex(16)); err != nil {
		return trouble("give the store its identity", err)
	}
	return trouble("commit a migration", tx.Commit(ctx))
}

// makeSchema makes the schema unless its owner has made it already, and the table of versions.
func makeSchema(ctx context.Context, tx pgx.Tx, schema string) error {
	var there bool
	err := tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1)`, schema).Scan(&there)
	if err == nil && !there {
		_, err = tx.Exec(ctx, `CREATE SCHEMA `+quote(schema))
	}
	if err == nil {
		_, err = tx.Exec(ctx, `CREATE TABLE schema_version (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now())`)
	}
	return err
}

// lockOf returns the advisory lock of a schema's migrations.
func lockOf(schema string) int64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte("fetchfleet migrations " + schema)) // never fails
	return int64(h.Sum64())
}

func randomHex(n int) string {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return hex.EncodeToString(b)
}
