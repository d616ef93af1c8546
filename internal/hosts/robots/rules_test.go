package robots

import (
	"strings"
	"sync"
	"testing"
)

// decision is one claim of a table: a file, who asks (fetchfleet, where it is left out), for what, and what is answered.
type decision struct {
	name   string
	file   string
	agent  string
	target string
	want   bool
}

func check(t *testing.T, tests []decision) {
	t.Helper()
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.agent == "" {
				tt.agent = "fetchfleet"
			}
			if got := Parse([]byte(tt.file)).For(tt.agent).Allowed(tt.target); got != tt.want {
				t.Errorf("%s asks for %s: allowed = %v, want %v, by\n%s", tt.agent, tt.target, got, tt.want, tt.file)
			}
		})
	}
}

// all is a file that says these lines to everyone.
func all(lines ...string) string { return "User-agent: *\n" + strings.Join(lines, "\n") + "\n" }

func TestExamplesOfSection5(t *testing.T) {
	const simple = `User-Agent: *
Disallow: *.gif$
Disallow: /example/
Allow: /publications/

User-Agent: foobot
Disallow:/
Allow:/example/page.html
Allow:/example/allowed.gif

User-Agent: barbot
User-Agent: bazbot
Disallow: /example/page.html

User-Agent: quxbot
`
	longest := "User-Agent: foobot\nAllow: /example/page/\nDisallow: /example/page/disallowed.gif\n"
	check(t, []decision{
		{"anyone may not fetch a gif", simple, "", "/a/b.gif", false},
		{"anyone may fetch what only begins like a gif", simple, "", "/a/b.gif?c", true},
		{"anyone may not fetch below example", simple, "", "/example/x", false},
		{"anyone may fetch below publications", simple, "", "/publications/x", true},
		{"of publications and gif the longer one wins", simple, "", "/publications/x.gif", true},
		{"anyone may fetch what no rule matches", simple, "", "/other", true},
		{"foobot may fetch the page it is allowed", simple, "foobot", "/example/page.html", true},
		{"foobot may fetch the gif it is allowed", simple, "foobot", "/example/allowed.gif", true},
		{"foobot may fetch nothing else", simple, "foobot", "/publications/", false},
		{"barbot shares its group with bazbot", simple, "barbot", "/example/page.html", false},
		{"bazbot shares its group with barbot", simple, "bazbot", "/example/page.html", false},
		{"barbot does not obey the group of everyone", simple, "barbot", "/example/x.gif", true},
		{"quxbot's empty group asks for nothing", simple, "quxbot", "/example/page.html", true},
		{"the longer disallow beats the shorter allow", longest, "foobot", "/example/page/disallowed.gif", false},
		{"the shorter allow holds beside it", longest, "foobot", "/example/page/other.gif", true},
	})
}

func TestPrecedence(t *testing.T) {
	check(t, []decision{
		{"allow wins a tie, written last", all("Disallow: /a", "Allow: /a"), "", "/a", true},
		{"allow wins a tie, written first", all("Allow: /a", "Disallow: /a"), "", "/a", true},
		{"allow wins a tie of wild patterns", all("Disallow: /*b", "Allow: /a*"), "", "/ab", true},
		{"allow wins a tie of wild and plain", all("Disallow: /*c", "Allow: /ab"), "", "/abc", true},
		{"allow wins a tie of plain and wild", all("Disallow: /ab", "Allow: /*c"), "", "/abc", true},
		{"a tie is between the patterns that match", all("Disallow: /ab", "Allow: /*d"), "", "/abc", false},
		{"a longer plain disallow beats a wild allow", all("Allow: /*", "Disallow: /abc"), "", "/abcd", false},
		{"a longer wild disallow beats a plain allow", all("Allow: /ab", "Disallow: /*d$"), "", "/abcd", false},
		{"the end counts as an octet", all("Allow: /abc", "Disallow: /abc$"), "", "/abc", false},
		{"order does not matter", all("Disallow: /a/b/c", "Allow: /a/b", "Disallow: /a"), "", "/a/b/x", true},
		{"the pattern's octets count, not what its star covers", all("Disallow: /*z", "Allow: /abcd"), "", "/abcdefghz", true},
		{"octets are counted in one encoding", all("Disallow: /%7Euser/", "Allow: /~user/a"), "", "/~user/ab", true},
		{"equal after decoding is a tie", all("Disallow: /%61", "Allow: /a"), "", "/a", true},
		{"equal after encoding is a tie", all("Disallow: /%E3%83%84", "Allow: /ツ"), "", "/%e3%83%84", true},
	})
}

