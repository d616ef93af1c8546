package cli

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/payload"
	"github.com/fetchfleet/fetchfleet/internal/rows"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
	"github.com/fetchfleet/fetchfleet/internal/template"
)

// RequestFlags say what every request of a job carries. The producer works them out, so a job's spec knows only what is sent.
type RequestFlags struct {
	Data     *string  `group:"Policy" env:"FLEET_DATA" help:"Body for every request that brings none, sent as POST unless --method says otherwise; @FILE reads it from a file, @- from standard input, byte for byte; @@ begins one with a literal @."`
	JSONBody *string  `group:"Policy" name:"json-body" env:"FLEET_JSON_BODY" placeholder:"JSON" help:"JSON body for every request that brings none, as --data, with Content-Type: application/json."`
	Form     []string `group:"Policy" env:"FLEET_FORM" sep:"none" placeholder:"NAME=VALUE" help:"Field of a form for every request that brings no body; may be repeated. NAME=@FILE, or NAME=@FILE;type=T;filename=F, makes it multipart/form-data; NAME=@@… begins with a literal @."`
	Param    []string `group:"Policy" env:"FLEET_PARAM" sep:"none" placeholder:"NAME=VALUE" help:"Query parameter added to every URL, percent-encoded; may be repeated. A JSON line's own of the same name wins."`
}

// RowFlags say how rows become requests, and where they come from if not from lists.
type RowFlags struct {
	Template  string `env:"FLEET_TEMPLATE" placeholder:"URL" help:"The FILEs are tables, CSV with a first line of names or JSON Lines; each row makes a request of this URI template (RFC 6570): https://api.example/users/{id}{?q}. In --json-body, --form, --param, --key and the values of --header, {name} stands for a value, {{ for a brace."`
	Key       string `env:"FLEET_KEY" placeholder:"TEXT" help:"With --template: what tells apart rows that ask for the same, as {id}."`
	NoMeta    bool   `env:"FLEET_NO_META" help:"With --template: do not put each row into its record as meta."`
	Delimiter string `env:"FLEET_DELIMITER" placeholder:"CHAR" help:"With --template: what separates the columns of CSV; tab for a tab (default: a comma)."`
	SQL       string `name:"sql" env:"FLEET_SQL" placeholder:"URL" help:"Read rows from a database instead of FILEs, for reading only: postgres://USER@HOST/DATABASE, mysql://USER@HOST/DATABASE or sqlite:FILE. A password may be $${env:NAME} or $${file:PATH}, or come from PGPASSWORD, .pgpass or MYSQL_PWD."`
	Query     string `env:"FLEET_QUERY" placeholder:"SELECT" help:"With --sql: what to ask. Its columns are the variables of --template; without one they are url, method, headers, body, key, meta as in JSON lines."`
	BodyDir   string `env:"FLEET_BODY_DIR" placeholder:"DIR" help:"Let JSON lines name files in this folder as parts of their multipart body (default: they may name none)."`
}

// rows reports whether the requests come from a table.
func (f *RowFlags) rows() bool { return f.Template != "" || f.SQL != "" }

// check refuses flags that do not go together. files are those named, "-" included.
func (f *RowFlags) check(files []string) error {
	for _, given := range []struct {
		flag  string
		given bool
	}{{"--key", f.Key != ""}, {"--no-meta", f.NoMeta}, {"--delimiter", f.Delimiter != ""}} {
		if given.given && f.Template == "" {
			return usage("%s: it is for tables: give --template, which says what a row asks for", given.flag)
		}
	}
	switch {
	case f.SQL == "" && f.Query != "":
		return usage("--query: name the database with --sql")
	case f.SQL != "" && f.Query == "":
		return usage("--sql: say what to ask with --query 'select …'")
	case f.SQL != "" && len(files) > 0:
		return usage("--sql and %s: rows come from the database or from files: leave one out", files[0])
	case f.SQL != "":
		if err := rows.CheckDSN(f.SQL); err != nil {
			return usage("--sql: %w", err)
		}
	case f.Template != "":
		if i := slices.IndexFunc(files, lists.IsURL); i >= 0 {
			return usage("--template makes the URLs, and an argument is one: name a table, CSV or JSON Lines, or - for standard input")
		}
	}
	return nil
}

func (f *RowFlags) comma() (rune, error) {
	switch f.Delimiter {
	case "":
		return 0, nil
	case "tab", `\t`:
		return '\t', nil
	}
	r, n := utf8.DecodeRuneInString(f.Delimiter)
	if n != len(f.Delimiter) || r == utf8.RuneError || strings.ContainsRune("\"\r\n\x00", r) {
		return 0, usage("--delimiter %q: one character that is no quote, or tab", f.Delimiter)
	}
	return r, nil
}

// requests is what the flags say about requests, worked out.
type requests struct {
	RowFlags
	options lists.Options
	body    []byte // of every request, nil = none
	kind    string // its Content-Type, also where each row makes a body of its own; "" = none is said
	flag    string // that gave the body, "" = none
}

