package rules

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/canon"
)

const (
	maxShown = 20       // errors of one file that are told
	maxLine  = 64 << 10 // bytes; no rule needs more
	maxToken = 60       // bytes of a wrong token that its error repeats
)

// Parse reads a file of rules; name is what errors call it. The error joins those of all lines, each "NAME:LINE: …", but
// tells no more than 20; the Table is nil then.
func Parse(name string, r io.Reader) (*Table, error) {
	p := parser{name: name, lines: map[string]line{}, first: map[string]int{}}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		p.number++
		text := lines.Text()
		if p.number == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		p.parseLine(text)
	}
	switch err := lines.Err(); {
	case errors.Is(err, bufio.ErrTooLong):
		p.number++
		p.fail("the line is longer than %d KiB: a rule is a host and a few keys", maxLine>>10)
	case err != nil:
		p.errs = append(p.errs, fmt.Errorf("read %s: %w", name, err))
	}
	if more := p.wrong - maxShown; more > 0 {
		p.errs = append(p.errs, fmt.Errorf("%s: and %d more errors", name, more))
	}
	if len(p.errs) > 0 {
		return nil, errors.Join(p.errs...)
	}
	return newTable(p.lines), nil
}

type parser struct {
	name   string
	number int // of the line
	lines  map[string]line
	first  map[string]int // where a pattern stands
	errs   []error
	wrong  int // errors, those not told included
}

func (p *parser) fail(format string, args ...any) {
	p.wrong++
	if p.wrong <= maxShown {
		p.errs = append(p.errs, fmt.Errorf("%s:%d: %w", p.name, p.number, fmt.Errorf(format, args...)))
	}
}

func (p *parser) parseLine(text string) {
	tokens, err := split(text)
	if err != nil {
		p.fail("%w", err)
		return
	}
	if len(tokens) == 0 {
		return
	}
	pattern, err := parsePattern(tokens[0])
	if err != nil {
		p.fail("%w", err)
	}
	if len(tokens) == 1 {
		p.fail("%s: nothing is said about this host: write for example rate=1, delay=2s or blocked behind it", clip(tokens[0]))
	}
	var l line
	for _, token := range tokens[1:] {
		if err := l.parseKey(token); err != nil {
			p.fail("%w", err)
		}
	}
	if pattern == "" {
		return
	}
	if at, ok := p.first[pattern]; ok {
		p.fail("%s: this host has a rule on line %d already: write all its keys there", clip(tokens[0]), at)
		return
	}
	p.lines[pattern], p.first[pattern] = l, p.number
}

// blanks part the tokens of a line.
const blanks = " \t\r\v\f"

// split cuts a line into tokens at blanks outside quotes. A # that begins a token begins a comment.
func split(text string) ([]string, error) {
	var tokens []string
	for {
		text = strings.TrimLeft(text, blanks)
		if text == "" || text[0] == '#' {
			return tokens, nil
		}
		n, err := tokenLen(text)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, text[:n])
		text = text[n:]
	}
}

// tokenLen returns the length of the token that text begins with.
func tokenLen(text string) (int, error) {
	quoted := false
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case !quoted && strings.IndexByte(blanks, c) >= 0:
			return i, nil
		}
	}
	if quoted {
		return 0, fmt.Errorf("%s: the quote is not closed: write a \" at the end of the value", clip(text))
	}
	return len(text), nil
}

// parsePattern returns the one spelling of a host, a *.suffix or *.
func parsePattern(token string) (string, error) {
	if token == "*" {
		return token, nil
	}
	if name, ok := strings.CutPrefix(token, "*."); ok {
		return parseSuffix(token, name)
	}
	switch {
	case strings.Contains(token, "://"):
		return "", fmt.Errorf("%s: a rule is for a host, not for a URL: write the host alone", clip(token))
	case strings.ContainsRune(token, '*'):
		return "", fmt.Errorf("%s: a * stands alone, or for what comes before a suffix: write *.example.org", clip(token))
	case strings.ContainsRune(token, '='):
		return "", fmt.Errorf("%s: a line begins with a host: write the host, or * for all, before it", clip(token))
	}
	host, err := parseHost(token)
	if err != nil {
		return "", fmt.Errorf("%s: not a host (%w): write it as in a URL, example.org or example.org:8080", clip(token), err)
	}
	if name := nameOf(host); name != host && (strings.HasSuffix(host, ":443") || strings.HasSuffix(host, ":80")) {
		return "", fmt.Errorf("%s: ports 80 and 443 are left out: write %s", clip(token), name)
	}
	return host, nil
}

func parseSuffix(token, name string) (string, error) {
	host, err := parseHost("x." + name)
	if err != nil {
		return "", fmt.Errorf("%s: not a suffix of hosts (%w): write *.example.org", clip(token), err)
	}
	if nameOf(host) != host {
		return "", fmt.Errorf("%s: a suffix holds for every port: write *.%s", clip(token), strings.TrimPrefix(nameOf(host), "x."))
	}
	suffix, ok := strings.CutPrefix(host, "x.")
	if !ok || suffix == "" {
		return "", fmt.Errorf("%s: not a suffix of hosts: write *.example.org", clip(token))
	}
	return "*." + suffix, nil
}

var errNotHost = errors.New("it holds more than a name and a port")

// parseHost gives a host the spelling that canonical URLs give it, but for its final dot.
func parseHost(s string) (string, error) {
	if s == "" || strings.ContainsAny(s, "/\\?#@\"\x00") {
		return "", errNotHost
	}
	// Not http, not https: both leave their own port out, and which is meant here nobody said.
	u, err := canon.Parse("http://" + s)
	if err != nil {
		return "", err
	}
	host := u.Host
	if strings.HasSuffix(s, ":80") && !strings.HasSuffix(host, ":80") {
		host += ":80"
	}
	if name := nameOf(host); strings.HasSuffix(name, ".") {
		host, _ = undotted(host, name)
	}
	if strings.HasSuffix(nameOf(host), ".") || nameOf(host) == "" {
		return "", errNotHost
	}
	return host, nil
}

// clip makes what stands in a file fit for a message.
func clip(s string) string {
	more := ""
	if len(s) > maxToken {
		s, more = strings.ToValidUTF8(s[:maxToken], ""), "…"
	}
	if q := strconv.Quote(s); q[1:len(q)-1] != strings.ReplaceAll(s, `"`, `\"`) {
		return q + more
	}
	return s + more
}
