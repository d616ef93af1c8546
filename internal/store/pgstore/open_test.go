package pgstore

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
)

func wantSays(t *testing.T, what string, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("%s says %v, want it to say %q", what, err, says)
	}
	if err != nil && (strings.Contains(err.Error(), pgtest.Password) || strings.Contains(err.Error(), "hunter2")) {
		t.Errorf("%s says a password: %v", what, err)
	}
}

func TestParse(t *testing.T) {
	tests := map[string]struct {
		raw, name, schema string
		bodies            bool
	}{
		"the least":                    {"postgres://h/d", "postgres://h/d", "fetchfleet", true},
		"everything":                   {"postgresql://u:hunter2@h:5/d?schema=s&bodies=off&sslmode=disable", "postgresql://u@h:5/d?bodies=off&schema=s&sslmode=disable", "s", false},
		"two hosts":                    {"postgres://u:hunter2@h1:1,h2:2/d", "postgres://u@h1:1,h2:2/d", "fetchfleet", true},
		"a password as a parameter":    {"postgres:///d?password=hunter2&host=/run", "postgres:///d?host=%2Frun", "fetchfleet", true},
		"bodies on":                    {"postgres://h/d?bodies=on", "postgres://h/d?bodies=on", "fetchfleet", true},
		"a slash within the password":  {"postgres://u:hun/ter2@h/d", "postgres://u@h/d", "fetchfleet", true},
		"an address of the new family": {"postgres://u@[::1]:5/d", "postgres://u@[::1]:5/d", "fetchfleet", true},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			got, err := Parse(tt.raw)
			if err != nil {
				t.Fatal(err)
			}
			if got.name != tt.name || got.Schema != tt.schema || got.Bodies != tt.bodies {
				t.Errorf("Parse(%q) = %+v", tt.raw, got)
			}
		})
	}
}

func TestOpenRefusesURLs(t *testing.T) {
	tests := map[string]struct{ raw, says string }{
		"another scheme":                {"mysql://u:hunter2@h/d", "write postgres://"},
		"no scheme":                     {"h/d", "write postgres://"},
		"bodies perhaps":                {"postgres://u:hunter2@h/d?bodies=maybe", "neither on nor off"},
		"an empty schema":               {"postgres://u:hunter2@h/d?schema=", "1 to 63 bytes"},
		"the server's own schema":       {"postgres://u:hunter2@h/d?schema=pg_catalog", "choose another"},
		"a percent alone":               {"postgres://u:hunter2%@h/d", "cannot be read"},
		"a question mark in a password": {"postgres://u:?hunter2%zz@h/d", "%3F"},
		"a ? and no % in a password":    {"postgres://u:hun?hunter2@h/d", "%3F"},
		"a ?, and digits before it":     {"postgres://u:5432?hunter2@h/d", "%3F"},
		"a ? and an @ in a password":    {"postgres://u:p@ss?hunter2@h/d", "%3F"},
		"an @ in a parameter":           {"postgres://h/d?password=hunter2@h", "%40"},
		"a port that is none":           {"postgres://u:hunter2@h:port/d", "cannot be read"},
		"an unknown sslmode":            {"postgres://u:hunter2@h/d?sslmode=perhaps", "sslmode"},
		"a pool of nothing":             {"postgres://u:hunter2@h/d?pool_max_conns=0", "pool_max_conns"},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			_, err := Open(t.Context(), tt.raw, Options{})
			wantSays(t, "Open", err, tt.says)
		})
	}
	if _, err := Parse("postgres://user:s3c?ret@h/db"); err == nil || !strings.Contains(err.Error(), `"postgres://user…"`) {
		t.Errorf("of a password with a question mark Parse says %v, want the user and no more", err)
	}
	_, err := Open(t.Context(), "postgres://h/d", Options{Sync: "sometimes"})
	wantSays(t, "Open", err, "sometimes")
}

func TestOpenSaysWhatToDo(t *testing.T) {
	server := shared.Server(t)
	raw := server.Database(t)
	pgtest.Exec(t, raw, "CREATE ROLE nobody_much LOGIN PASSWORD 'hunter2'")
	readOnly := server.Database(t)
	pgtest.Exec(t, readOnly, "ALTER DATABASE "+readOnly[strings.LastIndexByte(readOnly, '/')+1:]+" SET default_transaction_read_only = on")
	pgtest.Exec(t, raw, "CREATE DATABASE latin ENCODING 'LATIN1' TEMPLATE template0")
	newer := server.Database(t)
	openTest(t, newer, Options{}).Close()
	pgtest.Exec(t, newer, "INSERT INTO fetchfleet.schema_version VALUES (1000)")
	tests := map[string]struct {
		raw  string
		o    Options
		says string
	}{
		"nobody listens":        {raw: "postgres://u:hunter2@127.0.0.1:1/d", says: "whether it runs"},
		"a host that is none":   {raw: "postgres://u:hunter2@host.invalid/d", says: "whether it runs"},
		"a wrong password":      {raw: strings.Replace(raw, pgtest.Password, "hunter2", 1), says: "~/.pgpass"},
		"no such user":          {raw: strings.Replace(raw, pgtest.User+":", "nobody_at_all:", 1), says: "~/.pgpass"},
		"no such database":      {raw: server.URL("nothing"), says: "createdb"},
		"no right to a schema":  {raw: strings.Replace(raw, pgtest.User+":"+pgtest.Password, "nobody_much:hunter2", 1), says: "GRANT CREATE"},
		"a server for reading":  {raw: readOnly, says: "primary"},
		"another encoding":      {raw: server.URL("latin"), says: "UTF8"},
		"a newer schema":        {raw: newer, says: "newer program"},
		"a newer schema, read":  {raw: newer, o: Options{MustExist: true}, says: "newer program"},
		"nothing there to read": {raw: raw, o: Options{MustExist: true}, says: "the URL that the workers were given"},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			s, err := Open(t.Context(), tt.raw, tt.o)
			if s != nil {
				t.Error("Open returned a store")
			}
			wantSays(t, "Open", err, tt.says)
		})
	}
}

