// Package template makes the parts of a request out of a row: URLs by RFC 6570, and text and JSON with {name} in them.
//
// It promises that a row's values cannot change the structure of what they are put into: in a URL they are
// percent-encoded as RFC 6570 says, in JSON they are escaped, and in a header they cannot refer to secrets. Whether the
// result is a URL, or a value that a header may have, is the caller's to check.
package template

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/fetchfleet/fetchfleet/internal/payload"
	"github.com/fetchfleet/fetchfleet/internal/rows"
)

// URL is a URI template (RFC 6570). Values are text, so of its level 4 there are prefixes ({x:3}), and {x*} is {x}.
type URL struct{ parts []part }

// part is literal text, or an expression.
type part struct {
	text string
	op   *operator // nil = text
	vars []variable
}

// variable is one of an expression.
type variable struct {
	name   string
	prefix int // characters at most; 0 = all
}

// operator is a row of the table in RFC 6570, appendix A.
type operator struct {
	char       byte // 0 = none
	first, sep string
	named      bool
	ifEmpty    string // behind the name of an empty value
	reserved   bool   // reserved characters stay as they are
	needed     bool   // an undefined variable leaves a hole: the others bring a separator, which goes with them
}

var operators = []operator{
	{char: 0, sep: ",", needed: true},
	{char: '+', sep: ",", reserved: true, needed: true},
	{char: '#', first: "#", sep: ",", reserved: true},
	{char: '.', first: ".", sep: "."},
	{char: '/', first: "/", sep: "/"},
	{char: ';', first: ";", sep: ";", named: true},
	{char: '?', first: "?", sep: "&", named: true, ifEmpty: "="},
	{char: '&', first: "&", sep: "&", named: true, ifEmpty: "="},
}

// ParseURL reads a template.
func ParseURL(text string) (*URL, error) {
	text = strings.TrimSpace(text)
	if text == "" {
		return nil, errors.New("the template is empty")
	}
	u := &URL{}
	for rest := text; rest != ""; {
		literal, after, open := strings.Cut(rest, "{")
		if i := strings.IndexFunc(literal, func(r rune) bool { return r <= ' ' || r == '}' || r == 0x7f }); i >= 0 {
			return nil, fmt.Errorf("%q stands in it unescaped (RFC 6570 section 2.1)", literal[i])
		}
		if literal != "" {
			u.parts = append(u.parts, part{text: literal})
		}
		if !open {
			break
		}
		inside, after, ok := strings.Cut(after, "}")
		if !ok {
			return nil, errors.New(`a "{" is never closed`)
		}
		p, err := expression(inside)
		if err != nil {
			return nil, fmt.Errorf("{%.60s}: %w", inside, err)
		}
		u.parts = append(u.parts, p)
		rest = after
	}
	return u, nil
}

// expression reads what stands between braces (RFC 6570, section 2.2).
func expression(inside string) (part, error) {
	p := part{op: &operators[0]}
	for i := range operators[1:] {
		if inside != "" && inside[0] == operators[i+1].char {
			p.op, inside = &operators[i+1], inside[1:]
			break
		}
	}
	for spec := range strings.SplitSeq(inside, ",") {
		name, digits, prefixed := strings.Cut(strings.TrimSuffix(spec, "*"), ":")
		v := variable{name: name}
		if prefixed {
			n, err := strconv.Atoi(digits)
			if err != nil || n < 1 || n > 9999 || strings.HasSuffix(spec, "*") {
				return p, errors.New("a prefix is a number from 1 to 9999, as in {name:3}")
			}
			v.prefix = n
		}
		if !isVarname(name) {
			return p, fmt.Errorf("%.60q is no name of a variable: letters, digits, underscores, and dots between them", name)
		}
		p.vars = append(p.vars, v)
	}
	return p, nil
}

func isVarname(name string) bool {
	for word := range strings.SplitSeq(name, ".") {
		if word == "" {
			return false
		}
		for i := 0; i < len(word); i++ {
			switch c := word[i]; {
			case isTriplet(word[i:]):
				i += 2
			case !isAlphanumeric(c) && c != '_':
				return false
			}
		}
	}
	return true
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
}

// isTriplet reports whether s begins with a percent-encoded byte.
func isTriplet(s string) bool {
	return len(s) > 2 && s[0] == '%' && isHex(s[1]) && isHex(s[2])
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

// Names are the variables of the template.
func (u *URL) Names() (names []string) {
	for _, p := range u.parts {
		for _, v := range p.vars {
			if !slices.Contains(names, v.name) {
				names = append(names, v.name)
			}
		}
	}
	return names
}

// Expand puts a row's values in. A variable of {x} or {+x} that is undefined or empty is an error that names it; those of
// the other operators are left out when undefined, as RFC 6570 section 3.2.1 has it.
func (u *URL) Expand(row *rows.Row) (string, error) {
	var err error
	b := make([]byte, 0, 128)
	for i := range u.parts {
		p := &u.parts[i]
		if p.op == nil {
			b = append(b, p.text...)
		} else if b, err = p.expand(b, row); err != nil {
			return "", err
		}
	}
	return string(b), nil
}

func (p *part) expand(b []byte, row *rows.Row) ([]byte, error) {
	separator := p.op.first
	for _, v := range p.vars {
		value, ok := row.Get(v.name)
		switch {
		case !ok && p.op.needed:
			return b, missing(v.name)
		case !ok:
			continue
		case value.Text == "" && p.op.needed:
			return b, fmt.Errorf("%.60q is empty, and the URL needs it", v.name)
		case !utf8.ValidString(value.Text):
			return b, fmt.Errorf("%.60q is not UTF-8", v.name)
		}
		b = append(b, separator...)
		separator = p.op.sep
		if p.op.named {
			b = append(b, v.name...)
			if value.Text == "" {
				b = append(b, p.op.ifEmpty...)
				continue
			}
			b = append(b, '=')
		}
		text := firstOf(value.Text, v.prefix)
		if p.op.reserved {
			b = appendReserved(b, text)
		} else {
			b = payload.AppendEscaped(b, text)
		}
	}
	return b, nil
}

// firstOf returns the first n characters of s, all if n is 0.
func firstOf(s string, n int) string {
	if n == 0 {
		return s
	}
	for i := range s {
		if n == 0 {
			return s[:i]
		}
		n--
	}
	return s
}

// appendReserved appends s with reserved characters and percent-encoded bytes as they are (RFC 6570, section 3.2.3).
func appendReserved(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; strings.IndexByte(":/?#[]@!$&'()*+,;=", c) >= 0 || isTriplet(s[i:]) {
			b = append(b, c)
		} else {
			b = payload.AppendEscaped(b, s[i:i+1])
		}
	}
	return b
}

func missing(name string) error { return fmt.Errorf("there is no %.60q in this row", name) }
