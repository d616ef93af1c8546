package robots

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestLines(t *testing.T) {
	check(t, []decision{
		{"field names have no case", "uSeR-aGeNt: *\nDISALLOW: /a", "", "/a", false},
		{"blanks stand around everything", " \tUser-agent\t : \t* \t\n\tDisallow \t:\t/a \t", "", "/a", false},
		{"blanks may be missing", "User-agent:*\nDisallow:/a", "", "/a", false},
		{"lines end with LF", "User-agent: *\nDisallow: /a\nAllow: /a/b\n", "", "/a/c", false},
		{"lines end with CR", "User-agent: *\rDisallow: /a\rAllow: /a/b\r", "", "/a/c", false},
		{"lines end with CR LF", "User-agent: *\r\nDisallow: /a\r\nAllow: /a/b\r\n", "", "/a/c", false},
		{"line ends are mixed", "User-agent: *\n\rDisallow: /a\rAllow: /a/b\n", "", "/a/b", true},
		{"the last line needs no end", "User-agent: *\nDisallow: /a", "", "/a", false},
		{"a BOM is skipped", "\xef\xbb\xbfUser-agent: *\nDisallow: /a", "", "/a", false},
		{"only one BOM is skipped", "\xef\xbb\xbf\xef\xbb\xbfUser-agent: *\nDisallow: /a", "", "/a", true},
		{"a comment ends a rule", "User-agent: *\nDisallow: /a#b", "", "/a", false},
		{"a comment ends an agent", "User-agent: * # all\nDisallow: /a # this", "", "/a", false},
		{"a commented rule is none", "User-agent: *\n#Disallow: /a", "", "/a", true},
		{"a rule of a comment alone is empty", "User-agent: *\nDisallow: # /a", "", "/a", true},
		{"a line without colon is no rule", "User-agent: *\nDisallow /a", "", "/a", true},
		{"a colon in the value is part of it", "User-agent: *\nDisallow: /a:b", "", "/a", true},
		{"an unknown field is no rule", "User-agent: *\nNoindex: /a", "", "/a", true},
		{"a misspelled disallow is no rule", "User-agent: *\nDissallow: /a\nDis-allow: /a\nDisalow: /a", "", "/a", true},
		{"a misspelled agent is no agent", "Useragent: *\nUser agent: *\nDisallow: /a", "", "/a", true},
		{"octets that are no text are passed over", "\xff\xfe\x00\x80: \x00\nUser-agent: *\n\xc3\x28\nDisallow: /a", "", "/a", false},
		{"a page is no robots.txt", "<!DOCTYPE html>\n<p style=\"color: red\">Disallow: /</p>", "", "/a", true},
	})
}

func TestGroups(t *testing.T) {
	const merged = "user-agent: ExampleBot\ndisallow: /foo\ndisallow: /bar\n\nuser-agent: other\ndisallow: /other\n\nuser-agent: ExampleBot\ndisallow: /baz\n"
	check(t, []decision{
		{"rules before any agent are ignored", "Disallow: /a\nUser-agent: *\nDisallow: /b", "", "/a", true},
		{"agents in a row share their rules", "User-agent: a\nUser-agent: fetchfleet\nDisallow: /a", "", "/a", false},
		{"an agent after a rule begins a group", "User-agent: fetchfleet\nDisallow: /a\nUser-agent: b\nDisallow: /b", "", "/b", true},
		{"an agent after an empty rule begins a group", "User-agent: fetchfleet\nDisallow:\nUser-agent: b\nDisallow: /b", "", "/b", true},
		{"empty lines end no group", "User-agent: fetchfleet\n\n\nDisallow: /a", "", "/a", false},
		{"a sitemap between agents ends no group", "User-agent: fetchfleet\nSitemap: /s\nUser-agent: b\nDisallow: /a", "", "/a", false},
		{"an unknown line between agents ends no group", "User-agent: fetchfleet\nHost: x\nfoo\nUser-agent: b\nDisallow: /a", "", "/a", false},
		{"a sitemap among rules ends no group", "User-agent: fetchfleet\nDisallow: /b\nSitemap: /s\nDisallow: /a", "", "/a", false},
		{"a crawl delay ends the agents", "User-agent: fetchfleet\nCrawl-delay: 1\nUser-agent: b\nDisallow: /a", "", "/a", true},
		{"a crawl delay that means nothing ends them too", "User-agent: fetchfleet\nCrawl-delay: x\nUser-agent: b\nDisallow: /a", "", "/a", true},
		{"of merged groups the first counts", merged, "examplebot", "/bar", false},
		{"of merged groups the last counts", merged, "examplebot", "/baz", false},
		{"a group between merged ones does not", merged, "examplebot", "/other", true},
		{"the groups of everyone are merged", "User-agent: *\nDisallow: /a\nUser-agent: b\nDisallow: /b\nUser-agent: *\nDisallow: /c", "", "/a", false},
		{"merged rules are weighed together", "User-agent: fetchfleet\nDisallow: /a\nUser-agent: b\nDisallow: /\nUser-agent: fetchfleet\nAllow: /a/b", "", "/a/b", true},
	})
}

