package filestore

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestPathName(t *testing.T) {
	const html = "text/html; charset=utf-8"
	long := strings.Repeat("x", 300)
	tests := map[string]struct{ url, contentType, want string }{
		"the page of a folder":                      {"http://example.com/", html, "example.com/index.html"},
		"a host alone":                              {"http://example.com", html, "example.com/index.html"},
		"a folder below":                            {"http://example.com/a/b/", html, "example.com/a/b/index.html"},
		"a folder that answers otherwise":           {"http://example.com/a/", "application/json", "example.com/a/index.json"},
		"a folder whose type nobody knows":          {"http://example.com/a/", "", "example.com/a/index.html"},
		"a page without extension":                  {"http://example.com/about", html, "example.com/about.html"},
		"a file with one keeps it":                  {"http://example.com/i/Logo.PNG", "image/png", "example.com/i/Logo.PNG"},
		"a file whose type says another":            {"http://example.com/page.php", html, "example.com/page.php"},
		"a file without extension or type":          {"http://example.com/LICENSE", "", "example.com/LICENSE"},
		"a number is no extension":                  {"http://example.com/v1.2", html, "example.com/v1.2.html"},
		"nor is a long word":                        {"http://example.com/a.something", html, "example.com/a.something.html"},
		"a port":                                    {"http://example.com:8080/a.txt", "", "example.com+8080/a.txt"},
		"an IPv6 address":                           {"http://[2001:db8::1]:81/a.txt", "", "2001-db8--1+81/a.txt"},
		"capitals of a host":                        {"HTTP://Example.COM/A", html, "example.com/A.html"},
		"a user is nobody's business":               {"http://me:secret@example.com/a.txt", "", "example.com/a.txt"},
		"a fragment":                                {"http://example.com/a.txt#b", "", "example.com/a.txt"},
		"a query":                                   {"http://example.com/list?q=cats&p=2", html, "example.com/list@q=cats&p=2~d1077d8f.html"},
		"a query of a folder":                       {"http://example.com/?a", html, "example.com/index@a~ca978112.html"},
		"a query of a file with extension":          {"http://example.com/a.css?v=1", "text/css", "example.com/a@v=1~*.css"},
		"a query with a path in it":                 {"http://example.com/r?to=http://x/../y", html, "example.com/r@to=http%3A%2F%2Fx%2F..%2Fy~*.html"},
		"an empty query":                            {"http://example.com/a.txt?", "", "example.com/a.txt"},
		"letters of any script":                     {"http://example.com/%C3%A4/%E6%97%A5%E6%9C%AC.html", html, "example.com/ä/日本.html"},
		"spaces within":                             {"http://example.com/a%20b.txt", "", "example.com/a b.txt"},
		"a slash that is none":                      {"http://example.com/a%2Fb.txt", "", "example.com/a%2Fb.txt"},
		"a percent sign":                            {"http://example.com/100%25.txt", "", "example.com/100%25.txt"},
		"bytes that are no text":                    {"http://example.com/%FF%00.txt", "", "example.com/%FF%00.txt"},
		"control characters":                        {"http://example.com/a%0Ab%1B%7F.txt", "", "example.com/a%0Ab%1B%7F.txt"},
		"a text that is turned around":              {"http://example.com/%E2%80%AEtxt.exe", "", "example.com/%E2%80%AEtxt.exe"},
		"what Windows reserves":                     {"http://example.com/a:b*c%3F%22%3C%3E%7C%5C.txt", "", "example.com/a%3Ab%2Ac%3F%22%3C%3E%7C%5C.txt"},
		"dots at the end":                           {"http://example.com/a../b.", "", "example.com/a.%2E/b%2E"},
		"spaces at the ends":                        {"http://example.com/%20a%20/b%20", "", "example.com/%20a%20/b%20"},
		"the folder above":                          {"http://example.com/%2e%2e/%2e%2e/etc/passwd", "", "example.com/%2E%2E/%2E%2E/etc/passwd"},
		"the folder above as it is":                 {"http://example.com/../../etc/passwd", "", "example.com/%2E%2E/%2E%2E/etc/passwd"},
		"many dots":                                 {"http://example.com/.../x.txt", "", "example.com/%2E%2E%2E/x.txt"},
		"slashes in a row":                          {"http://example.com//a///b.txt", "", "example.com/a/b.txt"},
		"a hidden file":                             {"http://example.com/.well-known/.x", "", "example.com/.well-known/.x"},
		"a device of Windows":                       {"http://example.com/con/AUX.txt", "", "example.com/con_/AUX_.txt"},
		"another":                                   {"http://example.com/lpt1", html, "example.com/lpt1_.html"},
		"a device as a host":                        {"http://nul/x.txt", "", "nul_/x.txt"},
		"no device":                                 {"http://example.com/console/com10.txt", "", "example.com/console/com10.txt"},
		"a long name":                               {"http://example.com/" + long + ".html", html, "example.com/" + long[:186] + "~*.html"},
		"a long folder":                             {"http://example.com/" + long + "/a.txt", "", "example.com/" + long[:191] + "~*/a.txt"},
		"a percent sign where it is cut":            {"http://example.com/" + long[:190] + "%2F%2F%2F%2F/a.txt", "", "example.com/" + long[:190] + "~*/a.txt"},
		"a deep path":                               {"http://example.com" + strings.Repeat("/a", 100) + "/b.txt", "", "example.com" + strings.Repeat("/a", 17) + "/*/b.txt"},
		"an URL without host has the digest's name": {"mailto:x@example.com", "", ""},
		"as has none":                               {"", "", ""},
		"and one that does not parse":               {"http://[::1", "", ""},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			got := pathName(store.BodyMeta{URL: tt.url, ContentType: tt.contentType})
			before, after, ok := strings.Cut(tt.want, "*")
			switch {
			case tt.want == "":
				ok = got == ""
			case ok:
				middle := strings.TrimSuffix(strings.TrimPrefix(got, "bodies/"+before), after)
				ok = got == "bodies/"+before+middle+after && len(middle) == 8
			default:
				ok = got == "bodies/"+tt.want
			}
			if !ok {
				t.Errorf("pathName(%q, %q) = %q, want %q", tt.url, tt.contentType, got, tt.want)
			}
		})
	}
}

