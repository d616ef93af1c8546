package export

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Filter says which records are wanted. The zero Filter wants every one.
type Filter struct{ terms []term }

// term is one condition.
type term struct {
	field field
	op    string
	given []string // values; more than one for = and != alone
	holds func(value) bool
}

// ParseFilter reads conditions that must all hold: a field, one of = != < <= > >= ~, and a value.
//
// = and != take several values with commas between them, of which one (or none) must be the record's; in fields whose
// values may hold a comma (URLs, headers, meta) the comma is part of the value. No value means that the record has none:
// "status=". The comparisons are for numbers and times; header.NAME and meta.KEY are compared as numbers, where they are.
// A time is RFC 3339 or a date, which stands for the whole day in UTC. ~ is an RE2 regular expression that need not cover
// the whole text. A record without the field meets != and nothing else.
//
// The error names what is wrong and what there is; nothing is read for it.
func ParseFilter(conditions ...string) (Filter, error) {
	var f Filter
	for _, c := range conditions {
		t, err := parseTerm(c)
		if err != nil {
			return Filter{}, fmt.Errorf("%.200q: %w", c, err)
		}
		f.terms = append(f.terms, t)
	}
	return f, nil
}

// Match reports whether a record is wanted.
func (f Filter) Match(r *store.Record) bool {
	for i := range f.terms {
		if !f.terms[i].holds(f.terms[i].field.of(r)) {
			return false
		}
	}
	return true
}

// String is the filter as ParseFilter reads it, its conditions joined by " and ".
func (f Filter) String() string {
	parts := make([]string, len(f.terms))
	for i := range f.terms {
		parts[i] = f.terms[i].String()
	}
	return strings.Join(parts, " and ")
}

// String is the term as it was given.
func (t *term) String() string { return t.field.name + t.op + strings.Join(t.given, ",") }

// operators are tried in this order where one may begin.
var operators = []string{"!=", "<=", ">=", "=", "<", ">", "~"}

func parseTerm(s string) (term, error) {
	at := strings.IndexAny(s, "!<>=~")
	if at < 0 {
		return term{}, fmt.Errorf("no condition: write FIELD=VALUE, or one of != < <= > >= ~ between them")
	}
	i := slices.IndexFunc(operators, func(op string) bool { return strings.HasPrefix(s[at:], op) })
	if i < 0 {
		return term{}, fmt.Errorf("no operator at %.20q: there are = != < <= > >= ~", s[at:])
	}
	f, err := fieldNamed(strings.TrimSpace(s[:at]))
	if err != nil {
		return term{}, err
	}
	t := term{field: f, op: operators[i], given: []string{strings.TrimSpace(s[at+len(operators[i]):])}}
	t.holds, err = t.compile()
	return t, err
}

// compile makes the test of a term.
func (t *term) compile() (func(value) bool, error) {
	switch t.op {
	case "=", "!=":
		if err := t.split(); err != nil {
			return nil, err
		}
		is, err := t.anyOf()
		if err != nil || t.op == "=" {
			return is, err
		}
		return func(v value) bool { return !is(v) }, nil
	case "~":
		return t.matches()
	}
	return t.compares()
}

// split reads the several values of = and !=.
func (t *term) split() error {
	if t.field.comma || t.field.kind == document || t.given[0] == "" {
		return nil
	}
	t.given = strings.Split(t.given[0], ",")
	for i, v := range t.given {
		t.given[i] = strings.TrimSpace(v)
		if t.given[i] == "" {
			return fmt.Errorf("an empty entry; write %s%s%s", t.field.name, t.op, "ONE,OTHER")
		}
	}
	return nil
}

func (t *term) anyOf() (func(value) bool, error) {
	tests := make([]func(value) bool, len(t.given))
	for i, given := range t.given {
		var err error
		if tests[i], err = t.field.is(given); err != nil {
			return nil, err
		}
	}
	if len(tests) == 1 {
		return tests[0], nil
	}
	return func(v value) bool {
		return slices.ContainsFunc(tests, func(is func(value) bool) bool { return is(v) })
	}, nil
}

