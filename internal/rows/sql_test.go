package rows

import (
	"context"
	"database/sql"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

// sqliteFile makes a database by these statements and returns its DSN.
func sqliteFile(t testing.TB, statements ...string) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "a b?#.db")
	db, err := sql.Open("sqlite", "file:"+(&url.URL{Path: file}).EscapedPath())
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, s := range statements {
		if _, err := db.Exec(s); err != nil {
			t.Fatal(err)
		}
	}
	return "sqlite:" + file
}

func answer(t *testing.T, dsn, query string) (rows []string, err error) {
	t.Helper()
	q, err := Open(t.Context(), dsn, query)
	if err != nil {
		return nil, err
	}
	defer q.Close()
	return told(q)
}

func TestSQLiteValuesAreWhatTheyAreInJSON(t *testing.T) {
	file := filepath.Join(t.TempDir(), "x.db")
	db, err := sql.Open("sqlite", file)
	if err != nil {
		t.Fatal(err)
	}
	_, err = db.Exec(`CREATE TABLE t (i INTEGER, f REAL, s TEXT, b BLOB, n TEXT, t TIMESTAMP, k BOOLEAN);
		INSERT INTO t VALUES (7, 1.5, 'é', x'00ff', NULL, '2026-01-02 03:04:05', 1)`)
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	got, err := answer(t, "sqlite:"+file, "SELECT * FROM t")
	want := []string{`{"i":7,"f":1.5,"s":"é","b":"AP8=","n":null,"t":"2026-01-02T03:04:05Z","k":true}`}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestPostgresValuesAreWhatTheyAreInJSON(t *testing.T) {
	dsn := shared.Server(t).Database(t)
	got, err := answer(t, dsn, `SELECT 7::int AS i, 8::bigint AS l, 1.5::float8 AS f, 12.30::numeric AS d, 'é'::text AS s, 'v'::varchar AS v, '\x00ff'::bytea AS b,
		NULL AS n, '2026-01-02 03:04:05+00'::timestamptz AS t, '2026-01-02'::date AS day, true AS k, '{"a":1}'::jsonb AS j, '7d444840-9dc0-11d1-b245-5ffdce74fad2'::uuid AS u`)
	if len(got) == 1 {
		got[0] = strings.Replace(got[0], time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC).Local().Format(time.RFC3339), "2026-01-02T03:04:05Z", 1)
	}
	want := []string{`{"i":7,"l":8,"f":1.5,"d":12.30,"s":"é","v":"v","b":"AP8=","n":null,"t":"2026-01-02T03:04:05Z","day":"2026-01-02","k":true,"j":"{\"a\": 1}","u":"7d444840-9dc0-11d1-b245-5ffdce74fad2"}`}
	if d := cmp.Diff(want, got); d != "" || err != nil {
		t.Error(d, err)
	}
}

func TestDatabasesAreOnlyRead(t *testing.T) {
	lite := sqliteFile(t, "CREATE TABLE t (id INTEGER)", "INSERT INTO t VALUES (1)")
	pg := shared.Server(t).Database(t)
	pgtest.Exec(t, pg, "CREATE TABLE t (id int); INSERT INTO t VALUES (1)")
	for name, dsn := range map[string]string{"sqlite": lite, "postgres": pg} {
		for _, statement := range []string{"INSERT INTO t VALUES (2) RETURNING id", "DELETE FROM t", "DROP TABLE t", "CREATE TABLE u (id int)"} {
			if got, err := answer(t, dsn, statement); err == nil {
				t.Errorf("%s: %s is taken: %v", name, statement, got)
			}
		}
		if got, err := answer(t, dsn, "SELECT id FROM t"); err != nil || len(got) != 1 {
			t.Errorf("%s: the table has %v, %v", name, got, err)
		}
	}
	if _, err := answer(t, "sqlite:"+filepath.Join(t.TempDir(), "none.db"), "SELECT 1 AS a"); err == nil || !strings.Contains(err.Error(), "none.db: no such file") {
		t.Errorf("a database that is not there: %v", err)
	}
}

// flat reads a large answer and fails if the heap grows with it.
func flat(t *testing.T, dsn, query string, want int) {
	t.Helper()
	q, err := Open(t.Context(), dsn, query)
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	var m runtime.MemStats
	n, most := 0, uint64(0)
	for {
		_, err := q.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if n++; n%(want/10) == 0 {
			runtime.GC()
			runtime.ReadMemStats(&m)
			most = max(most, m.HeapAlloc)
		}
	}
	if t.Logf("%d rows, %.1f MiB of heap at most", n, float64(most)/(1<<20)); n != want || most > 32<<20 {
		t.Errorf("%d rows with %d MiB of heap, want %d with at most 32", n, most>>20, want)
	}
}

