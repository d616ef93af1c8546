package tasks

import (
	"fmt"
	"strconv"
	"strings"
)

// RetryOn adds statuses and error classes to those that are retried, or takes them away: "404,-500,reset,-idle_timeout".
type RetryOn string

// RetryRule answers, for a status ("503") or an error class ("reset"), whether the job's spec decides on it.
type RetryRule map[string]bool

// Compile reads the list. Statuses are three digits; classes are not checked against the known ones, so that an older
// worker serves a newer job.
func (r RetryOn) Compile() (RetryRule, error) {
	rule := RetryRule{}
	if r == "" {
		return rule, nil
	}
	for part := range strings.SplitSeq(string(r), ",") {
		name := strings.TrimSpace(part)
		retry := !strings.HasPrefix(name, "-")
		name = strings.TrimSpace(strings.TrimLeft(name, "+-"))
		if name == "" {
			return nil, fmt.Errorf("--retry-on %q: an empty entry; write statuses and error classes like 404,-500,reset", string(r))
		}
		if n, err := strconv.Atoi(name); err == nil {
			if n < 100 || n > 599 {
				return nil, fmt.Errorf("--retry-on %q: %d is not an HTTP status", string(r), n)
			}
			name = strconv.Itoa(n)
		}
		rule[name] = retry
	}
	return rule, nil
}
