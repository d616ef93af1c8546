package template

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/rows"
)

// JSON is a JSON text with {name} inside its strings. A string that is nothing but "{name}" becomes the value with its
// kind: a number of the row is a number, null is null. A string that is nothing but "{+name}" becomes the number, true,
// false or null that the value's text is, for rows from CSV, which knows text alone. Anywhere else values are text, escaped.
type JSON struct{ chunks []chunk }

// chunk is JSON as it is, or a string with variables.
type chunk struct {
	text   string
	pieces []piece
	key    bool // of an object, and so always a string
}

// CheckJSON returns text if it is valid JSON.
func CheckJSON(text []byte) ([]byte, error) {
	if err := json.Unmarshal(text, new(json.RawMessage)); err != nil {
		return nil, fmt.Errorf("it is not valid JSON: %w", err)
	}
	return text, nil
}

// ParseJSON reads a template (a brace that is written \u007b stays one), which must be valid JSON before anything is put in.
func ParseJSON(text string) (*JSON, error) {
	if _, err := CheckJSON([]byte(text)); err != nil {
		return nil, err
	}
	j := &JSON{}
	for text != "" {
		start := strings.IndexByte(text, '"')
		if start < 0 {
			break
		}
		end := start + stringLength(text[start:])
		c, err := stringChunk(text[start:end], strings.HasPrefix(strings.TrimLeft(text[end:], " \t\r\n"), ":"))
		if err != nil {
			return nil, err
		}
		j.chunks = append(j.chunks, chunk{text: text[:start]}, c)
		text = text[end:]
	}
	j.chunks = append(j.chunks, chunk{text: text})
	return j, nil
}

// stringLength returns how long the string literal is that text, which is of valid JSON, begins with.
func stringLength(text string) int {
	for i := 1; i < len(text); i++ {
		switch text[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return len(text)
}

func stringChunk(literal string, key bool) (chunk, error) {
	if !strings.ContainsAny(literal, "{}") {
		return chunk{text: literal}, nil
	}
	var value string
	if err := json.Unmarshal([]byte(literal), &value); err != nil {
		return chunk{}, fmt.Errorf("it is not valid JSON: %w", err)
	}
	pieces, err := parse(value, false)
	if err != nil {
		return chunk{}, fmt.Errorf("in %.60s: %w", literal, err)
	}
	return chunk{pieces: pieces, key: key}, nil
}

// Constant reports whether no row changes anything.
func (j *JSON) Constant() bool { return len(j.Names()) == 0 }

// Names are the variables.
func (j *JSON) Names() (out []string) {
	for _, c := range j.chunks {
		for _, name := range names(c.pieces) {
			if !slices.Contains(out, name) {
				out = append(out, name)
			}
		}
	}
	return out
}

// Expand puts a row's values in. A variable that the row does not have is an error that names it; null is a value.
func (j *JSON) Expand(row *rows.Row) ([]byte, error) {
	var b []byte
	for i := range j.chunks {
		c := &j.chunks[i]
		if c.pieces == nil {
			b = append(b, c.text...)
			continue
		}
		var err error
		if b, err = c.append(b, row); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func (c *chunk) append(b []byte, row *rows.Row) ([]byte, error) {
	if len(c.pieces) == 1 && c.pieces[0].name != "" && !c.key {
		v, err := whole(&c.pieces[0], row)
		return v.AppendJSON(b), err
	}
	text, err := (&Text{c.pieces}).Expand(row)
	return rows.AppendString(b, text), err
}

// whole is the value that a string with nothing else in it becomes.
func whole(p *piece, row *rows.Row) (rows.Value, error) {
	if !slices.Contains(row.Names, p.name) {
		return rows.Value{}, missing(p.name)
	}
	v, _ := row.Get(p.name)
	if !p.raw || v.Kind != rows.String {
		return v, nil
	}
	scalar, ok := rows.Scalar(v.Text)
	if !ok {
		return v, errors.New(`"` + p.name + `" is no number, true, false or null, as {+` + p.name + `} in the JSON body wants it`)
	}
	return scalar, nil
}