func TestAgents(t *testing.T) {
	named := func(agent string) string {
		return "User-agent: *\nDisallow: /all\nUser-agent: " + agent + "\nDisallow: /named"
	}
	const full = "fetchfleet/1.2 (+https://example.org/bot)"
	check(t, []decision{
		{"a whole header names by its token", named("fetchfleet"), full, "/named", false},
		{"a named agent does not obey everyone's group", named("fetchfleet"), full, "/all", true},
		{"a named agent does not, where its group comes first", "User-agent: fetchfleet\nUser-agent: b\nDisallow: /b\nUser-agent: *\nDisallow: /", full, "/all", true},
		{"everyone's group counts where none names us", named("other"), full, "/all", false},
		{"another's group does not", named("other"), full, "/named", true},
		{"nothing is asked where neither is there", "User-agent: other\nDisallow: /", full, "/named", true},
		{"case does not count in the file", named("FetchFleet"), full, "/named", false},
		{"case does not count in ours", named("fetchfleet"), "FETCHFLEET/2", "/named", false},
		{"a version in the file is cut", named("fetchfleet/1.0"), full, "/named", false},
		{"a comment after the token is cut", named("fetchfleet bot"), full, "/named", false},
		{"a star after the token is cut", named("fetchfleet*"), full, "/named", false},
		{"a longer token is another agent", named("fetchfleetbot"), full, "/named", true},
		{"a token with a hyphen is another agent", named("fetchfleet-images"), full, "/named", true},
		{"a token with an underscore is another agent", named("fetchfleet_x"), full, "/named", true},
		{"a shorter token is another agent", named("fetch"), full, "/named", true},
		{"a token at the end is another agent's", named("my-fetchfleet"), full, "/named", true},
		{"an empty agent names nobody", named(""), full, "/named", true},
		{"an agent of ours without token is named by nobody", named(""), "/1", "/named", true},
		{"an agent of ours that is no token obeys everyone's group", named("x"), "(x)", "/all", false},
		{"our agent of a star is no token", named("x"), "*", "/all", false},
		{"digits end a token", named("fetchfleet2"), "fetchfleet3/1.0", "/named", false},
		{"a star with something after a blank is everyone", "User-agent: * all\nDisallow: /a", full, "/a", false},
		{"a star with something glued to it is nobody", "User-agent: *bot\nDisallow: /a", full, "/a", true},
	})
}

func TestCrawlDelay(t *testing.T) {
	tests := []struct {
		name, file string
		want       time.Duration
		ok         bool
	}{
		{"none is asked for", "", 0, false},
		{"whole seconds", "Crawl-delay: 10", 10 * time.Second, true},
		{"a fraction", "crawl-delay:0.25 # s", 250 * time.Millisecond, true},
		{"zero is a wish too", "Crawl-delay: 0", 0, true},
		{"a negative one is none", "Crawl-delay: -1", 0, false},
		{"no number is none", "Crawl-delay: NaN", 0, false},
		{"a word is none", "Crawl-delay: slow", 0, false},
		{"an empty one is none", "Crawl-delay:", 0, false},
		{"a unit is no number", "Crawl-delay: 10s", 0, false},
		{"more than a day is a day", "Crawl-delay: 86401", MaxCrawlDelay, true},
		{"the infinite is a day", "Crawl-delay: Inf", MaxCrawlDelay, true},
		{"the negative infinite is none", "Crawl-delay: -Inf", 0, false},
		{"a number that is too large is a day", "Crawl-delay: 1e999", MaxCrawlDelay, true},
		{"a number too small is none", "Crawl-delay: -1e999", 0, false},
		{"the longest counts in a group", "Crawl-delay: 1\nCrawl-delay: 3\nCrawl-delay: 2", 3 * time.Second, true},
		{"the longest counts among groups", "Crawl-delay: 3\nUser-agent: *\nCrawl-delay: 1", 3 * time.Second, true},
		{"another's does not", "Crawl-delay: 1\nUser-agent: b\nCrawl-delay: 5", time.Second, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, ok := Parse([]byte("Crawl-delay: 9\nUser-agent: *\n" + tt.file)).For("fetchfleet").CrawlDelay()
			if got != tt.want || ok != tt.ok {
				t.Errorf("CrawlDelay = %v, %v, want %v, %v", got, ok, tt.want, tt.ok)
			}
		})
	}
}