func TestReadersMakeNothing(t *testing.T) {
	raw := shared.Server(t).Database(t)
	s := openTest(t, raw, Options{})
	if err := commitCrashUnit(t.Context(), s, 2); err != nil {
		t.Fatal(err)
	}
	pgtest.Exec(t, raw, `CREATE ROLE analyst LOGIN PASSWORD 'hunter2'; GRANT USAGE ON SCHEMA fetchfleet TO analyst;
		GRANT SELECT ON ALL TABLES IN SCHEMA fetchfleet TO analyst; ALTER ROLE analyst SET default_transaction_read_only = on`)
	reader := openTest(t, strings.Replace(raw, pgtest.User+":"+pgtest.Password, "analyst:hunter2", 1), Options{MustExist: true})
	if seen := wantUnitsWhole(t, reader); !seen[2] {
		t.Error("a role that may only read finds nothing")
	}
	wantSays(t, "Check of a role that may only read", reader.Check(t.Context()), "primary")
}

func TestManyOpenAtOnce(t *testing.T) {
	raw := shared.Server(t).Database(t)
	var wg sync.WaitGroup
	ids := make([]string, 8)
	for i := range ids {
		wg.Go(func() {
			s, err := Open(t.Context(), with(raw, "pool_max_conns", "2"), Options{})
			if err != nil {
				t.Errorf("open %d: %v", i, err)
				return
			}
			defer s.Close()
			if ids[i], err = s.Identity(t.Context()); err != nil {
				t.Errorf("identity %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id == "" || id != ids[0] {
			t.Errorf("identities are %q, want one", ids)
		}
	}
	s := openTest(t, raw, Options{})
	steps, err := loadMigrations()
	if err != nil {
		t.Fatal(err)
	}
	if n := count(t, s, `SELECT count(*) FROM schema_version`); n != len(steps) {
		t.Errorf("%d versions are noted, want %d", n, len(steps))
	}
}

// A schema of each earlier version is brought up to date, with what is in it. The schema may be made by somebody else
// before, for a role that may make none.
func TestOldSchemasAreMigrated(t *testing.T) {
	steps, err := loadMigrations()
	if err != nil {
		t.Fatal(err)
	}
	for from := range len(steps) + 1 {
		t.Run(fmt.Sprint("from version ", from), func(t *testing.T) {
			raw := shared.Server(t).Database(t)
			sql := fmt.Sprintf(`CREATE ROLE owner%d LOGIN PASSWORD 'hunter2'; CREATE SCHEMA "Fetch fleet" AUTHORIZATION owner%[1]d;
				SET ROLE owner%[1]d; SET search_path = "Fetch fleet";`, from)
			if from > 0 {
				sql += `CREATE TABLE schema_version (version integer PRIMARY KEY, applied_at timestamptz NOT NULL DEFAULT now());`
			}
			for _, step := range steps[:from] {
				sql += step.sql + fmt.Sprintf("; INSERT INTO schema_version VALUES (%d);", step.version)
			}
			if from > 0 {
				sql += `INSERT INTO identity (id) VALUES ('0123456789abcdef')`
			}
			pgtest.Exec(t, raw, sql)
			raw = strings.Replace(raw, pgtest.User+":"+pgtest.Password, fmt.Sprintf("owner%d:hunter2", from), 1)
			s := openTest(t, with(raw, "schema", "Fetch fleet"), Options{})
			if err := commitCrashUnit(t.Context(), s, 2); err != nil {
				t.Error(err)
			}
			if id, err := s.Identity(t.Context()); err != nil || from > 0 && id != "0123456789abcdef" {
				t.Errorf("Identity = %q, %v", id, err)
			}
			wantSound(t, s)
		})
	}
}

func TestSchemasAreStoresOfTheirOwn(t *testing.T) {
	raw := shared.Server(t).Database(t)
	a, b := openTest(t, raw, Options{}), openTest(t, with(raw, "schema", `o"dd`), Options{})
	if err := commitCrashUnit(t.Context(), a, 1); err != nil {
		t.Fatal(err)
	}
	if seen := wantUnitsWhole(t, b); len(seen) != 0 {
		t.Errorf("another schema has units %v", seen)
	}
	if strings.Contains(a.String(), pgtest.Password) {
		t.Errorf("String says the password: %s", a)
	}
}
