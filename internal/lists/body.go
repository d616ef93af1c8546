package lists

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/fetchfleet/fetchfleet/internal/payload"
)

// withParams adds query parameters to a URL: those of the job, but for names that the line has of its own, and the line's.
func withParams(url string, job, line []payload.Pair) string {
	if len(job) == 0 && len(line) == 0 {
		return url
	}
	all := slices.DeleteFunc(slices.Clone(job), func(p payload.Pair) bool {
		return slices.ContainsFunc(line, func(own payload.Pair) bool { return own.Name == p.Name })
	})
	return payload.AddQuery(url, append(all, line...))
}

// body makes of a reader of a body one that refuses a second.
func body(name string, read func(*draft, json.RawMessage) error) func(*draft, json.RawMessage) error {
	return func(it *draft, v json.RawMessage) error {
		if it.bodyBy != "" {
			return fmt.Errorf("cannot stand beside %q: a request has one body", it.bodyBy)
		}
		it.bodyBy = name
		return read(it, v)
	}
}

// setBody gives the item a body, and its type unless the line says another.
func (it *draft) setBody(data []byte, kind string) error {
	if len(data) > payload.MaxBody {
		return payload.ErrTooLarge
	}
	if len(data) > 0 {
		it.Body = data
	}
	if _, ok := it.Header["Content-Type"]; !ok && kind != "" {
		it.setHeader("Content-Type", []string{kind})
	}
	return nil
}

func readJSON(it *draft, v json.RawMessage) error { return it.setBody(compact(v), payload.TypeJSON) }

func readBase64(it *draft, v json.RawMessage) error {
	data, err := decodeBase64(v)
	if err != nil {
		return err
	}
	return it.setBody(data, "")
}

func decodeBase64(v json.RawMessage) ([]byte, error) {
	var text string
	if err := readString(v, &text); err != nil {
		return nil, err
	}
	data, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		return nil, errors.New("must be base64 (RFC 4648 section 4, with padding)")
	}
	return data, nil
}

func readParams(it *draft, v json.RawMessage) (err error) {
	it.params, err = pairs(v)
	return err
}

func readForm(it *draft, v json.RawMessage) error {
	fields, err := pairs(v)
	if err == nil && len(fields) == 0 {
		err = errors.New("must have a field")
	}
	if err != nil {
		return err
	}
	return it.setBody(payload.Form(fields), payload.TypeForm)
}

// pairs reads an object whose values are text, numbers, true, false, or lists of these, in the order written.
func pairs(v json.RawMessage) (out []payload.Pair, err error) {
	if v[0] != '{' {
		return nil, errors.New(`must be an object like {"q": "x"}`)
	}
	d := json.NewDecoder(bytes.NewReader(v))
	_, _ = d.Token() // the brace
	for d.More() {
		name, err := d.Token()
		var raw json.RawMessage
		if err == nil {
			err = d.Decode(&raw)
		}
		if err != nil {
			return nil, fmt.Errorf("bad JSON: %w", err)
		}
		values := []json.RawMessage{raw}
		if raw[0] == '[' {
			values = nil
			_ = json.Unmarshal(raw, &values) // it is a list
		}
		for _, one := range values {
			text, err := scalar(one)
			if err != nil {
				return nil, fmt.Errorf("%.60q: %w", name, err)
			}
			out = append(out, payload.Pair{Name: name.(string), Value: text})
		}
	}
	return out, nil
}

// scalar is a JSON value as text: numbers as they are written.
func scalar(v json.RawMessage) (string, error) {
	switch v[0] {
	case '"':
		var s string
		err := readString(v, &s)
		return s, err
	case '{', '[', 'n':
		return "", errors.New("a value is text, a number, true, false, or a list of these")
	}
	return string(v), nil
}

// part is how a line writes a part of a multipart body.
type part struct {
	Name     string          `json:"name"`
	Value    json.RawMessage `json:"value"`
	File     string          `json:"file"`
	Base64   json.RawMessage `json:"base64"`
	Type     string          `json:"type"`
	Filename string          `json:"filename"`
}

func readMultipart(it *draft, v json.RawMessage) error {
	d := json.NewDecoder(bytes.NewReader(v))
	d.DisallowUnknownFields()
	var given []part
	if v[0] != '[' || d.Decode(&given) != nil || len(given) == 0 {
		return errors.New("must be a list of {name, value or file or base64, type, filename}")
	}
	parts := make([]payload.Part, len(given))
	for i := range given {
		var err error
		if parts[i], err = given[i].read(it.opts); err == nil {
			err = parts[i].Check()
		}
		if err != nil {
			return fmt.Errorf("part %d (%.60q): %w", i+1, given[i].Name, err)
		}
	}
	data, kind, err := payload.Multipart(parts)
	if err != nil {
		return err
	}
	delete(it.Header, "Content-Type") // without the boundary nobody can read it
	return it.setBody(data, kind)
}

func (p *part) read(opts *Options) (out payload.Part, err error) {
	out = payload.Part{Name: p.Name, Filename: p.Filename, Type: p.Type}
	ways := 0
	if p.Value != nil && string(p.Value) != "null" {
		ways++
		var text string
		text, err = scalar(p.Value)
		out.Data = []byte(text)
	}
	if p.Base64 != nil && string(p.Base64) != "null" {
		ways++
		out.Data, err = decodeBase64(p.Base64)
	}
	if p.File != "" {
		ways++
		out.Data, err = opts.readFile(p.File)
		if out.Filename == "" {
			out.Filename = filepath.Base(p.File)
		}
	}
	if ways != 1 {
		return out, errors.New("one of value, file and base64 says what is sent")
	}
	return out, err
}

func (o *Options) readFile(name string) ([]byte, error) {
	if o.Files == nil {
		return nil, errors.New("lines may name no files here: --body-dir DIR lets them name those in DIR")
	}
	return payload.ReadBelow(o.Files, name)
}
