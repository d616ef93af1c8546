package template

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/rows"
)

// piece is a stretch of a template: text as it is, or the name of a variable.
type piece struct {
	text string
	name string // "" = text
	raw  bool   // {+name}: in JSON the value stands for itself
	ref  bool   // text is a reference to a secret, ${env:…}
}

// Text is text with {name} in it. "{{" and "}}" stand for braces.
type Text struct{ pieces []piece }

// ParseText reads a template. A brace that belongs to nothing is an error that says how to write one.
func ParseText(text string) (*Text, error) {
	pieces, err := parse(text, false)
	return &Text{pieces}, err
}

// ParseHeader is ParseText for the value of a header, where references to secrets (${env:…}, ${file:…}) stay as they
// are, and no value of a row can become one.
func ParseHeader(text string) (*Text, error) {
	pieces, err := parse(text, true)
	return &Text{pieces}, err
}

func parse(text string, references bool) (pieces []piece, err error) {
	var literal strings.Builder
	flush := func() {
		if literal.Len() > 0 {
			pieces = append(pieces, piece{text: literal.String()})
			literal.Reset()
		}
	}
	for text != "" {
		if n := reference(text); references && n > 0 {
			flush()
			pieces = append(pieces, piece{text: text[:n], ref: true})
			text = text[n:]
			continue
		}
		switch c := text[0]; {
		case strings.HasPrefix(text, "{{"), strings.HasPrefix(text, "}}"):
			literal.WriteByte(c)
			text = text[2:]
		case c == '}':
			return nil, errors.New(`a "}" that closes nothing: write }} for a brace`)
		case c == '{':
			name, rest, ok := strings.Cut(text[1:], "}")
			if !ok {
				return nil, errors.New(`a "{" that is never closed: write {{ for a brace`)
			}
			p, err := placeholder(name)
			if err != nil {
				return nil, err
			}
			flush()
			pieces = append(pieces, p)
			text = rest
		default:
			literal.WriteByte(c)
			text = text[1:]
		}
	}
	flush()
	return pieces, nil
}

// placeholder reads what stands between braces.
func placeholder(inside string) (piece, error) {
	name, raw := strings.CutPrefix(inside, "+")
	if name == "" || strings.ContainsAny(name, "{\"\n") || strings.TrimSpace(name) != name {
		return piece{}, fmt.Errorf("{%.60s} names no column: write {name}, and {{ for a brace", inside)
	}
	return piece{name: name, raw: raw}, nil
}

// reference returns how long the reference to a secret is that text begins with, or its escape "$${".
func reference(text string) int {
	if strings.HasPrefix(text, "$${") {
		return len("$${")
	}
	if strings.HasPrefix(text, "${env:") || strings.HasPrefix(text, "${file:") {
		return strings.IndexByte(text, '}') + 1
	}
	return 0
}

// Constant reports whether no row changes anything.
func (t *Text) Constant() bool { return len(t.Names()) == 0 }

// Names are the variables.
func (t *Text) Names() []string { return names(t.pieces) }

func names(pieces []piece) (out []string) {
	for _, p := range pieces {
		if p.name != "" && !slices.Contains(out, p.name) {
			out = append(out, p.name)
		}
	}
	return out
}

// Expand puts a row's values in. One that is undefined is an error that names it; an empty one is not.
func (t *Text) Expand(row *rows.Row) (string, error) {
	var b strings.Builder
	for _, p := range t.pieces {
		text, err := p.expand(row)
		if err != nil {
			return "", err
		}
		b.WriteString(text)
	}
	return b.String(), nil
}

// ExpandHeader is Expand for what ParseHeader read: "${" that comes of the row is escaped, as "$${".
func (t *Text) ExpandHeader(row *rows.Row) (string, error) {
	var b, data strings.Builder
	flush := func() {
		b.WriteString(strings.ReplaceAll(data.String(), "${", "$${"))
		data.Reset()
	}
	for _, p := range t.pieces {
		if p.ref {
			flush()
			b.WriteString(p.text)
			continue
		}
		text, err := p.expand(row)
		if err != nil {
			return "", err
		}
		data.WriteString(text)
	}
	flush()
	return b.String(), nil
}

func (p *piece) expand(row *rows.Row) (string, error) {
	if p.name == "" {
		return p.text, nil
	}
	v, ok := row.Get(p.name)
	if !ok {
		return "", missing(p.name)
	}
	return v.Text, nil
}
