package robots

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzParse asks that any bytes are read, that robots.txt stays allowed, and that a file says the same with any ends of line.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", "User-agent: *\nDisallow: /\n", "\xef\xbb\xbfuser-agent:a\r\nuser-agent : b\r\ndisallow: /*.gif$ # gif\r\n",
		"Disallow: /x\rUser-agent: fetchfleet/1\rAllow: /a%2f\xff?b\rCrawl-delay: 1e400\r", "Sitemap: a\n\r\n:\n#\nuser-agent:*\nDisallow:**$$",
		"User-agent: *\nDisallow: /robots.txt\nDisallow: /r*t$\nCrawl-delay: -0x1p-2",
	} {
		f.Add([]byte(seed), "fetchfleet/1.0", "/a?b")
	}
	f.Fuzz(func(t *testing.T, data []byte, agent, target string) {
		file := Parse(data)
		rules := file.For(agent)
		if !rules.Allowed("/robots.txt") {
			t.Error("/robots.txt is disallowed")
		}
		rules.Allowed(target)
		if d, ok := rules.CrawlDelay(); d < 0 || d > MaxCrawlDelay || !ok && d != 0 {
			t.Errorf("CrawlDelay = %v, %v", d, ok)
		}
		if 2*len(data) > MaxBytes {
			return // other ends would have another line cut
		}
		lf := strings.NewReplacer("\r\n", "\n", "\r", "\n").Replace(string(data))
		for _, end := range []string{"\n", "\r", "\r\n"} {
			again := Parse([]byte(strings.ReplaceAll(lf, "\n", end)))
			if diff := cmp.Diff(file, again, cmp.AllowUnexported(File{}, group{}, rule{})); diff != "" {
				t.Errorf("lines that end with %q say something else:\n%s", end, diff)
			}
		}
	})
}

// FuzzAllowed compares the decision with that of regular expressions. The lines of rules are patterns, of which those that begin
// with "+" allow.
func FuzzAllowed(f *testing.F) {
	for _, seed := range [][2]string{
		{"/a\n+/a", "/a"}, {"/*b*c$\n+/a*", "/abxc"}, {"/a$b\n/a$$", "/a$b"}, {"+/%7e*\n/~a%2f", "/%7Ea%2Fb"}, {"/a?u=http://\n+/a", "/a?u=http%3A%2F%2F"},
		{"/*?a:b\n+/*%3a", "/x?a:b"}, {"/*/x?y", "/a?u=/x?y"}, {"/é*\n+/%C3", "/%c3%a9"}, {"*\n$\nb\n+*$", "b"}, {"/*aba*bab", "/ababab"}, {"/%\n/%%32%35", "/%25"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, lines, target string) {
		if len(lines) > 200 || len(target) > 200 || strings.ContainsAny(lines, "\r#") {
			t.Skip()
		}
		var rules []rule
		file := "User-agent: *\n"
		for line := range strings.SplitSeq(lines, "\n") {
			path, allow := strings.CutPrefix(line, "+")
			path = strings.Trim(path, " \t")
			rules = append(rules, rule{path, allow})
			file += fmt.Sprintf("%s: %s\n", map[bool]string{true: "Allow", false: "Disallow"}[allow], path)
		}
		got := Parse([]byte(file)).For("fetchfleet").Allowed(target)
		if want := naiveAllowed(rules, target); got != want {
			t.Errorf("Allowed(%q) = %v, want %v, by\n%s", target, got, want, file)
		}
	})
}

// naiveAllowed looks at every rule and keeps the weightiest, allow before disallow.
func naiveAllowed(rules []rule, target string) bool {
	if !strings.HasPrefix(target, "/") {
		target = "/" + target
	}
	target = naiveOctets(target, `[*$]`)
	best, allow := 0, true
	for _, r := range rules {
		weight, ok := naiveMatch(r.path, target)
		if !ok || target == "/robots.txt" {
			continue
		}
		if weight > best || weight == best && r.allow {
			best, allow = weight, r.allow
		}
	}
	return allow
}

// naiveMatch matches as the octets stand, or, where no star comes before the query of the path, as a query's values are encoded.
func naiveMatch(path, target string) (weight int, ok bool) {
	if path == "" {
		return 0, false
	}
	body, end := strings.CutSuffix(path, "$")
	body = naiveOctets(body, `[$]`)
	encoded := naiveQuery(body)
	ok = naiveExpr(body, end).MatchString(target)
	if before, _, _ := strings.Cut(body, "?"); !strings.Contains(before, "*") {
		ok = ok || naiveExpr(encoded, end).MatchString(naiveQuery(target))
	}
	return len(encoded) + len(path) - len(strings.TrimSuffix(path, "$")), ok
}

func naiveExpr(body string, end bool) *regexp.Regexp {
	expr := "(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(body), `\*`, ".*")
	if end {
		expr += "$"
	}
	return regexp.MustCompile(expr)
}

var (
	escape  = regexp.MustCompile(`%[0-9A-Fa-f]{2}`)
	letter  = regexp.MustCompile(`^[A-Za-z0-9._~-]$`)
	address = regexp.MustCompile(`^[][A-Za-z0-9._~:/?#@!$&'()*+,;=%-]$`)
)

// naiveOctets brings the spellings of a path together; octets of the class special are encoded too.
func naiveOctets(path, special string) string {
	class, out := regexp.MustCompile(special), ""
	for path != "" {
		var c byte
		if loc := escape.FindStringIndex(path); loc != nil && loc[0] == 0 {
			fmt.Sscanf(path[1:3], "%x", &c)
			path = path[3:]
			if letter.MatchString(string(rune(c))) {
				out += string(rune(c))
			} else {
				out += fmt.Sprintf("%%%02X", c)
			}
			continue
		}
		c, path = path[0], path[1:]
		if c < 0x80 && address.MatchString(string(rune(c))) && !class.MatchString(string(rune(c))) {
			out += string(rune(c))
		} else {
			out += fmt.Sprintf("%%%02X", c)
		}
	}
	return out
}

func naiveQuery(path string) string {
	before, query, ok := strings.Cut(path, "?")
	if !ok {
		return path
	}
	return before + "?" + strings.NewReplacer(":", "%3A", "/", "%2F", "@", "%40", "[", "%5B", "]", "%5D").Replace(query)
}