func TestMemoryDoesNotGrowWithTheAnswer(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		flat(t, sqliteFile(t, `CREATE TABLE t AS WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n WHERE id < 200000)
			SELECT id, printf('%0200d', id) AS text FROM n`), "SELECT id, text FROM t", 200_000)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		flat(t, shared.Server(t).Database(t), "SELECT generate_series(1, 300000) AS id, repeat('x', 200) AS text", 300_000)
	})
}

func TestAQueryEndsWhenItsContextDoesAndWhenItIsClosed(t *testing.T) {
	lite := sqliteFile(t, "CREATE TABLE t (id INTEGER)")
	for name, c := range map[string]struct{ dsn, query string }{
		"sqlite":   {lite, "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n) SELECT id FROM n"},
		"postgres": {shared.Server(t).Database(t), "SELECT generate_series(1, 100000000000) AS id"},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		q, err := Open(ctx, c.dsn, c.query)
		if err != nil {
			t.Fatal(name, err)
		}
		if _, err := q.Next(); err != nil {
			t.Error(name, err)
		}
		cancel()
		for err == nil {
			_, err = q.Next()
		}
		if err == io.EOF {
			t.Errorf("%s: the answer has an end", name)
		}
		if err := q.Close(); err != nil {
			t.Error(name, err)
		}
		early, err := Open(t.Context(), c.dsn, c.query)
		if err != nil {
			t.Fatal(name, err)
		}
		if err := early.Close(); err != nil { // and not after the last row, which never comes
			t.Error(name, err)
		}
	}
}

func TestNoErrorHasAPassword(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "pw")
	if err := os.WriteFile(secret, []byte("hunter2&/@\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("W5_PW", "hunter2 :x")
	t.Setenv("W5_DSN", "postgres://u:hunter2@127.0.0.1:1/db")
	addr := shared.Server(t).Addr()
	for _, dsn := range []string{
		"postgres://u:hunter2@127.0.0.1:1/db", "postgres://u:hunter2%@h/db", "postgres://u:hunter2@h:x/db", "postgres://u:hunter2@h/db?sslmode=hunter2",
		"postgres://u:hunter2@" + addr + "/db", "mysql://u:hunter2@127.0.0.1:1/db", "mysql://u:hunter2@127.0.0.1:1/db?x=%zz", "mysql://u:hunter2@/db",
		"oracle://u:hunter2@h/db", "u:hunter2@tcp(h)/db", "host=h password=hunter2",
		"postgres://u:${env:W5_PW}@127.0.0.1:1/db", "postgres://u:${file:" + secret + "}@127.0.0.1:1/db", "${env:W5_DSN}",
	} {
		_, err := Open(t.Context(), dsn, "SELECT 1 AS a")
		if err == nil || strings.Contains(err.Error(), "hunter2") && !strings.Contains(dsn, "sslmode") {
			t.Errorf("%s: %v", dsn, err)
		}
		if strings.Contains(Name(dsn), "hunter2") {
			t.Errorf("the name of %s has its password: %s", dsn, Name(dsn))
		}
	}
}

func TestPasswordsByReference(t *testing.T) {
	server := shared.Server(t)
	dsn := server.Database(t)
	t.Setenv("W5_PW", pgtest.Password)
	t.Setenv("W5_DSN", dsn)
	for _, d := range []string{strings.Replace(dsn, pgtest.Password, "${env:W5_PW}", 1), "${env:W5_DSN}"} {
		if got, err := answer(t, d, "SELECT 1 AS a"); err != nil || len(got) != 1 {
			t.Errorf("%s: %v, %v", d, got, err)
		}
	}
	if err := CheckDSN("postgres://u:${env:W5_NONE}@h/d"); err == nil || !strings.Contains(err.Error(), "${env:W5_NONE}: the variable is not set") {
		t.Error(err)
	}
	t.Setenv("PGPASSWORD", pgtest.Password)
	if got, err := answer(t, strings.Replace(dsn, ":"+pgtest.Password, "", 1), "SELECT 1 AS a"); err != nil || len(got) != 1 {
		t.Errorf("by PGPASSWORD: %v, %v", got, err)
	}
}
