package export

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestFilterMatches(t *testing.T) {
	tests := map[string]struct {
		conditions []string
		want       bool // of everything
		wantBare   bool
	}{
		"no condition":                                {nil, true, true},
		"an outcome":                                  {[]string{"outcome=http_error"}, true, false},
		"any of two outcomes":                         {[]string{"outcome=failed,http_error"}, true, true},
		"none of two outcomes":                        {[]string{"outcome!=ok, failed"}, true, false},
		"two conditions must both hold":               {[]string{"outcome=http_error", "status=404"}, false, false},
		"a status":                                    {[]string{"status=503"}, true, false},
		"a greater status":                            {[]string{"status>=500"}, true, false},
		"no status is not a small one":                {[]string{"status<400"}, false, false},
		"no status":                                   {[]string{"status="}, false, true},
		"some status":                                 {[]string{"status!="}, true, false},
		"no status is not 404":                        {[]string{"status!=404"}, true, true},
		"spaces do not matter":                        {[]string{" status >= 500 "}, true, false},
		"an error class by its path":                  {[]string{"error.class=http_503"}, true, false},
		"an error class by its short name":            {[]string{"class=http_503,reset"}, true, false},
		"an error class by its column":                {[]string{"error_class~^http_"}, true, false},
		"no error":                                    {[]string{"error.class="}, false, true},
		"a host":                                      {[]string{"host=example.test"}, true, false},
		"a host as people write it":                   {[]string{"host=EXAMPLE.test:443"}, true, false},
		"a host with its port":                        {[]string{"host=example.test:8080"}, false, true},
		"hosts by an expression":                      {[]string{`host~^example\.`}, true, true},
		"a URL with a comma":                          {[]string{`url=https://example.test/a,b?q="x"`}, true, false},
		"a URL with an operator in it":                {[]string{"url=http://example.test:8080/"}, false, true},
		"a part of a URL":                             {[]string{"url~:8080"}, false, true},
		"a final URL":                                 {[]string{"final_url~ä$"}, true, false},
		"a method in any case":                        {[]string{"method=post"}, true, false},
		"a media type without parameters":             {[]string{"content_type=Text/HTML,text/plain"}, true, false},
		"a media type with its parameter":             {[]string{"content_type=text/html; charset=utf-8"}, true, false},
		"a media type with another parameter":         {[]string{"content_type=text/html; charset=latin-1"}, false, false},
		"bytes below":                                 {[]string{"bytes<12"}, false, true},
		"bytes at most":                               {[]string{"bytes<=12"}, true, true},
		"attempts above":                              {[]string{"attempts>1"}, true, false},
		"a fraction":                                  {[]string{"elapsed_ms>1234.5"}, true, false},
		"a phase":                                     {[]string{"timings.ttfb>=20"}, true, false},
		"a phase of nothing is not short":             {[]string{"timings.ttfb<=20"}, true, false},
		"a day":                                       {[]string{"fetched_at=2026-02-03"}, true, false},
		"two days":                                    {[]string{"fetched_at=2026-02-03,2026-02-04"}, true, true},
		"not on a day":                                {[]string{"fetched_at!=2026-02-03"}, false, true},
		"before a day":                                {[]string{"fetched_at<2026-02-04"}, true, false},
		"up to the end of a day":                      {[]string{"fetched_at<=2026-02-03"}, true, false},
		"after a day":                                 {[]string{"fetched_at>2026-02-03"}, false, true},
		"from a day on":                               {[]string{"fetched_at>=2026-02-03"}, true, true},
		"before a time elsewhere":                     {[]string{"fetched_at<2026-02-03T05:05:07+01:00"}, true, false},
		"at a time":                                   {[]string{"fetched_at=2026-02-04T00:00:00Z"}, false, true},
		"a worker":                                    {[]string{"worker=w2,w3"}, false, true},
		"a protocol":                                  {[]string{"protocol=http/2.0"}, true, false},
		"unchanged":                                   {[]string{"unchanged=true"}, true, false},
		"not unchanged":                               {[]string{"unchanged=false"}, false, true},
		"meta with a comma":                           {[]string{"meta.tag=one, two"}, true, false},
		"a number in meta":                            {[]string{"meta.n=7"}, true, false},
		"a number in meta, compared":                  {[]string{"meta.n>6.5"}, true, false},
		"meta below meta":                             {[]string{"meta.deep.er=true"}, true, false},
		"an object in meta":                           {[]string{`meta.deep={"er":true}`}, true, false},
		"null in meta is no value":                    {[]string{"meta.a.b="}, true, true},
		"meta that is not there":                      {[]string{"meta.x="}, true, true},
		"meta that is not there is no other":          {[]string{"meta.x!=1"}, true, true},
		"text in meta is no number":                   {[]string{"meta.tag>0"}, false, false},
		"a header in any case":                        {[]string{`header.etag="x"`}, true, false},
		"a header of two lines":                       {[]string{"header.set-cookie=a=1, b=<2>"}, true, false},
		"a header, compared":                          {[]string{"header.content-length<100"}, true, false},
		"no such header":                              {[]string{"header.server="}, true, true},
		"an expression on all headers":                {[]string{"headers~Cookie"}, true, false},
		"an expression that nothing of nothing meets": {[]string{"final_url~.*"}, true, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			f, err := ParseFilter(tt.conditions...)
			if err != nil {
				t.Fatal(err)
			}
			if got := f.Match(everything()); got != tt.want {
				t.Errorf("%s matches the full record: %t", f, got)
			}
			if got := f.Match(bare()); got != tt.wantBare {
				t.Errorf("%s matches the bare record: %t", f, got)
			}
		})
	}
}

