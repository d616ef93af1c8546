package open

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/fetchfleet/fetchfleet/internal/store/s3store"
	"github.com/fetchfleet/fetchfleet/internal/store/s3store/s3test"
)

func TestOpen(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	tests := map[string]struct{ url, want string }{
		"a bare path":                {filepath.Join(dir, "a"), "file:" + filepath.Join(dir, "a")},
		"a relative path":            {"b/c", "file:" + filepath.Join(dir, "b", "c")},
		"a file URL with a path":     {"file:" + filepath.Join(dir, "d"), "file:" + filepath.Join(dir, "d")},
		"a relative file URL":        {"file:e", "file:" + filepath.Join(dir, "e")},
		"a path with a colon in it":  {"./f:g", "file:" + filepath.Join(dir, "f:g")},
		"an upper-case scheme":       {"FILE:h", "file:" + filepath.Join(dir, "h")},
		"three slashes":              {"file://" + filepath.Join(dir, "i"), "file:" + filepath.Join(dir, "i")},
		"percent-encoded in an URL":  {"file://" + filepath.Join(dir, "j%20k"), "file:" + filepath.Join(dir, "j k")},
		"localhost before the path":  {"file://localhost" + filepath.Join(dir, "l"), "file:" + filepath.Join(dir, "l")},
		"literal percent in a path":  {"file:m%20n", "file:" + filepath.Join(dir, "m%20n")},
		"a folder with a plus in it": {"o+p", "file:" + filepath.Join(dir, "o+p")},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if runtime.GOOS == "windows" {
				t.Skip("paths here are written for systems with slashes")
			}
			s, err := Open(t.Context(), tt.url, Options{Worker: "w", Sync: "off"})
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if got := s.String(); got != tt.want {
				t.Errorf("Open(%q) = %s, want %s", tt.url, got, tt.want)
			}
		})
	}
}

func TestOpenChoosesTheFormatOfABucket(t *testing.T) {
	server := s3test.Start(t)
	for _, format := range []string{"file", "warc"} {
		url := server.URL(format) + "&format=" + format
		s, err := Open(t.Context(), url, Options{Worker: "w"})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		u, err := s.Begin(t.Context(), "job", "b1")
		if err != nil {
			t.Fatal(err)
		}
		if err := u.Discard(); err != nil {
			t.Error(err)
		}
		if _, isArchive := s.(*s3store.Archive); isArchive != (format == "warc") {
			t.Errorf("%s opens a %T", url, s)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Chdir(t.TempDir())
	tests := map[string]struct{ url, says string }{
		"nothing":                  {"", "supported: file:DIR"},
		"an unknown scheme":        {"ftp://host/x", "supported: file:DIR"},
		"a scheme without folder":  {"file:", "no folder given"},
		"two slashes by mistake":   {"file://data/out", "file:///data/out"},
		"a password is not echoed": {"s4://user:hunter2@host/x", "user:xxxxx@"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s, err := Open(t.Context(), tt.url, Options{})
			if err == nil {
				s.Close()
				t.Fatalf("Open(%q) succeeded", tt.url)
			}
			if s != nil {
				t.Errorf("Open(%q) returned a store beside its error", tt.url)
			}
			if !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("Open(%q) says %q, want it to say %q", tt.url, err, tt.says)
			}
		})
	}
}

func TestAFolderOfTheOtherKindIsRefused(t *testing.T) {
	for kind, other := range map[string]string{"file": ".fetchfleet-warc", "warc": ".fetchfleet-store"} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, other), nil, 0o644); err != nil {
			t.Fatal(err)
		}
		for _, must := range []bool{false, true} {
			s, err := Open(t.Context(), kind+":"+dir, Options{MustExist: must})
			if err == nil {
				s.Close()
			}
			if err == nil || !strings.Contains(err.Error(), "name it as ") {
				t.Errorf("Open of a folder with %s as %s: %v, want what kind it is", other, kind, err)
			}
		}
	}
}

func TestOpenRefusesAnUnknownSync(t *testing.T) {
	if _, err := Open(t.Context(), t.TempDir(), Options{Sync: "sometimes"}); err == nil {
		t.Error("Open with Sync \"sometimes\" succeeded")
	}
}
