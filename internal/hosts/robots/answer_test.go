package robots

import (
	"net/http"
	"testing"
	"time"
)

func TestOfStatus(t *testing.T) {
	tests := []struct {
		name string
		code int
		want Verdict
	}{
		{"a file that is there is read", 200, Parsed},
		{"any success is", 299, Parsed},
		{"a file that is missing allows", 404, AllowAll},
		{"one that is gone allows", 410, AllowAll},
		{"no leave to read it allows", 401, AllowAll},
		{"a file that is forbidden allows", 403, AllowAll},
		{"the last client error allows", 499, AllowAll},
		{"a host that is asked too often is not asked more", 429, Unavailable},
		{"a redirect that leads nowhere allows", 302, AllowAll},
		{"an answer about a copy is none", 304, Unavailable},
		{"a server error forbids", 500, Unavailable},
		{"a busy server forbids", 503, Unavailable},
		{"no answer forbids", 0, Unavailable},
		{"an answer before the answer forbids", 103, Unavailable},
		{"a code that is none forbids", 600, Unavailable},
		{"a negative code forbids", -1, Unavailable},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := OfStatus(tt.code); got != tt.want {
				t.Errorf("OfStatus(%d) = %v, want %v", tt.code, got, tt.want)
			}
		})
	}
	if got := Parsed.String() + " " + AllowAll.String() + " " + Verdict(0).String(); got != "parsed allow_all unavailable" {
		t.Errorf("the verdicts are called %s", got)
	}
}

func TestLifetime(t *testing.T) {
	now := time.Date(2025, 3, 4, 5, 6, 7, 0, time.UTC)
	in := func(d time.Duration) string { return now.Add(d).Format(http.TimeFormat) }
	tests := []struct {
		name string
		h    http.Header
		want time.Duration
	}{
		{"no header is a day", nil, MaxLifetime},
		{"other directives are a day", http.Header{"Cache-Control": {"public, must-revalidate"}}, MaxLifetime},
		{"max-age counts", http.Header{"Cache-Control": {"public, Max-Age=3600"}}, time.Hour},
		{"max-age may be quoted", http.Header{"Cache-Control": {`max-age="3600"`}}, time.Hour},
		{"the shortest of several max-age counts", http.Header{"Cache-Control": {"max-age=7200", "max-age=3600,max-age=9000"}}, time.Hour},
		{"no lifetime is beyond a day", http.Header{"Cache-Control": {"max-age=86401"}}, MaxLifetime},
		{"a number beyond all measure is a day", http.Header{"Cache-Control": {"max-age=99999999999999999999999"}}, MaxLifetime},
		{"no lifetime is below a minute", http.Header{"Cache-Control": {"max-age=0"}}, MinLifetime},
		{"a max-age that is no number has passed", http.Header{"Cache-Control": {"max-age=-1"}, "Expires": {in(time.Hour)}}, MinLifetime},
		{"no-store is a minute", http.Header{"Cache-Control": {"max-age=3600, no-store"}}, MinLifetime},
		{"no-cache is a minute", http.Header{"Cache-Control": {"no-cache", "max-age=3600"}}, MinLifetime},
		{"age is taken off", http.Header{"Cache-Control": {"max-age=3600"}, "Age": {"600"}}, 50 * time.Minute},
		{"more age than lifetime is a minute", http.Header{"Cache-Control": {"max-age=3600"}, "Age": {"99999999999999999999"}}, MinLifetime},
		{"an age that is no number is none", http.Header{"Cache-Control": {"max-age=3600"}, "Age": {"old"}}, time.Hour},
		{"age alone says nothing", http.Header{"Age": {"600"}}, MaxLifetime},
		{"expires counts from now", http.Header{"Expires": {in(time.Hour)}}, time.Hour},
		{"expires counts from the date of the same clock", http.Header{"Expires": {in(2 * time.Hour)}, "Date": {in(time.Hour)}}, time.Hour},
		{"max-age comes before expires", http.Header{"Cache-Control": {"max-age=120"}, "Expires": {in(time.Hour)}}, 2 * time.Minute},
		{"expires in the past is a minute", http.Header{"Expires": {in(-time.Hour)}}, MinLifetime},
		{"expires that is no time has passed", http.Header{"Expires": {"0"}}, MinLifetime},
		{"expires of long ago, with age, is a minute", http.Header{"Expires": {"Mon, 01 Jan 0001 00:00:00 GMT"}, "Age": {"600"}}, MinLifetime},
		{"expires far ahead is a day", http.Header{"Expires": {"Fri, 31 Dec 9999 23:59:59 GMT"}}, MaxLifetime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Lifetime(tt.h, now); got != tt.want {
				t.Errorf("Lifetime(%v) = %v, want %v", tt.h, got, tt.want)
			}
		})
	}
}
