package proxies

import (
	"errors"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func mustParse(t *testing.T, texts ...string) *Rules {
	t.Helper()
	r, err := Parse(texts, func(ref string) (string, error) {
		if ref == "env:MISSING" {
			return "", errors.New("it is not set")
		}
		return "p@ss:/%" + ref, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func first(t *testing.T, r *Rules, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	via, err := r.For(u)
	if err != nil {
		t.Fatal(err)
	}
	if r.Any(u) != (len(via) > 0) {
		t.Errorf("%s: there are %d proxies, Any says %v", raw, len(via), r.Any(u))
	}
	if len(via) == 0 {
		return Direct
	}
	return via[0].String()
}

func TestTheMostPreciseRuleDecides(t *testing.T) {
	r := mustParse(t, "http://rest:3128", "a.test=socks5://exact:1080", "*.b.test=https://suffix", "*.c.b.test=direct", "B.test=direct", "[::1]=direct")
	for host, want := range map[string]string{
		"a.test": "socks5://exact:1080", "A.test.": "socks5://exact:1080", "x.a.test": "http://rest:3128",
		"b.test": Direct, "x.b.test": "https://suffix", "y.x.b.test": "https://suffix", "y.c.b.test": Direct, "[::1]": Direct, "other.test": "http://rest:3128",
	} {
		if got := first(t, r, "https://"+host+":8443/"); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
	if got := first(t, mustParse(t, "a.test=http://p:1"), "http://b.test"); got != Direct {
		t.Errorf("without a rule for the rest: %s", got)
	}
	if got := first(t, nil, "http://b.test"); got != Direct {
		t.Errorf("without rules: %s", got)
	}
}

func TestAListRotatesAndSkipsWhatFailed(t *testing.T) {
	r := mustParse(t, "http://a:1", "http://b:1", "http://c:1")
	u := &url.URL{Scheme: "http", Host: "x.test"}
	seen := map[string]int{}
	for range 9 {
		via, _ := r.For(u)
		if len(via) != 3 {
			t.Fatalf("%d proxies", len(via))
		}
		seen[via[0].String()]++
	}
	if diff := cmp.Diff(map[string]int{"http://a:1": 3, "http://b:1": 3, "http://c:1": 3}, seen); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	via, _ := r.For(u)
	via[0].Failed()
	for range 6 {
		again, _ := r.For(u)
		if again[0].String() == via[0].String() || again[2].String() != via[0].String() {
			t.Error("one that failed is not the last")
		}
	}
	if r.Out() != 1 {
		t.Errorf("%d out, want 1", r.Out())
	}
}

func TestReferencesAreResolvedAndNeverShown(t *testing.T) {
	r := mustParse(t, "*.test=http://${env:USER_OF}:${file:/run/secrets/p}@proxy:3128")
	via, err := r.For(&url.URL{Scheme: "http", Host: "a.test"})
	if err != nil {
		t.Fatal(err)
	}
	password, _ := via[0].URL.User.Password()
	if user := via[0].URL.User.Username(); user != "p@ss:/%env:USER_OF" || password != "p@ss:/%file:/run/secrets/p" {
		t.Errorf("user %q, password %q", user, password)
	}
	if got := via[0].String(); got != "http://proxy:3128" {
		t.Errorf("shown as %s", got)
	}
}

func TestWhatIsNoRuleIsRefusedWithoutItsPassword(t *testing.T) {
	for _, text := range []string{
		"", "proxy:3128", "ftp://u:hunter2@proxy", "http://u:hunter2@", "http://u:hunter2@proxy/path", "http://u:hunter2@proxy?x=1",
		"http://u:hun%zzter2@proxy", "a b=http://proxy", "*=http://proxy", "a.*.test=http://proxy", "http://${env:MISSING}@proxy:1", "a.test=env",
	} {
		_, err := Parse([]string{text}, func(string) (string, error) { return "", errors.New("it is not set") })
		if err == nil {
			t.Errorf("%q is taken", text)
		} else if strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%q: the error shows the password: %v", text, err)
		}
	}
}

func TestTheEnvironmentIsHonouredOnlyWhenAsked(t *testing.T) {
	t.Setenv("HTTP_PROXY", "http://env:1")
	t.Setenv("NO_PROXY", "internal.test")
	if got := first(t, mustParse(t), "http://a.test"); got != Direct {
		t.Errorf("unasked: %s", got)
	}
	r := mustParse(t, "env", "b.test=direct")
	for host, want := range map[string]string{"a.test": "http://env:1", "internal.test": Direct, "b.test": Direct} {
		if got := first(t, r, "http://"+host); got != want {
			t.Errorf("%s: %s, want %s", host, got, want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"http://u:p@h:1", "*.a=socks5h://h", "a=direct", "env", "a=${env:X}", "http://${file:/x}@h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := Parse([]string{text}, func(ref string) (string, error) { return ref, nil })
		if err != nil {
			return
		}
		via, err := r.For(&url.URL{Scheme: "https", Host: "a.test"})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range via {
			if p.URL.Hostname() == "" || p.URL.User != nil && strings.Contains(p.String(), "@") {
				t.Errorf("%q is the proxy %q", text, p)
			}
		}
	})
}
