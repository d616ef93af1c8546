package worker

import "testing"

func TestTheErrorATaskStandsWithStaysBehindNewerOnes(t *testing.T) {
	for name, c := range map[string]struct{ newer, earlier, want string }{
		"there was none": {"redis: timeout", "", "redis: timeout"},
		"one":            {"redis: timeout", "http_500 (attempts: 2)", "redis: timeout (before that: http_500 (attempts: 2))"},
		"one behind another, which is dropped": {"begin: refused", "redis: timeout (before that: http_500 (attempts: 2))",
			"begin: refused (before that: http_500 (attempts: 2))"},
	} {
		t.Run(name, func(t *testing.T) {
			got := withEarlier(c.newer, c.earlier)
			if got != c.want {
				t.Errorf("got %q, want %q", got, c.want)
			}
			if c.earlier != "" && !standsWith(got, "http_500 (attempts: 2)") {
				t.Errorf("%q does not stand with the first error", got)
			}
			if standsWith(got, "(attempts: 2)") || standsWith(got, "http_500") {
				t.Errorf("%q stands with a part of its error", got)
			}
		})
	}
}
