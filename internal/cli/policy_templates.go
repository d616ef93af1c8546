package cli

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/lists"
	"github.com/fetchfleet/fetchfleet/internal/payload"
	"github.com/fetchfleet/fetchfleet/internal/rows"
	"github.com/fetchfleet/fetchfleet/internal/template"
)

// templates reads the flags of a job with --template: what no row changes is for the whole job, the rest for each row.
func (r *requests) templates(p *PolicyFlags, stdin io.Reader) (err error) {
	b := r.options.Rows
	if b.URL, err = template.ParseURL(r.Template); err != nil {
		return usage("--template: %w", err)
	}
	if r.Key != "" {
		if b.Key, err = template.ParseText(r.Key); err != nil {
			return usage("--key: %w", err)
		}
	}
	for _, text := range p.Param {
		pair, err := payload.ParsePair(text)
		if err != nil {
			return usage("--param %.60q: %w", text, err)
		}
		if b.Params, err = appendField(b.Params, pair); err != nil {
			return usage("--param %.60s: %w", pair.Name, err)
		}
	}
	if err := r.headers(p); err != nil {
		return err
	}
	switch r.flag {
	case "--data":
		return r.data(p, stdin)
	case "--json-body":
		return r.jsonTemplate(p, stdin)
	case "--form":
		return r.formTemplate(p.Form)
	}
	return nil
}

func appendField(fields []lists.Field, pair payload.Pair) ([]lists.Field, error) {
	value, err := template.ParseText(pair.Value)
	return append(fields, lists.Field{Name: pair.Name, Value: value}), err
}

// headers takes those with variables from the flags. The others stay with the job, in which "{{" is two braces.
func (r *requests) headers(p *PolicyFlags) error {
	var whole []string
	for _, field := range p.Header {
		name, value, ok := strings.Cut(field, ":")
		name, value = http.CanonicalHeaderKey(strings.TrimSpace(name)), strings.TrimSpace(value)
		if !ok || !strings.ContainsAny(value, "{}") {
			whole = append(whole, field) // what is wrong with it is said where all are read
			continue
		}
		text, err := template.ParseHeader(value)
		if err == nil {
			err = lists.CheckHeader(name, []string{value})
		}
		if err != nil {
			return usage("--header %.60s: %w", name, err)
		}
		if text.Constant() {
			value, _ = text.ExpandHeader(&rows.Row{}) // nothing can be missing
			whole = append(whole, name+": "+value)
			continue
		}
		r.options.Rows.Header = append(r.options.Rows.Header, lists.Field{Name: name, Value: text})
	}
	p.Header = whole
	return nil
}

func (r *requests) jsonTemplate(p *PolicyFlags, stdin io.Reader) error {
	text, err := readJSON(p, stdin)
	if err != nil {
		return err
	}
	t, err := template.ParseJSON(text)
	if err != nil {
		return usage("--json-body: %w", err)
	}
	r.kind = payload.TypeJSON
	if t.Constant() {
		r.body, _ = t.Expand(&rows.Row{}) // nothing can be missing
		return nil
	}
	r.options.Rows.JSON = t
	return nil
}

// formTemplate reads --form. Files are the same for all rows: a table that could name them could have any file sent.
func (r *requests) formTemplate(texts []string) error {
	fields, files, err := parseForm(texts)
	if err != nil {
		return err
	}
	if !files {
		r.kind = payload.TypeForm
		for _, f := range fields {
			if r.options.Rows.Form, err = appendField(r.options.Rows.Form, f.Pair); err != nil {
				return usage("--form %.60s: %w", f.Name, err)
			}
		}
		return nil
	}
	for i := range fields {
		part, err := fields[i].Part()
		if err != nil {
			return usage("--form %.60s: %w", fields[i].Name, err)
		}
		pf := lists.PartField{Part: part}
		if fields[i].File == "" {
			if pf.Value, err = template.ParseText(fields[i].Value); err != nil {
				return usage("--form %.60s: %w", fields[i].Name, err)
			}
		}
		r.options.Rows.Parts = append(r.options.Rows.Parts, pf)
	}
	return nil
}

// open opens what the requests come from. A query is asked here.
func (r *requests) open(ctx context.Context, files []string, stdin io.Reader) (*lists.Reader, error) {
	if r.SQL == "" {
		if slices.Contains(files, lists.Stdin) {
			stdin = untilDone(ctx, stdin)
		}
		return lists.Open(files, stdin, r.options), nil
	}
	table, err := rows.Open(ctx, r.SQL, r.Query)
	if err != nil {
		return nil, err
	}
	return lists.OpenTable(r.describe(), table, r.options)
}