func TestPatterns(t *testing.T) {
	check(t, []decision{
		{"a path is a prefix", all("Disallow: /a"), "", "/ab/c", false},
		{"a path is not found in the middle", all("Disallow: /b"), "", "/a/b", true},
		{"a folder does not match its own name", all("Disallow: /a/"), "", "/a", true},
		{"case counts", all("Disallow: /A"), "", "/a", true},
		{"a path reaches into the query", all("Disallow: /a?b"), "", "/a?bc", false},
		{"a slash disallows everything", all("Disallow: /"), "", "/", false},
		{"an empty target is the root", all("Disallow: /$"), "", "", false},
		{"a target of a query alone is the root's", all("Disallow: /?a"), "", "?ab", false},
		{"an empty disallow allows everything", all("Disallow:"), "", "/a", true},
		{"an empty disallow does not undo another", all("Disallow: /a", "Disallow:"), "", "/a", false},
		{"an empty allow does nothing", all("Disallow: /", "Allow:"), "", "/a", false},
		{"a star covers nothing", all("Disallow: /a*b"), "", "/ab", false},
		{"a star covers slashes", all("Disallow: /a*b"), "", "/a/x/b", false},
		{"a star covers a question mark", all("Disallow: /*b"), "", "/a?b", false},
		{"stars in a row are one", all("Disallow: /a**b"), "", "/acb", false},
		{"a star at the end changes no match", all("Disallow: /a*"), "", "/a", false},
		{"a star at the beginning is a path", all("Disallow: *b"), "", "/ab", false},
		{"a pattern may be a lone star", all("Disallow: *"), "", "/", false},
		{"pieces come in their order", all("Disallow: /*b*a"), "", "/ab", true},
		{"pieces do not overlap", all("Disallow: /*aba*bab"), "", "/abab", true},
		{"a dollar sign ends", all("Disallow: /a$"), "", "/ab", true},
		{"a dollar sign matches the end", all("Disallow: /a$"), "", "/a", false},
		{"the end is looked for at the end", all("Disallow: /*.php$"), "", "/a.php.php", false},
		{"the end does not overlap the pieces", all("Disallow: /*aa*aa$"), "", "/aaa", true},
		{"a star before the end covers all", all("Disallow: /a*$"), "", "/abc", false},
		{"a dollar sign in the middle is itself", all("Disallow: /a$b"), "", "/a$bc", false},
		{"a dollar sign in the middle ends nothing", all("Disallow: /a$b"), "", "/a", true},
		{"the first of two dollar signs is itself", all("Disallow: /a$$"), "", "/a$", false},
		{"the second of two dollar signs ends", all("Disallow: /a$$"), "", "/a$b", true},
		{"a dollar sign before a star is itself", all("Disallow: /a$*"), "", "/ab", true},
		{"a dollar sign alone matches nothing", all("Disallow: $"), "", "/", true},
		{"a path without its slash matches nothing", all("Disallow: a"), "", "/a", true},
		{"a whole address is no path", all("Disallow: https://example.org/"), "", "/https://example.org/", true},
		{"robots.txt is always allowed", all("Disallow: /"), "", "/robots.txt", true},
		{"robots.txt is allowed in another spelling", all("Disallow: /robots.txt$"), "", "/robots%2etxt", true},
		{"what only begins with robots.txt is not", all("Disallow: /"), "", "/robots.txt.bak", false},
		{"nor is robots.txt below a folder", all("Disallow: /"), "", "/a/robots.txt", false},
	})
}