// is tests for one value.
func (f *field) is(given string) (func(value) bool, error) {
	if given == "" && (f.optional || f.kind == text && f.choices == nil || f.kind == document || f.kind == loose) {
		return func(v value) bool { return v.kind == none || v.kind == text && v.text == "" }, nil
	}
	if f.choices != nil && !slices.Contains(f.choices, given) {
		return nil, fmt.Errorf("%.80q is no %s; there are %s", given, f.name, strings.Join(f.choices, ", "))
	}
	switch f.kind {
	case number:
		n, err := parseNumber(given)
		return func(v value) bool { return v.kind == number && v.number == n }, err
	case instant:
		from, to, err := parseTime(given)
		return func(v value) bool { return !v.at.Before(from) && v.at.Before(to) }, err
	case boolean:
		if given != "true" && given != "false" {
			return nil, fmt.Errorf("%.80q: %s is true or false", given, f.name)
		}
		return func(v value) bool { return v.yes == (given == "true") }, nil
	}
	if f.norm != nil {
		given = f.norm(given)
	}
	if f.equal != nil {
		return func(v value) bool { return v.kind == text && f.equal(v.text, given) }, nil
	}
	return func(v value) bool { return v.kind != none && v.text == given }, nil
}

// matches tests text against a regular expression.
func (t *term) matches() (func(value) bool, error) {
	switch t.field.kind {
	case text, document, loose:
	default:
		return nil, fmt.Errorf("%s is no text: compare it with = != < <= > >=", t.field.name)
	}
	pattern, err := regexp.Compile(t.given[0])
	if err != nil {
		return nil, fmt.Errorf("no RE2 regular expression: %w", err)
	}
	return func(v value) bool { return v.kind != none && pattern.MatchString(v.text) }, nil
}

// compares tests which of two is greater.
func (t *term) compares() (func(value) bool, error) {
	less, orSame := t.op[0] == '<', len(t.op) == 2
	switch t.field.kind {
	case number, loose:
		than, err := parseNumber(t.given[0])
		return func(v value) bool {
			n, ok := v.asNumber()
			return ok && (less && n < than || !less && n > than || orSame && n == than)
		}, err
	case instant:
		from, to, err := parseTime(t.given[0]) // a day has a length: what is in it is neither before nor after it
		return func(v value) bool {
			before, after := v.at.Before(from), !v.at.Before(to)
			return less && before || !less && after || orSame && !before && !after
		}, err
	}
	return nil, fmt.Errorf("%s is no number and no time: compare it with = != ~", t.field.name)
}

// asNumber is the number that a value is, or that its text says.
func (v value) asNumber() (float64, bool) {
	if v.kind == number {
		return v.number, true
	}
	n, err := parseNumber(strings.TrimSpace(v.text))
	return n, v.kind == text && err == nil
}

// parseNumber reads a decimal number: no hexadecimal, no infinity.
func parseNumber(s string) (float64, error) {
	n, err := strconv.ParseFloat(s, 64)
	if err != nil || strings.Trim(s, "+-.eE0123456789") != "" {
		return 0, fmt.Errorf("%.80q is no number", s)
	}
	return n, nil
}

// parseTime reads a time, or a date for its whole day. The time meant is from from until before to.
func parseTime(s string) (from, to time.Time, err error) {
	if day, err := time.Parse(time.DateOnly, s); err == nil {
		return day, day.AddDate(0, 0, 1), nil
	}
	if from, err = time.Parse(time.RFC3339Nano, s); err == nil {
		return from, from.Add(1), nil
	}
	return from, to, fmt.Errorf("%.80q is no time: write a date like 2006-01-02, or RFC 3339 like 2006-01-02T15:04:05Z", s)
}