// readRequests works the flags out. It reads the files that they name, and takes from p the headers that are for rows.
func readRequests(p *PolicyFlags, f RowFlags, files []string, stdin io.Reader) (_ *requests, err error) {
	if err := f.check(files); err != nil {
		return nil, err
	}
	r := &requests{RowFlags: f}
	if err := r.chooseBody(p, files); err != nil {
		return nil, err
	}
	if r.options.Comma, err = f.comma(); err != nil {
		return nil, err
	}
	if f.rows() {
		r.options.Rows = &lists.Blueprint{NoMeta: f.NoMeta}
	}
	if f.Template != "" {
		err = r.templates(p, stdin)
	} else {
		err = r.literals(p, stdin)
	}
	if err == nil && f.BodyDir != "" {
		if r.options.Files, err = os.OpenRoot(f.BodyDir); err != nil {
			err = usage("--body-dir: %w", err)
		}
	}
	return r, err
}

// chooseBody finds the one flag that makes the body.
func (r *requests) chooseBody(p *PolicyFlags, files []string) error {
	var given []string
	stdin := slices.Contains(files, lists.Stdin)
	for _, f := range []struct {
		flag  string
		given bool
		text  *string
	}{{"--data", p.Data != nil, p.Data}, {"--json-body", p.JSONBody != nil, p.JSONBody}, {"--form", len(p.Form) > 0, nil}} {
		if !f.given {
			continue
		}
		given = append(given, f.flag)
		if stdin && f.text != nil && payload.ReadsStdin(*f.text) {
			return usage("%s @-: standard input is the list: name the list, or read the body from a file", f.flag)
		}
	}
	if len(given) > 1 {
		return usage("%s: a request has one body: leave all but one out", strings.Join(given, " and "))
	}
	if len(given) == 1 {
		r.flag = given[0]
	}
	return nil
}

// literals reads the flags of a job without --template.
func (r *requests) literals(p *PolicyFlags, stdin io.Reader) (err error) {
	for _, text := range p.Param {
		pair, err := payload.ParsePair(text)
		if err != nil {
			return usage("--param %.60q: %w", text, err)
		}
		r.options.Params = append(r.options.Params, pair)
	}
	switch r.flag {
	case "--data":
		return r.data(p, stdin)
	case "--json-body":
		text, err := readJSON(p, stdin)
		r.body, r.kind = []byte(text), payload.TypeJSON
		return err
	case "--form":
		return r.form(p.Form)
	}
	return nil
}

func (r *requests) data(p *PolicyFlags, stdin io.Reader) (err error) {
	if r.body, err = payload.Read(*p.Data, stdin); err != nil {
		return usage("--data: %w", err)
	}
	return nil
}

// readJSON returns the text of --json-body, which must be JSON.
func readJSON(p *PolicyFlags, stdin io.Reader) (string, error) {
	data, err := payload.Read(*p.JSONBody, stdin)
	if err == nil {
		_, err = template.CheckJSON(data)
	}
	if err != nil {
		return "", usage("--json-body: %w", err)
	}
	return string(data), nil
}

// form builds the body of --form.
func (r *requests) form(texts []string) error {
	fields, files, err := parseForm(texts)
	if err != nil {
		return err
	}
	if !files {
		pairs := make([]payload.Pair, len(fields))
		for i, f := range fields {
			pairs[i] = f.Pair
		}
		r.body, r.kind = payload.Form(pairs), payload.TypeForm
		return nil
	}
	parts := make([]payload.Part, len(fields))
	for i := range fields {
		if parts[i], err = fields[i].Part(); err != nil {
			return usage("--form %s: %w", fields[i].Name, err)
		}
	}
	if r.body, r.kind, err = payload.Multipart(parts); err != nil {
		return usage("--form: %w", err)
	}
	return nil
}

func parseForm(texts []string) (fields []payload.Field, files bool, err error) {
	for _, text := range texts {
		f, err := payload.ParseField(text)
		if err != nil {
			name, _, _ := strings.Cut(text, "=") // a value may be long, or a secret
			return nil, false, usage("--form %.60q: %w", name, err)
		}
		files = files || f.File != ""
		fields = append(fields, f)
	}
	return fields, files, nil
}

// apply writes into the spec what all requests share.
func (r *requests) apply(p *PolicyFlags, spec *tasks.Spec, given *[]string) error {
	if r.flag == "" {
		return nil
	}
	if p.Method == nil {
		spec.Method = http.MethodPost
	}
	if len(r.body) > payload.MaxBody {
		return usage("%s: %w", r.flag, payload.ErrTooLarge)
	}
	if r.body != nil {
		spec.Data = r.body
		*given = append(*given, "--data") // the name of what is compared with the job's
	}
	if _, ok := spec.Header["Content-Type"]; r.kind == "" || ok && r.flag != "--form" {
		return nil
	} else if ok {
		return usage("--header Content-Type and --form: the form brings its own: leave the header out")
	}
	if spec.Header == nil {
		spec.Header = tasks.Header{}
	}
	spec.Header["Content-Type"] = []string{r.kind}
	return nil
}

// close gives back the folder of --body-dir.
func (r *requests) close() {
	if r.options.Files != nil {
		_ = r.options.Files.Close()
	}
}

// describe is what messages call the rows' database.
func (r *requests) describe() string { return fmt.Sprintf("--sql %s", rows.Name(r.SQL)) }
