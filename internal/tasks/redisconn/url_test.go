package redisconn

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParse(t *testing.T) {
	tests := map[string]struct {
		url  string
		want target
	}{
		"a host and nothing else gets the usual port and database 0": {
			"redis://cache", target{scheme: "redis", addrs: []string{"cache:6379"}}},
		"port and database are taken from the URL": {
			"redis://cache:7000/3", target{scheme: "redis", addrs: []string{"cache:7000"}, db: 3}},
		"user and password are percent-decoded": {
			"rediss://ann:p%40ss%2Fw%3Fd@cache:7000",
			target{scheme: "rediss", addrs: []string{"cache:7000"}, user: "ann", password: "p@ss/w?d"}},
		"an @ in the password may stand as it is": {
			"redis://:p@ss@cache", target{scheme: "redis", addrs: []string{"cache:6379"}, password: "p@ss"}},
		"an IPv6 host keeps its brackets": {
			"redis://[::1]:7000", target{scheme: "redis", addrs: []string{"[::1]:7000"}}},
		"an IPv6 host may come without a port": {
			"redis://[::1]", target{scheme: "redis", addrs: []string{"[::1]:6379"}}},
		"sentinels come as a list with their own password": {
			"redis-sentinel://:sesame@one:1,two,[::1]:3?master=main&db=2&username=ann&password=p%40ss",
			target{scheme: "redis-sentinel", addrs: []string{"one:1", "two:26379", "[::1]:3"}, db: 2, master: "main",
				sentinelPassword: "sesame", user: "ann", password: "p@ss"}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse(test.url)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got, cmp.AllowUnexported(target{})); diff != "" {
				t.Errorf("parse(%q) (-want +got):\n%s", test.url, diff)
			}
		})
	}
}

func TestParseSaysWhatIsWrong(t *testing.T) {
	tests := map[string]struct{ url, want string }{
		"no scheme":                    {"localhost:6379", "no scheme"},
		"another scheme":               {"http://:hunter2@cache", "unknown scheme"},
		"no host":                      {"redis:///0", "no host"},
		"a port that is no number":     {"redis://:hunter2@cache:seven", `port "seven"`},
		"a port out of range":          {"redis://cache:70000", `port "70000"`},
		"a database that is no number": {"redis://:hunter2@cache/queue", `database "queue"`},
		"a parameter nobody knows":     {"redis://:hunter2@cache?password=hunter2", `unknown parameter "password"`},
		"a list of plain hosts":        {"redis://one,two", "only redis-sentinel"},
		"a sentinel without a master":  {"redis-sentinel://:hunter2@one", "add ?master=NAME"},
		"a slash in the password":      {"redis://:hunter2/hunter2@cache", "percent-encode"},
		"a question mark in it":        {"redis://:hunter2?hunter2@cache", "percent-encode"},
		"a hash in it":                 {"redis://:hunter2#hunter2@cache", "percent-encode"},
		"a bad escape in it":           {"redis://:hunter2%zz@cache", "percent-encoding"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Open(test.url, Options{})
			if err == nil {
				t.Fatalf("Open(%q) = nil error", test.url)
			}
			if !strings.Contains(err.Error(), test.want) {
				t.Errorf("Open(%q) = %q, want it to say %q", test.url, err, test.want)
			}
			if strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Open(%q) = %q, which shows the password", test.url, err)
			}
		})
	}
}

func TestRedact(t *testing.T) {
	tests := map[string]struct{ url, want string }{
		"nothing secret stays as it is":       {"redis://cache:6379/1", "redis://cache:6379/1"},
		"a password is hidden, a user not":    {"redis://ann:hunter2@cache/0", "redis://ann:***@cache/0"},
		"the parameter of a sentinel is too":  {"redis-sentinel://:a@h?master=m&password=b", "redis-sentinel://:***@h?master=m&password=***"},
		"a URL that cannot be told is hidden": {"redis://:hun/ter2@cache", "redis://***"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			if got := Redact(test.url); got != test.want {
				t.Errorf("Redact(%q) = %q, want %q", test.url, got, test.want)
			}
		})
	}
}

// FuzzParse holds that no URL makes parse panic, that a password never shows, and that what was parsed is dialable.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{"redis://h:1/2", "rediss://u:S3CRET@h", "redis-sentinel://:S3CRET@a:1,b?master=m",
		"redis://:S3CRET/@h", "redis://:S3CRET?x@h", "redis://[::1", "redis://:a@S3CRET@h", "://", "redis://:S3CRET%2F@h"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rawURL string) {
		got, err := parse(rawURL)
		if err == nil {
			for _, addr := range got.addrs {
				if _, err := hostPort(addr, "0"); err != nil {
					t.Errorf("parse(%q) gave the address %q: %v", rawURL, addr, err)
				}
			}
		}
		const secret = "S3CRET"
		shown := Redact("redis://:" + secret + rawURL + "@host")
		if strings.Contains(shown, secret) {
			t.Errorf("Redact shows a password: %q", shown)
		}
		if _, err := parse("redis://:" + secret + rawURL + "@host:x"); err == nil {
			t.Errorf("parse accepted a bad port after %q", rawURL)
		} else if strings.Contains(err.Error(), secret) {
			t.Errorf("parse shows a password: %v", err)
		}
	})
}
