package fetch

import (
	"math"
	"net/http"
	"testing"
	"time"
)

func TestParseRetryAfter(t *testing.T) {
	now := time.Date(1994, 11, 6, 8, 49, 7, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"0":                              0,
		"120":                            2 * time.Minute,
		" 7 ":                            7 * time.Second,
		"007":                            7 * time.Second,
		"-1":                             0,
		"-99999999999999999999":          0,
		"9223372037":                     math.MaxInt64,
		"99999999999999999999999":        math.MaxInt64,
		"Sun, 06 Nov 1994 08:49:37 GMT":  30 * time.Second,
		"Sunday, 06-Nov-94 08:49:37 GMT": 30 * time.Second,
		"Sun Nov  6 08:49:37 1994":       30 * time.Second,
		"Sun, 06 Nov 1994 08:49:00 GMT":  0,
		"Sun, 06 Nov 9994 08:49:00 GMT":  math.MaxInt64,
	} {
		if got, ok := ParseRetryAfter(value, now); got != want || !ok {
			t.Errorf("ParseRetryAfter(%q) = %v, %v, want %v", value, got, ok, want)
		}
	}
	for _, value := range []string{"", "-", "soon", "1.5", "1 2", "+1", "0x10", "٣", "Sun, 06 Nov"} {
		if got, ok := ParseRetryAfter(value, now); ok || got != 0 {
			t.Errorf("ParseRetryAfter(%q) = %v, %v, want no answer", value, got, ok)
		}
	}
}

func TestRetryAfterIsJudgedByTheClockOfTheServer(t *testing.T) {
	now := time.Date(1994, 11, 6, 8, 49, 7, 0, time.UTC)
	const at = "Sun, 06 Nov 1994 08:49:37 GMT"
	for _, tt := range []struct {
		name string
		h    http.Header
		want time.Duration
		ok   bool
	}{
		{"a server whose clock is a day behind", http.Header{"Retry-After": {"Sat, 05 Nov 1994 08:49:37 GMT"}, "Date": {"Sat, 05 Nov 1994 08:49:32 GMT"}}, 5 * time.Second, true},
		{"a server whose clock is an hour ahead", http.Header{"Retry-After": {"Sun, 06 Nov 1994 09:49:37 GMT"}, "Date": {"Sun, 06 Nov 1994 09:49:07 GMT"}}, 30 * time.Second, true},
		{"a date that is over by its own clock", http.Header{"Retry-After": {at}, "Date": {"Sun, 06 Nov 1994 08:50:00 GMT"}}, 0, true},
		{"no Date: ours counts", http.Header{"Retry-After": {at}}, 30 * time.Second, true},
		{"a Date that is none: ours counts", http.Header{"Retry-After": {at}, "Date": {"today"}}, 30 * time.Second, true},
		{"seconds have no clock", http.Header{"Retry-After": {"7"}, "Date": {"Sat, 05 Nov 1994 08:49:32 GMT"}}, 7 * time.Second, true},
		{"neither", http.Header{"Retry-After": {"soon"}, "Date": {at}}, 0, false},
		{"nothing", nil, 0, false},
	} {
		if got, ok := RetryAfter(tt.h, now); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %v, %v, want %v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func FuzzParseRetryAfter(f *testing.F) {
	for _, s := range []string{"1", "-1", "99999999999", "Sun, 06 Nov 1994 08:49:37 GMT", "x"} {
		f.Add(s, int64(0))
	}
	f.Fuzz(func(t *testing.T, value string, unix int64) {
		now := time.Unix(unix%(1<<40), 0)
		wait, ok := ParseRetryAfter(value, now)
		if wait < 0 || !ok && wait != 0 {
			t.Fatalf("ParseRetryAfter(%q) = %v, %v", value, wait, ok)
		}
		if later, stillOK := ParseRetryAfter(value, now.Add(time.Hour)); stillOK != ok || later > wait {
			t.Fatalf("an hour later %q waits %v instead of %v", value, later, wait)
		}
	})
}
