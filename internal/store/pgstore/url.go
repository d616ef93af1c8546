package pgstore

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
)

// Limits of what is asked of a server. None of them is for ever.
const (
	connectLimit = 5 * time.Second  // for each address; connect_timeout in the URL changes it
	callLimit    = 10 * time.Second // for one statement or small transaction, with the wait for a connection
	commitLimit  = 30 * time.Second // for the transaction of a commit
	removeLimit  = 5 * time.Minute  // for the removal of a body, which takes seconds for each GB
	minConns     = 8                // the default of pool_max_conns
)

const defaultSchema = "fetchfleet"

const form = "postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=fetchfleet&bodies=on"

// Target is what a URL says.
type Target struct {
	Schema string // "fetchfleet" where the URL says nothing
	Bodies bool   // whether bodies are stored, too; true where the URL says nothing
	name   string // the URL without secrets
	rest   string // the URL without our own parameters
	pool   bool   // whether it says how large the pool may be
}

// Parse reads a URL: postgres://USER:PASSWORD@HOST:PORT/DATABASE?schema=NAME&bodies=on|off, and whatever else
// libpq and pgxpool know (sslmode, connect_timeout, pool_max_conns, …). What it leaves out is taken from the environment
// (PGHOST, PGPASSWORD, …) and ~/.pgpass. Errors hold no password.
func Parse(raw string) (Target, error) {
	t := Target{Schema: defaultSchema, Bodies: true}
	place, query, _ := strings.Cut(raw, "?")
	scheme, _, found := strings.Cut(place, "://")
	if !found || scheme != "postgres" && scheme != "postgresql" {
		return t, fmt.Errorf("store %q is no PostgreSQL URL, write %s", redact(raw), form)
	}
	if strings.Contains(query, "@") { // which of the two the question mark belongs to nobody can tell
		return t, fmt.Errorf("store %q: there is an @ behind a question mark; a ? in a password is written %%3F, "+
			"an @ in a parameter %%40", redact(raw))
	}
	values, err := url.ParseQuery(query)
	if err != nil {
		return t, fmt.Errorf("store %q: the part after the question mark is not well formed; a %%, ? or & in a password "+
			"is written %%25, %%3F or %%26", redact(raw))
	}
	if values.Has("schema") {
		t.Schema = values.Get("schema")
	}
	if err := checkSchema(t.Schema); err != nil {
		return t, fmt.Errorf("store %q: %w", redact(raw), err)
	}
	switch v := values.Get("bodies"); v {
	case "", "on":
	case "off":
		t.Bodies = false
	default:
		return t, fmt.Errorf("store %q: bodies=%s is neither on nor off", redact(raw), v)
	}
	t.name = describe(place, values)
	t.pool = values.Has("pool_max_conns")
	values.Del("schema")
	values.Del("bodies")
	t.rest = join(place, values)
	return t, nil
}

// checkSchema refuses what cannot be the name of a schema of ours.
func checkSchema(name string) error {
	switch {
	case name == "" || len(name) > 63 || strings.ContainsRune(name, 0):
		return fmt.Errorf("schema %.70q: a name of 1 to 63 bytes is wanted", name)
	case strings.HasPrefix(name, "pg_") || name == "information_schema":
		return fmt.Errorf("schema %q is PostgreSQL's own: choose another", name)
	}
	return nil
}

// describe returns the URL as it was given, without secrets.
func describe(place string, values url.Values) string {
	open := url.Values{}
	for key, list := range values {
		if !strings.Contains(key, "password") {
			open[key] = list
		}
	}
	return join(redact(place), open)
}

func join(place string, values url.Values) string {
	if len(values) == 0 {
		return place
	}
	return place + "?" + values.Encode()
}

// redact takes the password out of a URL that may be malformed, and what follows the question mark with it. It rather
// takes too much: where an @ follows a question mark, which may be of a password or of a parameter, all but the user.
func redact(raw string) string {
	scheme, rest, found := strings.Cut(raw, "://")
	if !found {
		scheme, _, _ = strings.Cut(raw, ":")
		return scheme + ":…"
	}
	at := strings.LastIndexByte(rest, '@')
	if strings.Contains(rest[:max(at, 0)], "?") {
		return scheme + "://" + rest[:strings.IndexAny(rest, ":/?@")] + "…"
	}
	place := rest
	user := ""
	if at >= 0 {
		user, _, _ = strings.Cut(rest[:at], ":")
		user, place = user+"@", rest[at+1:]
	}
	place, _, _ = strings.Cut(place, "?")
	return scheme + "://" + user + place
}

// Check refuses a URL that Open would refuse without a look at any server.
func Check(rawURL string) error {
	t, err := Parse(rawURL)
	if err == nil {
		_, err = t.config(Options{})
	}
	if err != nil {
		return fmt.Errorf("open %w", err)
	}
	return nil
}

// config returns the settings of the pool.
func (t Target) config(o Options) (*pgxpool.Config, error) {
	cfg, err := pgxpool.ParseConfig(t.rest)
	if err != nil {
		return nil, fmt.Errorf("store %q cannot be read as a PostgreSQL URL (%s), write %s", t.name, t.scrub(err), form)
	}
	if !t.pool {
		cfg.MaxConns = max(cfg.MaxConns, minConns)
	}
	if cfg.ConnConfig.ConnectTimeout == 0 {
		cfg.ConnConfig.ConnectTimeout = connectLimit
	}
	params := cfg.ConnConfig.RuntimeParams
	params["search_path"] = quote(t.Schema)
	defaults := map[string]string{
		"application_name":                    "fetchfleet " + o.Worker,
		"statement_timeout":                   "60s",
		"lock_timeout":                        "20s",
		"idle_in_transaction_session_timeout": "10s", // a worker that sleeps in the middle of a commit holds nobody up
	}
	if o.Sync == SyncOff {
		defaults["synchronous_commit"] = "off"
	}
	for name, value := range defaults {
		if _, given := params[name]; !given {
			params[name] = value
		}
	}
	return cfg, nil
}

// scrub says what an error of the URL's parser says, without repeating the URL.
func (t Target) scrub(err error) string {
	text := err.Error()
	if _, after, found := strings.Cut(text, "`: "); found {
		text = after
	}
	if strings.Contains(text, "://") { // it repeats what it was given
		return "not well formed"
	}
	return text
}

func quote(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
