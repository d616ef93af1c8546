package rows

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	_ "modernc.org/sqlite" // registers "sqlite" with database/sql
)

// connectLimit is how long a database may take to answer for the first time.
const connectLimit = 10 * time.Second

// database is one that can be opened.
type database struct {
	open     func() (*sql.DB, error)
	name     string // for people: without password and parameters
	secrets  []string
	readOnly bool // a transaction can be made so
}

// parseDSN reads the URL of a database. No error has a part of a password in it.
func parseDSN(raw string, env func(string) string) (*database, error) {
	written, secrets, err := resolve(raw, env)
	if err != nil {
		return nil, err
	}
	scheme, rest, _ := strings.Cut(written, ":")
	switch strings.ToLower(scheme) {
	case "sqlite":
		return sqliteDB(rest)
	case "postgres", "postgresql", "mysql":
	default:
		return nil, errors.New("write postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or sqlite:FILE")
	}
	u, err := url.Parse(written)
	if err != nil || u.Host == "" && u.Opaque != "" {
		return nil, fmt.Errorf("this is no URL: write %s://USER@HOST/DATABASE, with %%XX for special characters of a password", strings.ToLower(scheme))
	}
	if password, ok := u.User.Password(); ok {
		secrets = append(secrets, password)
	}
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	if name := u.User.Username(); name != "" {
		shown.User = url.User(name)
	}
	db := &database{name: shown.String(), secrets: secrets, readOnly: true}
	if strings.EqualFold(scheme, "mysql") {
		db.open = func() (*sql.DB, error) { return openMySQL(u, env) }
	} else {
		db.open = func() (*sql.DB, error) { return openPostgres(u) }
	}
	return db, nil
}

// resolve puts in what ${env:NAME} and ${file:PATH} refer to, percent-encoded unless it is the whole of the DSN, and
// returns it once more as what may not be shown.
func resolve(raw string, env func(string) string) (dsn string, secrets []string, err error) {
	var b strings.Builder
	for rest := raw; ; {
		before, after, ok := strings.Cut(rest, "${")
		b.WriteString(before)
		if !ok {
			return b.String(), secrets, nil
		}
		reference, after, ok := strings.Cut(after, "}")
		kind, name, _ := strings.Cut(reference, ":")
		var value string
		switch {
		case ok && kind == "env" && name != "":
			if value = env(name); value == "" {
				return "", nil, fmt.Errorf("${env:%s}: the variable is not set", name)
			}
		case ok && kind == "file" && name != "":
			data, err := os.ReadFile(name)
			if err != nil {
				return "", nil, fmt.Errorf("${file:%s}: %w", name, bareError(err))
			}
			value = strings.TrimRight(string(data), "\r\n")
		default:
			return "", nil, errors.New("a reference is ${env:NAME} or ${file:PATH}")
		}
		if before == "" && after == "" && b.Len() == 0 { // the whole DSN, whose password is found when it is parsed
			return value, nil, nil
		}
		secrets = append(secrets, value)
		b.WriteString(url.QueryEscape(value))
		rest = after
	}
}

func bareError(err error) error {
	var p *os.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// shown is an error without the secrets that it may repeat.
func (d *database) shown(err error) error {
	if err == nil || errors.Is(err, context.Canceled) {
		return err
	}
	text := err.Error()
	for _, s := range d.secrets {
		if s != "" {
			for _, form := range []string{s, url.QueryEscape(s), url.PathEscape(s)} {
				text = strings.ReplaceAll(text, form, "xxxxx")
			}
		}
	}
	return errors.New(strings.Join(strings.Fields(text), " ")) // drivers break lines
}

// openPostgres leaves the rest of the usual environment (PGPASSWORD, PGPASSFILE, PGSSLMODE …) to the driver.
func openPostgres(u *url.URL) (*sql.DB, error) {
	c, err := pgx.ParseConfig(u.String())
	if err != nil {
		return nil, err
	}
	if c.ConnectTimeout == 0 {
		c.ConnectTimeout = connectLimit
	}
	c.RuntimeParams["default_transaction_read_only"] = "on"
	if c.RuntimeParams["application_name"] == "" {
		c.RuntimeParams["application_name"] = "fetchfleet"
	}
	return stdlib.OpenDB(*c), nil
}

// openMySQL takes the driver's parameters from the URL's query; a password may also come from MYSQL_PWD.
func openMySQL(u *url.URL, env func(string) string) (*sql.DB, error) {
	c, err := mysql.ParseDSN("/?" + u.RawQuery)
	if err != nil {
		return nil, err
	}
	c.User = u.User.Username()
	password, ok := u.User.Password()
	if !ok {
		password = env("MYSQL_PWD")
	}
	c.Passwd, c.DBName = password, strings.TrimPrefix(u.Path, "/")
	c.Net, c.Addr = "tcp", u.Host
	if u.Port() == "" {
		c.Addr = net.JoinHostPort(u.Hostname(), "3306")
	}
	if u.Hostname() == "" {
		return nil, errors.New("name the host: mysql://USER@HOST/DATABASE")
	}
	if c.Timeout == 0 {
		c.Timeout = connectLimit
	}
	c.ParseTime, c.AllowAllFiles, c.MultiStatements, c.Logger = true, false, false, &mysql.NopLogger{}
	connector, err := mysql.NewConnector(c)
	if err != nil {
		return nil, err
	}
	return sql.OpenDB(connector), nil
}

// sqliteDB opens a file that is there, for reading; query_only keeps what a statement attaches from being written, too.
func sqliteDB(file string) (*database, error) {
	file = strings.TrimPrefix(file, "//")
	if file == "" || file == ":memory:" {
		return nil, errors.New("name the file: sqlite:FILE")
	}
	db := &database{name: "sqlite:" + file}
	db.open = func() (*sql.DB, error) {
		if _, err := os.Stat(file); err != nil {
			return nil, bareError(err)
		}
		path := url.URL{Path: file}
		return sql.Open("sqlite", "file:"+path.EscapedPath()+"?mode=ro&_pragma=query_only(1)&_pragma=busy_timeout(10000)")
	}
	return db, nil
}
