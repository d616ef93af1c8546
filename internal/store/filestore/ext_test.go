package filestore

import (
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

func TestExtension(t *testing.T) {
	tests := map[string]struct{ contentType, url, want string }{
		"the content type decides":             {"text/html; charset=utf-8", "http://x/a.php", "html"},
		"its case does not matter":             {"Image/JPEG", "http://x/", "jpg"},
		"else the path of the URL":             {"application/octet-stream", "http://x/a/B.ISO?x=1.png#y.gif", "iso"},
		"no content type is no obstacle":       {"", "http://x/a.txt", "txt"},
		"a structured suffix helps":            {"application/vnd.api+json", "http://x/a", "json"},
		"plain text without a better name":     {"text/plain", "http://x/readme", "txt"},
		"plain text with one":                  {"text/plain", "http://x/a.log", "log"},
		"a broken content type is ignored":     {";;;", "http://x/", "bin"},
		"a dot in a folder is none":            {"", "http://x/a.b/c", "bin"},
		"a dot in the host is none":            {"", "http://x.com", "bin"},
		"nothing unsafe comes from the URL":    {"", "http://x/a.%2e%2e%2f", "bin"},
		"nothing long comes from the URL":      {"", "http://x/a.verylongextension", "bin"},
		"nothing unsafe comes from the header": {"../../etc", "", "bin"},
		"a URL that does not parse":            {"", "http://[::1", "bin"},
	}
	for claim, tt := range tests {
		t.Run(claim, func(t *testing.T) {
			got := extension(store.BodyMeta{ContentType: tt.contentType, URL: tt.url})
			if got != tt.want {
				t.Errorf("extension(%q, %q) = %q, want %q", tt.contentType, tt.url, got, tt.want)
			}
		})
	}
}

func FuzzExtension(f *testing.F) {
	f.Add("text/html", "http://x/a.b")
	f.Fuzz(func(t *testing.T, contentType, url string) {
		ext := extension(store.BodyMeta{ContentType: contentType, URL: url})
		if err := store.CheckName("extension", ext); err != nil || len(ext) > 12 {
			t.Errorf("extension(%q, %q) = %q", contentType, url, ext)
		}
	})
}
