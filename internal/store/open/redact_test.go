package open

import (
	"strings"
	"testing"
)

func TestNoPartOfAPasswordIsShown(t *testing.T) {
	for claim, tt := range map[string]struct{ url, want string }{
		"a plain one":               {"s4://u:hunter2@h/x", "s4://u:xxxxx@h/x"},
		"a question mark in it":     {"s4://u:hunter2?tail@h/x", "s4://u…"},
		"digits before it":          {"s4://u:123?tail@h/x", "s4://u…"},
		"a slash in it":             {"s4://u:123/tail@h/x", "s4://u:xxxxx@h/x"},
		"a hash in it":              {"s4://u:123#tail@h/x", "s4://u…"},
		"an @ in it":                {"s4://u:123@tail@h/x", "s4://u:xxxxx@h/x"},
		"a colon in it":             {"s4://u:123:tail@h/x", "s4://u:xxxxx@h/x"},
		"a percent sign in it":      {"s4://u:123%tail@h/x", "s4://u:xxxxx@h/x"},
		"an @ in a parameter, too":  {"s4://u:123?tail@h/x?mail=a@b", "s4://u…"},
		"keys in parameters":        {"s4://h/x?key=123&secret=tail", "s4://h/x?…"},
		"a key with an @":           {"s4://h/x?key=123@tail", "s4://h…"},
		"no slashes":                {"s4:u:123?tail@h/x", "s4:u…"},
		"no scheme":                 {"u:123?tail@h/x", "u…"},
		"no user":                   {"s4://:123?tail@h", "s4://…"},
		"a user without a password": {"s4://u@h/x", "s4://u@h/x"},
		"a fragment":                {"s4://h/x#123", "s4://h/x"},
		"nothing secret":            {"s4://host:80/x", "s4://host:80/x"},
		"standard output":           {"jsonl:-", "jsonl:-"},
		"a path":                    {`C:\data\out`, `C:\data\out`},
	} {
		t.Run(claim, func(t *testing.T) {
			got := redact(tt.url)
			if got != tt.want {
				t.Errorf("%s is shown as %s, want %s", tt.url, got, tt.want)
			}
			if strings.Contains(got, "123") || strings.Contains(got, "hunter2") || strings.Contains(got, "tail") {
				t.Errorf("a part of the password is shown: %s", got)
			}
		})
	}
}