func TestSitemapsAreKeptInOrder(t *testing.T) {
	f := Parse([]byte("Sitemap: https://a.example/1\nUser-agent: x\nSITEMAP:https://a.example/2 # two\nSitemap:\nDisallow: /\nsitemap: /3"))
	got := f.Sitemaps()
	if diff := cmp.Diff([]string{"https://a.example/1", "https://a.example/2", "/3"}, got); diff != "" {
		t.Errorf("sitemaps (-want +got):\n%s", diff)
	}
	got[0] = "changed"
	if f.Sitemaps()[0] == "changed" {
		t.Error("the caller can change the file")
	}
}

func TestCutAtMaxBytes(t *testing.T) {
	const head = "User-agent: *\nDisallow: /kept\n"
	// reaching has the last octet of line at MaxBytes, short of it by less.
	reaching := func(line string, less int) string {
		return head + "#" + strings.Repeat("x", MaxBytes-less-len(head)-len(line)-2) + "\n" + line
	}
	check(t, []decision{
		{"a line that the limit cuts is dropped", reaching("Disallow: /ab", 0) + "c\nDisallow: /kept", "", "/abc", true},
		{"lines before it are kept", reaching("Disallow: /ab", 0) + "c", "", "/kept", false},
		{"a line that ends a file of MaxBytes is kept", reaching("Disallow: /ab", 0), "", "/ab", false},
		{"a line whose LF is beyond the limit is kept", reaching("Disallow: /ab", 0) + "\nx", "", "/ab", false},
		{"a line whose CR is beyond the limit is kept", reaching("Disallow: /ab", 0) + "\rx", "", "/ab", false},
		{"a line whose end is the last octet is kept", reaching("Disallow: /ab", 1) + "\nx", "", "/ab", false},
		{"lines beyond the limit are not read", reaching("#", 0) + "\nDisallow: /late\n", "", "/late", true},
	})
	if f := Parse([]byte(strings.Repeat("x", MaxBytes+1))); len(f.groups) != 0 {
		t.Error("a line without end made a group")
	}
}

func TestFileOfAHundredThousandRules(t *testing.T) {
	r := Parse(hugeFile("/%d", 100_000)).For("fetchfleet")
	for target, want := range map[string]bool{"/1": false, "/20000": false, "/x": true} {
		if got := r.Allowed(target); got != want {
			t.Errorf("Allowed(%s) = %v, want %v", target, got, want)
		}
	}
}

// hugeFile disallows n paths of that form to everyone.
func hugeFile(form string, n int) []byte {
	var b strings.Builder
	b.WriteString("User-agent: *\n")
	for i := range n {
		fmt.Fprintf(&b, "Disallow: "+form+"\n", i)
	}
	return []byte(b.String())
}

func BenchmarkParse(b *testing.B) {
	data := hugeFile("/%d", 100_000)
	b.SetBytes(MaxBytes)
	for b.Loop() {
		Parse(data).For("fetchfleet")
	}
}

func BenchmarkAllowed(b *testing.B) {
	target := "/a/" + strings.Repeat("b", 2000) + "?c=d"
	for name, data := range map[string][]byte{
		"few":       []byte(all("Disallow: /*?*session=", "Disallow: /private/", "Allow: /private/a", "Disallow: /*.php$")),
		"huge":      hugeFile("/a/%d", 100_000),
		"huge wild": hugeFile("/*/b%d", 100_000),
		"stars":     []byte(all("Disallow: /" + strings.Repeat("*b", 200_000) + "*x")),
	} {
		r := Parse(data).For("fetchfleet")
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Allowed(target)
			}
		})
	}
}