func TestFilterRefuses(t *testing.T) {
	tests := map[string]struct{ condition, says string }{
		"nothing":                      {"", `"": no condition: write FIELD=VALUE`},
		"a field alone":                {"outcome", `no condition: write FIELD=VALUE`},
		"no field":                     {"=ok", `there is no field ""; there are attempts, `},
		"an unknown field":             {"colour=red", `there is no field "colour"; there are attempts, batch, body, body_job, bytes, charset, content_type, elapsed_ms, error_class, `},
		"a field in another case":      {"Status=200", `there is no field "Status"`},
		"no key of meta":               {"meta.=1", `there is no field "meta."`},
		"an unknown outcome":           {"outcome=broken", `"broken" is no outcome; there are ok, http_error, failed, skipped`},
		"one unknown outcome of two":   {"outcome=ok,broken", `"broken" is no outcome`},
		"no outcome":                   {"outcome=", `"" is no outcome`},
		"an empty entry":               {"status=200,,404", "an empty entry; write status=ONE,OTHER"},
		"a status that is no number":   {"status=4xx", `"4xx" is no number`},
		"a comparison without number":  {"bytes>many", `"many" is no number`},
		"infinity":                     {"bytes<inf", `"inf" is no number`},
		"hexadecimal":                  {"bytes<0x10", `"0x10" is no number`},
		"no number where there is one": {"bytes=", `"" is no number`},
		"a header compared with text":  {"header.age>old", `"old" is no number`},
		"text that is greater":         {"host>a", "host is no number and no time: compare it with = != ~"},
		"an expression on a number":    {"status~^4", "status is no text: compare it with = != < <= > >="},
		"a broken expression":          {"url~(", "no RE2 regular expression"},
		"a time that is none":          {"fetched_at>yesterday", `"yesterday" is no time: write a date like 2006-01-02, or RFC 3339`},
		"neither true nor false":       {"unchanged=maybe", `"maybe": unchanged is true or false`},
		"a lonely exclamation mark":    {"status!200", `no operator at "!200"`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := ParseFilter("outcome=ok", tt.condition)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("ParseFilter(%q) says %v, want it to say %s", tt.condition, err, tt.says)
			}
		})
	}
}

// FuzzFilter holds that a filter is read again from what it prints, that both match the same, and that = and != never
// agree.
func FuzzFilter(f *testing.F) {
	for _, seed := range []string{
		"outcome=failed,http_error", "status>=500", "error.class!=reset", "url~^https?://", "fetched_at<2026-02-04", "status=",
		"meta.deep.er=true", "header.etag=\"x\"", "unchanged=true", "bytes<1e3", "meta.a~ =", "url==x", "host=EXAMPLE.test:443",
	} {
		f.Add(seed, `{"tag":"a"}`)
	}
	f.Fuzz(func(t *testing.T, condition, meta string) {
		one, err := ParseFilter(condition)
		if err != nil {
			return
		}
		two, err := ParseFilter(one.String())
		if err != nil || one.String() != two.String() {
			t.Fatalf("%q prints as %q, which is read as %q, %v", condition, one, two, err)
		}
		odd := everything()
		odd.Meta = json.RawMessage(meta)
		for _, r := range []*store.Record{everything(), bare(), odd, {FetchedAt: time.Time{}}} {
			if one.Match(r) != two.Match(r) {
				t.Errorf("%q and %q differ on %s", condition, one, r.ID)
			}
			if term := one.terms[0]; term.op == "=" {
				opposite, err := ParseFilter(term.field.name + "!=" + strings.Join(term.given, ","))
				if err != nil || opposite.Match(r) == one.Match(r) {
					t.Errorf("%q and its opposite agree, %v", condition, err)
				}
			}
		}
	})
}