func TestNamesNearby(t *testing.T) {
	for _, tt := range []struct{ got, want string }{
		{variant("bodies/x/a.html", "~1"), "bodies/x/a~1.html"},
		{variant("bodies/x.y/a", "~1"), "bodies/x.y/a~1"},
		{variant("bodies/x/.htaccess", "~1"), "bodies/x/.htaccess~1"},
		{flat("bodies/x/a.html/b/c.css", "~1"), "bodies/x/a.html_b_c~1.css"},
	} {
		if tt.got != tt.want {
			t.Errorf("got %q, want %q", tt.got, tt.want)
		}
	}
}

func FuzzPathName(f *testing.F) {
	for _, url := range []string{"http://x/", "http://x/../..//%2e%2e/%5c..%5cx", "http://con:80/nul.txt?a=/../", "http://x/a%00b.%20", "http://[::1]/%E2%80%AE",
		"http://x/" + strings.Repeat("é/", 500), "http://x/" + strings.Repeat(".", 400), "http://../..", "http://x/%C2%B9/com%C2%B9.txt", "http://x/ .", "http://x/a?" + strings.Repeat("%ff", 99)} {
		f.Add(url, "text/html")
	}
	f.Fuzz(func(t *testing.T, url, contentType string) {
		name := pathName(store.BodyMeta{URL: url, ContentType: contentType})
		if name == "" {
			return
		}
		sha := strings.Repeat("0123456789abcdef", 4)
		for _, name := range []string{name, variant(name, "~"+sha[:8]), variant(name, "~"+sha[:32]), flat(name, "~"+sha[:8]), flat(name, "~"+sha[:32])} {
			wantPortable(t, name)
			if err := checkBody(name); err != nil {
				t.Errorf("%q cannot be opened: %v", name, err)
			}
		}
	})
}

// wantPortable says in its own words what a name must be, apart from what checkBody says.
func wantPortable(t *testing.T, name string) {
	t.Helper()
	segments := strings.Split(name, "/")
	if segments[0] != "bodies" || len(segments) < 3 || len(segments) > maxDepth || len(name) > 1000 || !utf8.ValidString(name) {
		t.Fatalf("%q has %d segments and %d bytes", name, len(segments), len(name))
	}
	for _, s := range segments {
		stem, _, _ := strings.Cut(strings.ToLower(s), ".")
		switch {
		case s == "" || s == "." || s == ".." || len(s) > 255:
			t.Errorf("%q has the segment %q", name, s)
		case strings.ContainsAny(s, "\\:*?\"<>|\x00\x7f") || strings.IndexFunc(s, func(r rune) bool { return r < ' ' }) >= 0:
			t.Errorf("%q has the segment %q", name, s)
		case s[0] == ' ' || s[len(s)-1] == ' ' || s[len(s)-1] == '.':
			t.Errorf("%q has the segment %q", name, s)
		}
		switch strings.TrimRight(stem, " ") {
		case "con", "prn", "aux", "nul", "com1", "com9", "com0", "lpt1", "lpt3", "com¹", "lpt³", "conin$", "conout$":
			t.Errorf("%q has the device %q", name, s)
		}
	}
}
