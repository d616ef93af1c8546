package robots

import (
	"bytes"
	"math"
	"strconv"
	"strings"
	"time"
)

// MaxCrawlDelay is the longest wait that a Crawl-delay line can ask for; a longer one is taken as this one.
const MaxCrawlDelay = 24 * time.Hour

// Parse reads a robots.txt. It knows no errors: a line that means nothing is passed over (RFC 9309 2.2), and field names are
// taken only as they are spelled, in any case. Of data that is longer than MaxBytes the rest is not looked at, nor is the line
// that the limit cuts: half a path would ask for something else than the whole one.
func Parse(data []byte) *File {
	text := strings.TrimPrefix(string(within(data)), "\uFEFF")
	p := parser{file: &File{}}
	for text != "" {
		// CR LF is read as two ends of line, the second of an empty line, which means nothing anywhere.
		end := strings.IndexAny(text, "\r\n")
		if end < 0 {
			p.line(text)
			break
		}
		p.line(text[:end])
		text = text[end+1:]
	}
	return p.file
}

// within returns the whole lines of data among its first MaxBytes.
func within(data []byte) []byte {
	if len(data) <= MaxBytes {
		return data
	}
	if next := data[MaxBytes]; next == '\r' || next == '\n' {
		return data[:MaxBytes]
	}
	return data[:bytes.LastIndexAny(data[:MaxBytes], "\r\n")+1]
}

// parser puts lines into the groups of a file.
type parser struct {
	file *File
	// naming is true from a user-agent line to the first line that belongs to its group: further agents join that group.
	naming bool
}

func (p *parser) line(line string) {
	line, _, _ = strings.Cut(line, "#")
	field, value, ok := strings.Cut(line, ":")
	if !ok {
		return
	}
	field, value = strings.Trim(field, blanks), strings.Trim(value, blanks)
	switch {
	case strings.EqualFold(field, "user-agent"):
		p.agent(agentOf(value))
	case strings.EqualFold(field, "allow"):
		p.rule(value, true)
	case strings.EqualFold(field, "disallow"):
		p.rule(value, false)
	case strings.EqualFold(field, "crawl-delay"):
		p.delay(value)
	case strings.EqualFold(field, "sitemap") && value != "":
		p.file.sitemaps = append(p.file.sitemaps, value)
	}
}

// blanks is RFC 9309's WS.
const blanks = " \t"

func (p *parser) agent(name string) {
	if !p.naming {
		p.file.groups = append(p.file.groups, group{})
	}
	p.naming = true
	g := &p.file.groups[len(p.file.groups)-1]
	g.agents = append(g.agents, name)
}

// group returns the group that a line other than user-agent belongs to, which ends its list of agents; nil before the first.
func (p *parser) group() *group {
	p.naming = false
	if len(p.file.groups) == 0 {
		return nil
	}
	return &p.file.groups[len(p.file.groups)-1]
}

// rule keeps an allow or disallow line. One without a path stands in the group and asks for nothing.
func (p *parser) rule(path string, allow bool) {
	if g := p.group(); g != nil && path != "" {
		g.rules = append(g.rules, rule{path: path, allow: allow})
	}
}

// delay keeps a Crawl-delay line; of several in a group, the longest wait counts.
func (p *parser) delay(value string) {
	g := p.group()
	if d, ok := parseDelay(value); ok && g != nil {
		g.delay = longer(g.delay, &d)
	}
}

// parseDelay reads a number of seconds, which may have a fraction; false where it is none, or negative.
func parseDelay(s string) (time.Duration, bool) {
	seconds, err := strconv.ParseFloat(s, 64)
	if err != nil && !math.IsInf(seconds, 1) { // a number too large to be held is infinite, and means a long wait
		return 0, false
	}
	if !(seconds >= 0) { // NaN too
		return 0, false
	}
	if seconds >= MaxCrawlDelay.Seconds() {
		return MaxCrawlDelay, true
	}
	return time.Duration(seconds * float64(time.Second)), true
}

// longer returns the longer of two waits, either of which may be missing.
func longer(a, b *time.Duration) *time.Duration {
	if a == nil || b != nil && *b > *a {
		return b
	}
	return a
}
