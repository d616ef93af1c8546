// Package rules reads the site policy that the operator of a fleet keeps in a file: which hosts are asked faster, slower,
// under another name, or not at all.
//
// A line is a rule: a host, then what holds for it.
//
//	# comments and empty lines are left out
//	example.org           rate=1 burst=2 conns=1
//	*.example.org         delay=2s agent="friendly-bot/1.0 (+https://bot.example)"
//	api.partner.com:8443  rate=100 conns=32 robots=ignore
//	*.bad.example         blocked
//	*                     conns=2
//
// The host is one as in a canonical URL (canon.URL's Host): with a port only when that is not its scheme's own. An exact
// host holds for that port alone, *.suffix for every name below suffix at any depth and on any port, * for all. Of two
// rules that hold for a host the more specific one wins, key by key: exact before the longest suffix before *.
//
// The package promises that a file is taken whole or not at all, that all its errors are reported at once, each with line
// and remedy, and that asking for a host costs no more with a million rules than with ten. It does not apply the rules.
package rules

import (
	"maps"
	"slices"
	"strings"
	"time"
)

// Rule is what holds for one host. The zero Rule asks for nothing. Rules share what their pointers point to: it is not to
// be changed.
type Rule struct {
	Rate   *float64      // requests per second, MinRate to MaxRate, 0 = no limit; nil: not named
	Burst  *int          // requests that may go at once after a pause, 1 to MaxCount; nil: not named
	Conns  *int          // requests in service at once, up to MaxCount, 0 = no limit; nil: not named
	Delay  time.Duration // the least time between two requests, up to MaxDelay; 0: none
	Agent  string        // the User-Agent header; "": the job's own
	Robots string        // Obey or Ignore; "": not named
	// Blocked says that nothing is to be asked of the host.
	Blocked bool
}

// What Rule.Robots may be, beside "".
const (
	Obey   = "obey"
	Ignore = "ignore"
)

// The bounds of what a rule may ask for. A request a day is slow enough for anybody, and a typing error of some zeros is
// not to stop a host for years.
const (
	MaxRate  = 1e6            // requests per second
	MinRate  = 1e-5           // requests per second, about one in 28 hours; 0 beside it means no limit
	MaxDelay = 24 * time.Hour // between two requests
	MaxCount = 1_000_000      // of burst and conns
)

// Pace returns the rate (requests per second, 0 = no limit) and the burst that r asks for, where it names none those given.
// A Delay is a rate of one request in that time without a burst; the stricter of Rate and Delay holds.
func (r Rule) Pace(rate float64, burst int) (float64, int) {
	if r.Rate != nil {
		rate = *r.Rate
	}
	if r.Burst != nil {
		burst = *r.Burst
	}
	if r.Delay == 0 {
		return rate, burst
	}
	if most := float64(time.Second) / float64(r.Delay); rate == 0 || rate > most {
		rate = most
	}
	return rate, 1
}

// line is one rule as written: which keys it names, and with what.
type line struct {
	named keys
	rule  Rule
}

// keys is a set of them.
type keys uint8

const (
	keyRate keys = 1 << iota
	keyBurst
	keyConns
	keyDelay
	keyAgent
	keyRobots
	keyBlocked
)

// over returns below with what l names put over it.
func (l line) over(below Rule) Rule {
	r := below
	if l.named&keyRate != 0 {
		r.Rate = l.rule.Rate
	}
	if l.named&keyBurst != 0 {
		r.Burst = l.rule.Burst
	}
	if l.named&keyConns != 0 {
		r.Conns = l.rule.Conns
	}
	if l.named&keyDelay != 0 {
		r.Delay = l.rule.Delay
	}
	if l.named&keyAgent != 0 {
		r.Agent = l.rule.Agent
	}
	if l.named&keyRobots != 0 {
		r.Robots = l.rule.Robots
	}
	if l.named&keyBlocked != 0 {
		r.Blocked = l.rule.Blocked
	}
	return r
}

// Table is a file of rules. It does not change; a nil Table has no rules.
type Table struct {
	lines map[string]line // as written, by pattern, for String

	// What holds, the less specific rules already under each: one lookup finds all.
	exact  map[string]Rule
	suffix map[string]Rule // by what follows "*."
	all    Rule
}

func newTable(lines map[string]line) *Table {
	t := &Table{lines: lines, exact: map[string]Rule{}, suffix: map[string]Rule{}}
	t.all = lines["*"].over(Rule{})
	var suffixes []string
	for pattern := range lines {
		if name, ok := strings.CutPrefix(pattern, "*."); ok {
			suffixes = append(suffixes, name)
		}
	}
	// The shorter ones first, because the longer ones lie over them.
	slices.SortFunc(suffixes, func(a, b string) int { return len(a) - len(b) })
	for _, name := range suffixes {
		t.suffix[name] = lines["*."+name].over(t.below(name))
	}
	for pattern, l := range lines {
		if pattern[0] != '*' {
			t.exact[pattern] = l.over(t.below(nameOf(pattern)))
		}
	}
	return t
}

// For returns what holds for host, which is spelt as in canon.URL's Host. A final dot of its name makes no difference,
// so that nobody escapes a rule by it. It allocates nothing otherwise.
func (t *Table) For(host string) Rule {
	if t == nil {
		return Rule{}
	}
	name := nameOf(host)
	if strings.HasSuffix(name, ".") {
		host, name = undotted(host, name)
	}
	if r, ok := t.exact[host]; ok {
		return r
	}
	return t.below(name)
}

// below returns what holds for name when no rule is for it alone.
func (t *Table) below(name string) Rule {
	if len(t.suffix) == 0 || name == "" || name[0] == '[' {
		return t.all
	}
	for {
		dot := strings.IndexByte(name, '.')
		if dot < 0 {
			return t.all
		}
		name = name[dot+1:]
		if r, ok := t.suffix[name]; ok {
			return r
		}
	}
}

// nameOf returns host without its port.
func nameOf(host string) string {
	if colon := strings.LastIndexByte(host, ':'); colon > strings.LastIndexByte(host, ']') {
		return host[:colon]
	}
	return host
}

// undotted takes the final dot off name, and off host, which begins with it.
func undotted(host, name string) (string, string) {
	short := strings.TrimSuffix(name, ".")
	return short + host[len(name):], short
}

// Len returns the number of rules.
func (t *Table) Len() int {
	if t == nil {
		return 0
	}
	return len(t.lines)
}

// String returns the rules as a file that Parse reads as the same Table: sorted, one spelling for each.
func (t *Table) String() string {
	if t == nil {
		return ""
	}
	var b strings.Builder
	for _, pattern := range slices.Sorted(maps.Keys(t.lines)) {
		b.WriteString(pattern)
		t.lines[pattern].write(&b)
		b.WriteByte('\n')
	}
	return b.String()
}