// The first rows are the table of RFC 9309 2.2.2 and the one of 2.2.3, each spelling against each other.
func TestPercentEncoding(t *testing.T) {
	check(t, []decision{
		{"a query is compared as it stands", all("Disallow: /foo/bar?baz=quz"), "", "/foo/bar?baz=quz", false},
		{"an encoded query meets a plain rule", all("Disallow: /foo/bar?baz=https://foo.bar"), "", "/foo/bar?baz=https%3A%2F%2Ffoo.bar", false},
		{"a plain query meets an encoded rule", all("Disallow: /foo/bar?baz=https%3A%2F%2Ffoo.bar"), "", "/foo/bar?baz=https://foo.bar", false},
		{"a rule in UTF-8 meets an encoded target", all("Disallow: /foo/bar/ツ"), "", "/foo/bar/%E3%83%84", false},
		{"an encoded rule meets a target in UTF-8", all("Disallow: /foo/bar/%E3%83%84"), "", "/foo/bar/ツ", false},
		{"hex may be in lower case in a target", all("Disallow: /foo/bar/%E3%83%84"), "", "/foo/bar/%e3%83%84", false},
		{"hex may be in lower case in a rule", all("Disallow: /foo/bar/%e3%83%84"), "", "/foo/bar/%E3%83%84", false},
		{"encoded letters are letters in a rule", all("Disallow: /foo/bar/%62%61%7A"), "", "/foo/bar/baz", false},
		{"encoded letters are letters in a target", all("Disallow: /foo/bar/baz"), "", "/foo/bar/%62%61%7A", false},
		{"an encoded star in a rule is a star's octet", all("Disallow: /file-with-a-%2A.html"), "", "/file-with-a-*.html", false},
		{"an encoded star covers nothing else", all("Disallow: /file-with-a-%2A.html"), "", "/file-with-a-b.html", true},
		{"an encoded dollar sign ends nothing", all("Disallow: /foo-%24"), "", "/foo-$bar", false},
		{"an encoded dollar sign is not left out", all("Disallow: /foo-%24"), "", "/foo-", true},

		{"an encoded slash is no slash in a path", all("Disallow: /a%2Fb"), "", "/a/b", true},
		{"a slash is no encoded slash in a path", all("Disallow: /a/b"), "", "/a%2Fb", true},
		{"an encoded slash is itself", all("Disallow: /a%2fb"), "", "/a%2Fb", false},
		{"an encoded question mark begins no query", all("Disallow: /a?b"), "", "/a%3Fb", true},
		{"an encoded field of a query is another", all("Disallow: /a?b=c&d"), "", "/a?b=c%26d", true},
		{"a star before the query matches octets in it", all("Disallow: /*//"), "", "/go?to=http://b", false},
		{"a star before the query compares as written", all("Disallow: /*?to=http://b"), "", "/go?to=http://b", false},
		{"a star that reaches over the question mark loses no octet", all("Disallow: /*/x?y"), "", "/a?u=/x?y", false},
		{"a star in the query comes after the encoding", all("Disallow: /a?*://"), "", "/a?to=http%3a%2f%2fb", false},
		{"a decoded percent sign is not decoded again", all("Disallow: /%61"), "", "/%2561", true},
		{"a percent sign without hex is itself", all("Disallow: /100%"), "", "/100%", false},
		{"a percent sign without hex is a prefix of any escape", all("Disallow: /*%"), "", "/a%20b", false},
		{"an escape that the end cuts is itself", all("Disallow: /a%2$"), "", "/a%2", false},
		{"a blank in a rule is an encoded one", all("Disallow: /a b"), "", "/a%20b", false},
		{"what may not stand in an address is encoded", all(`Disallow: /a|b"`), "", "/a%7Cb%22", false},
		{"octets that are no UTF-8 are encoded one by one", all("Disallow: /caf\xe9"), "", "/caf%E9", false},
		{"other octets are others", all("Disallow: /caf\xe9"), "", "/café", true},
	})
}

func TestRulesOfNothingAllowEverything(t *testing.T) {
	for name, r := range map[string]*Rules{
		"nil rules": nil, "zero rules": {}, "nil file": (*File)(nil).For("a"), "zero file": (&File{}).For("a"), "empty file": Parse(nil).For("a"),
	} {
		if !r.Allowed("/a") {
			t.Errorf("%s disallow /a", name)
		}
		if d, ok := r.CrawlDelay(); ok {
			t.Errorf("%s ask for a delay of %v", name, d)
		}
	}
	if got := (*File)(nil).Sitemaps(); got != nil {
		t.Errorf("a nil file has sitemaps %q", got)
	}
}

// A matcher that backtracks, or that reads the target again for each star, does not come to an end here.
func TestManyStarsTakeOneReading(t *testing.T) {
	target := "/" + strings.Repeat("a", 100_000) + "b"
	rules := Parse([]byte(all("Disallow: /" + strings.Repeat("*a", 50_000) + "*c"))).For("fetchfleet")
	if !rules.Allowed(target) {
		t.Error("a pattern that ends in c matches a target without one")
	}
	rules = Parse([]byte(all("Disallow: /" + strings.Repeat("a*", 50_000) + "b$"))).For("fetchfleet")
	if rules.Allowed(target) {
		t.Error("a pattern of stars does not match")
	}
}

func TestRulesAreSharedByGoroutines(t *testing.T) {
	f := Parse([]byte(all("Disallow: /a", "Disallow: /*b$", "Crawl-delay: 1")))
	shared := f.For("fetchfleet")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 100 {
				if shared.Allowed("/a") || f.For("fetchfleet").Allowed("/xb") {
					t.Error("a disallowed path is allowed")
				}
			}
		})
	}
	wg.Wait()
}
