package stories

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fetchfleet/fetchfleet/internal/store/pgstore/pgtest"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
)

// s3Command starts a real S3 server with an empty bucket, and gives the commands its keys as AWS_… variables.
// $S3_BUCKET is the bucket and $S3_ADDR the HOST:PORT of the server: s3 start
func s3Command(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 || args[0] != "start" {
		ts.Fatalf("usage: s3 start")
	}
	server := s3test.StartBeside(worldOf(ts).t)
	for name, value := range s3test.Environment() {
		ts.Setenv(name, value)
	}
	ts.Setenv("S3_BUCKET", s3test.Bucket)
	ts.Setenv("S3_ADDR", server.Addr())
}

// postgresCommand starts a real PostgreSQL server with an empty database, or runs statements in that database. $PG_URL is
// the database's URL with its password, $PG_USER, $PG_PASSWORD, $PG_ADDR and $PG_DATABASE are its parts:
//
//	postgres start
//	postgres do STATEMENT
func postgresCommand(ts *testscript.TestScript, neg bool, args []string) {
	t := worldOf(ts).t
	switch {
	case len(args) == 1 && args[0] == "start":
		server := pgtest.Start(t)
		url := server.Database(t)
		ts.Setenv("PG_URL", url)
		ts.Setenv("PG_USER", pgtest.User)
		ts.Setenv("PG_PASSWORD", pgtest.Password)
		ts.Setenv("PG_ADDR", server.Addr())
		ts.Setenv("PG_DATABASE", url[strings.LastIndexByte(url, '/')+1:])
	case len(args) == 2 && args[0] == "do":
		pgtest.Exec(t, ts.Getenv("PG_URL"), args[1])
	default:
		ts.Fatalf("usage: postgres start | do STATEMENT")
	}
}

// sqliteCommand runs statements in a database that is a file: sqlite FILE STATEMENTS
func sqliteCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: sqlite FILE STATEMENTS")
	}
	db, err := sql.Open("sqlite", ts.MkAbs(args[0])) // the commands register the driver
	ts.Check(err)
	_, err = db.Exec(args[1])
	ts.Check(errors.Join(err, db.Close()))
}

// refusalLimit is how long a command may take to refuse what it cannot work with. Most need a fraction of a second; the
// longest wait is that for a server which does not answer.
const refusalLimit = 20 * time.Second

// refused runs a command that has to end by itself and soon, with this exit code, and to say none of this world's
// secrets: refused N COMMAND ARG…
func refused(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: refused N COMMAND ARG…")
	}
	ctx, cancel := context.WithTimeout(context.Background(), refusalLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[1], args[2:]...) // found on the test's PATH, which the story's begins with
	cmd.Dir, cmd.Env = ts.MkAbs("."), environment(ts)
	var stdout, stderr strings.Builder
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	fmt.Fprint(ts.Stdout(), stdout.String())
	fmt.Fprint(ts.Stderr(), stderr.String())
	if ctx.Err() != nil {
		ts.Fatalf("%s: not refused within %s; it says:\n%s", strings.Join(args[1:], " "), refusalLimit, stderr.String())
	}
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		ts.Check(err)
	}
	if got := cmd.ProcessState.ExitCode(); strconv.Itoa(got) != args[0] {
		ts.Fatalf("%s: exit code %d, want %s; it says:\n%s", strings.Join(args[1:], " "), got, args[0], stderr.String())
	}
	for _, secret := range []string{s3test.SecretKey, pgtest.Password, "hunter2"} {
		if strings.Contains(stdout.String()+stderr.String(), secret) {
			ts.Fatalf("%s: it says the secret %s:\n%s", args[1], secret, stderr.String())
		}
	}
}
