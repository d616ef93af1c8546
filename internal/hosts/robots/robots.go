// Package robots reads robots.txt files as RFC 9309 has them and says what they ask of a crawler.
//
// It promises that any bytes are read without error or panic, in time about linear in their number, that one address is decided
// without backtracking, and that no decision needs I/O. It does not fetch, keep or share anything, and it does not resolve
// addresses: what it is asked about is the path and query that would stand in the request line.
//
// A File is read once by Parse; For picks out of it what concerns one user agent; the Rules so found answer for each address.
// OfStatus and Lifetime say what the answer to a request for robots.txt means and how long it holds. Everything that is returned
// may be used by any number of goroutines at once.
package robots

import (
	"slices"
	"strings"
	"time"
)

// MaxBytes is how much of a file is looked at: 500 KiB, the least that RFC 9309 2.5 lets a crawler read. Whoever reads a body
// for Parse should read one byte more than this, so that a line that the limit cuts can be told from the last line of a file.
const MaxBytes = 500 << 10

// File is a robots.txt as it was read. The zero File, and a nil one, ask for nothing.
type File struct {
	groups   []group
	sitemaps []string
}

// group is a run of user-agent lines and what follows it up to the next such run (RFC 9309 2.1).
type group struct {
	agents []string // product tokens in lower case, or everyone
	rules  []rule
	delay  *time.Duration // nil where the group asks for none
}

// rule is an allow or disallow line as it was written.
type rule struct {
	path  string
	allow bool
}

// Sitemaps returns the values of the Sitemap lines, as written and in their order. They belong to no group.
func (f *File) Sitemaps() []string {
	if f == nil {
		return nil
	}
	return slices.Clone(f.sitemaps)
}

// For returns what the file asks of userAgent, which is a User-Agent header ("fetchfleet/1.2 (+https://example.org)") or a
// product token ("fetchfleet"). All groups that name the token are taken as one; only where there is none do those of "*" count,
// and where these are missing too nothing is asked (RFC 9309 2.2.1). The Rules are never nil.
//
// Tokens are letters, "_" and "-": an agent that calls itself "bot2" is known, in the file and here, as "bot".
func (f *File) For(userAgent string) *Rules {
	if f == nil {
		return &Rules{}
	}
	if token := productToken(userAgent); token != "" {
		if named := f.naming(token); len(named) > 0 {
			return merge(named)
		}
	}
	return merge(f.naming(everyone))
}

// naming returns the groups one of whose lines names agent.
func (f *File) naming(agent string) []group {
	var found []group
	for _, g := range f.groups {
		if slices.Contains(g.agents, agent) {
			found = append(found, g)
		}
	}
	return found
}

// everyone is the agent of a "User-agent: *" line.
const everyone = "*"

// agentOf reads the value of a user-agent line: everyone, a product token in lower case, or "" for one that can name nobody.
func agentOf(value string) string {
	if rest, ok := strings.CutPrefix(value, everyone); ok && (rest == "" || rest[0] == ' ' || rest[0] == '\t') {
		return everyone
	}
	return productToken(value)
}

// productToken returns, in lower case, what s begins with in the alphabet of RFC 9309's product tokens.
func productToken(s string) string {
	end := 0
	for end < len(s) && (isLetter(s[end]) || s[end] == '_' || s[end] == '-') {
		end++
	}
	return strings.ToLower(s[:end])
}

func isLetter(c byte) bool { return 'a' <= c|0x20 && c|0x20 <= 'z' }
