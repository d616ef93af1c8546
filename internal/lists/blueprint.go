package lists

import (
	"errors"
	"fmt"
	"slices"

	"github.com/fetchfleet/fetchfleet/internal/payload"
	"github.com/fetchfleet/fetchfleet/internal/rows"
	"github.com/fetchfleet/fetchfleet/internal/template"
)

// Blueprint makes an item of a row. Everything but URL may be left out.
type Blueprint struct {
	// URL is nil where a row is itself what a JSON line is: its columns are the fields (see Fields).
	URL    *template.URL
	Params []Field
	Header []Field
	// JSON, Form and Parts are bodies; at most one is set.
	JSON  *template.JSON
	Form  []Field
	Parts []PartField
	Key   *template.Text
	// NoMeta leaves the row out of the item's meta.
	NoMeta bool
}

// Field is a name, which no row changes, and a template for its value.
type Field struct {
	Name  string
	Value *template.Text
}

// PartField is a part of a multipart body: one that is always the same, or, where Value is set, one with a text of the row.
type PartField struct {
	payload.Part
	Value *template.Text
}

// Names are the columns that the blueprint asks for.
func (b *Blueprint) Names() (names []string) {
	add := func(more []string) {
		for _, name := range more {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	if b.URL != nil {
		add(b.URL.Names())
	}
	for _, f := range slices.Concat(b.Params, b.Header, b.Form) {
		add(f.Value.Names())
	}
	for _, p := range b.Parts {
		if p.Value != nil {
			add(p.Value.Names())
		}
	}
	if b.JSON != nil {
		add(b.JSON.Names())
	}
	if b.Key != nil {
		add(b.Key.Names())
	}
	return names
}

// Check names what the columns of a table do not have: a template that names another would fail for each of its rows.
func (b *Blueprint) Check(columns []string) error {
	for _, name := range b.Names() {
		if !slices.Contains(columns, name) {
			return fmt.Errorf("there is no column %.60q: the columns are %s", name, listed(columns))
		}
	}
	if b.URL != nil {
		return nil
	}
	for _, name := range columns {
		if !slices.Contains(Fields(), name) {
			return fmt.Errorf("without --template a column is a field of a request, and %.60q is none: the fields are %s", name, listed(Fields()))
		}
	}
	if !slices.Contains(columns, "url") {
		return errors.New(`there is no column "url", and no --template that makes one`)
	}
	return nil
}

// listed is names for a message, not all of them where there are many.
func listed(names []string) string {
	const most = 20
	text := ""
	for i, name := range names {
		if i == most {
			return text + fmt.Sprintf(" and %d more", len(names)-most)
		}
		if i > 0 {
			text += ", "
		}
		text += name
	}
	return text
}

// item is what a row asks for.
func (b *Blueprint) item(row *rows.Row, opts *Options) (Item, error) {
	if b.URL == nil {
		return b.itself(row, opts)
	}
	it := draft{opts: opts}
	for _, step := range []func(*draft, *rows.Row) error{b.url, b.headers, b.body, b.key} {
		if err := step(&it, row); err != nil {
			return Item{}, err
		}
	}
	if !b.NoMeta {
		it.Meta = row.AppendJSON(nil)
	}
	return it.Item, nil
}

func (b *Blueprint) url(it *draft, row *rows.Row) (err error) {
	if it.URL, err = b.URL.Expand(row); err != nil {
		return err
	}
	params, err := expand(b.Params, row, (*template.Text).Expand)
	it.URL = withParams(it.URL, it.opts.Params, params)
	return err
}

func (b *Blueprint) headers(it *draft, row *rows.Row) error {
	fields, err := expand(b.Header, row, (*template.Text).ExpandHeader)
	if err != nil {
		return err
	}
	for _, f := range fields {
		if err := CheckHeader(f.Name, []string{f.Value}); err != nil {
			return fmt.Errorf("header %s: %w", f.Name, err)
		}
		it.setHeader(f.Name, []string{f.Value})
	}
	return nil
}

func (b *Blueprint) body(it *draft, row *rows.Row) error {
	switch {
	case b.JSON != nil:
		data, err := b.JSON.Expand(row)
		if err != nil {
			return err
		}
		return it.setBody(data, "") // its type is the job's
	case b.Form != nil:
		fields, err := expand(b.Form, row, (*template.Text).Expand)
		if err != nil {
			return err
		}
		return it.setBody(payload.Form(fields), "")
	case b.Parts != nil:
		return b.multipart(it, row)
	}
	return nil
}

func (b *Blueprint) multipart(it *draft, row *rows.Row) error {
	parts := make([]payload.Part, len(b.Parts))
	for i, p := range b.Parts {
		parts[i] = p.Part
		if p.Value != nil {
			text, err := p.Value.Expand(row)
			if err != nil {
				return err
			}
			parts[i].Data = []byte(text)
		}
	}
	data, kind, err := payload.Multipart(parts)
	if err != nil {
		return err
	}
	return it.setBody(data, kind)
}

func (b *Blueprint) key(it *draft, row *rows.Row) (err error) {
	if b.Key != nil {
		it.Key, err = b.Key.Expand(row)
	}
	return err
}

func expand(fields []Field, row *rows.Row, by func(*template.Text, *rows.Row) (string, error)) ([]payload.Pair, error) {
	if len(fields) == 0 {
		return nil, nil
	}
	out := make([]payload.Pair, len(fields))
	for i, f := range fields {
		value, err := by(f.Value, row)
		if err != nil {
			return nil, err
		}
		out[i] = payload.Pair{Name: f.Name, Value: value}
	}
	return out, nil
}

// asJSON are the columns whose text is JSON.
var asJSON = []string{"headers", "params", "json", "form", "multipart", "meta"}

// itself reads a row as the JSON line that has its columns as fields.
func (b *Blueprint) itself(row *rows.Row, opts *Options) (Item, error) {
	line := []byte{'{'}
	for i, name := range row.Names {
		v := row.Values[i]
		if v.Kind == rows.Null {
			continue
		}
		if len(line) > 1 {
			line = append(line, ',')
		}
		line = append(rows.AppendString(line, name), ':')
		switch {
		case v.Kind == rows.String && slices.Contains(asJSON, name):
			if !isJSON(v.Text) {
				return Item{}, fmt.Errorf("%q must hold JSON", name)
			}
			line = append(line, v.Text...)
		case name == "key" || name == "body": // a number is text there
			line = rows.AppendString(line, v.Text)
		default:
			line = v.AppendJSON(line)
		}
	}
	return parseItem(append(line, '}'), opts)
}
