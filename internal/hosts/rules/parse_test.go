package rules

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestErrorsNameTheTokenAndWhatIsRight(t *testing.T) {
	for text, want := range map[string]string{
		"x.test rat=1":                     "hosts:1: rat=1: not a key: known are rate=, burst=, conns=, delay=, agent=, robots= and blocked",
		"x.test":                           "hosts:1: x.test: nothing is said about this host: write for example rate=1, delay=2s or blocked behind it",
		"x.test rate=fast":                 "hosts:1: rate=fast: a rate is requests per second, 0.00001 to 1000000, or 0 for no limit",
		"x.test rate=-1":                   "hosts:1: rate=-1: a rate is requests per second, 0.00001 to 1000000, or 0 for no limit",
		"x.test rate=NaN":                  "hosts:1: rate=NaN: a rate is requests per second, 0.00001 to 1000000, or 0 for no limit",
		"x.test rate":                      "hosts:1: rate: the value is missing: write rate=VALUE without blanks",
		"x.test burst=0":                   "hosts:1: burst=0: a burst is a whole number, 1 to 1000000",
		"x.test conns=1.5":                 "hosts:1: conns=1.5: conns is a whole number up to 1000000, 0 for no limit",
		"x.test delay=2":                   "hosts:1: delay=2: a delay is a time with its unit up to 24h, such as 500ms, 2s or 1m30s, or 0 for none",
		"x.test delay=25h":                 "hosts:1: delay=25h: a delay is a time with its unit up to 24h, such as 500ms, 2s or 1m30s, or 0 for none",
		"x.test robots=no":                 "hosts:1: robots=no: write robots=obey or robots=ignore",
		"x.test blocked=maybe":             "hosts:1: blocked=maybe: write blocked alone, or blocked=no to except a host from a wider rule",
		"x.test blocked blocked":           "hosts:1: blocked: blocked stands twice in this line: write it once",
		"x.test agent=a\"b\"":              `hosts:1: agent=a"b": a quote goes around a whole value: write key="value", and \" for a quote within`,
		"x.test agent=\"a\"b":              `hosts:1: agent="a"b: a quote goes around a whole value: write key="value", and \" for a quote within`,
		"x.test agent=\"a b":               `hosts:1: agent="a b: the quote is not closed: write a " at the end of the value`,
		"x.test agent=\"a\x01\"":           `hosts:1: "agent=\"a\x01\"": an agent is what the User-Agent header says, without control characters and without blanks around it, or "" for the job's own`,
		"\n\nx.test rate=1\nX.test rate=2": "hosts:4: X.test: this host has a rule on line 3 already: write all its keys there",
		"https://x.test/ rate=1":           "hosts:1: https://x.test/: a rule is for a host, not for a URL: write the host alone",
		"x.test:443 rate=1":                "hosts:1: x.test:443: ports 80 and 443 are left out: write x.test",
		"x.test:80 rate=1":                 "hosts:1: x.test:80: ports 80 and 443 are left out: write x.test",
		"*.x.test:8080 rate=1":             "hosts:1: *.x.test:8080: a suffix holds for every port: write *.x.test",
		"www.*.test rate=1":                "hosts:1: www.*.test: a * stands alone, or for what comes before a suffix: write *.example.org",
		"*. rate=1":                        "hosts:1: *.: not a suffix of hosts: write *.example.org",
		"rate=1":                           "hosts:1: rate=1: a line begins with a host: write the host, or * for all, before it\nhosts:1: rate=1: nothing is said about this host: write for example rate=1, delay=2s or blocked behind it",
	} {
		table, err := Parse("hosts", strings.NewReader(text))
		if table != nil || err == nil {
			t.Errorf("%q: got a table and %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, err.Error()); diff != "" {
			t.Errorf("%q: -want +got:\n%s", text, diff)
		}
	}
}

func TestWhatIsNoHostIsRefused(t *testing.T) {
	for _, host := range []string{"a b", "x.test/path", "u:p@x.test", "x.test:99999", "[::1", "::1", "1.2.3.4.5", "*.1", "*.[::1]", "x.test#y", "\x00", "."} {
		table, err := Parse("hosts", strings.NewReader(host+" rate=1"))
		if err == nil || !strings.HasPrefix(err.Error(), "hosts:1: ") {
			t.Errorf("%q: got %v, %v", host, table, err)
		}
	}
}

func TestAllErrorsAreToldUpToTwenty(t *testing.T) {
	for _, wrong := range []int{1, 20, 21, 500} {
		_, err := Parse("hosts", strings.NewReader(strings.Repeat("x.test rate=x\n", 1)+strings.Repeat("* rate=x\n", wrong-1)))
		// Beside the wrong rate, every * but the first is a second rule for it.
		wrong += max(0, wrong-2)
		want := min(wrong, 21)
		lines := strings.Split(err.Error(), "\n")
		if len(lines) != want {
			t.Errorf("%d errors: %d told, want %d", wrong, len(lines), want)
		}
		if last := fmt.Sprintf("hosts: and %d more errors", wrong-20); wrong > 20 && lines[20] != last {
			t.Errorf("%d errors: the last line is %q, want %q", wrong, lines[20], last)
		}
	}
}

func TestWhatCannotBeReadToItsEndIsNoTable(t *testing.T) {
	broken := errors.New("broken")
	if _, err := Parse("hosts", iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	_, err := Parse("hosts", strings.NewReader("* conns=1\nx.test agent="+strings.Repeat("x", maxLine)))
	if want := "hosts:2: the line is longer than 64 KiB: a rule is a host and a few keys"; err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func FuzzParse(f *testing.F) {
	f.Add(sample, "a.example.org")
	f.Add("* rate=1e-5 delay=1h2m3.000000004s burst=1 blocked=yes\nx.test:1 agent=\"\\\\ \\\" #\"", "x.test:1")
	f.Add("[::1]:80 rate=1\n*..x blocked\n%41.test blocked\n\xff blocked", "[::1]")
	f.Fuzz(func(t *testing.T, text, host string) {
		table, err := Parse("hosts", strings.NewReader(text))
		if err != nil {
			if table != nil {
				t.Error("a table beside an error")
			}
			return
		}
		again, err := Parse("printed", strings.NewReader(table.String()))
		if err != nil {
			t.Fatalf("%v in\n%s", err, table)
		}
		if diff := cmp.Diff(table, again, cmp.AllowUnexported(Table{}, line{})); diff != "" {
			t.Errorf("printed and read again: -want +got:\n%s", diff)
		}
		for pattern, l := range table.lines {
			got := table.For(strings.Replace(pattern, "*", "sub", 1))
			if diff := cmp.Diff(l.over(got), got); pattern != "*" && !strings.Contains(pattern, "*") && diff != "" {
				t.Errorf("the rule for %s does not hold for it: -want +got:\n%s", pattern, diff)
			}
		}
		if diff := cmp.Diff(table.For(host), again.For(host)); diff != "" {
			t.Error(diff)
		}
	})
}
