// Package open chooses the store driver that a URL asks for. It is the one place that knows every driver; the rest
// of the program knows package store only.
package open

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
	"github.com/fetchfleet/fetchfleet/internal/store/filestore"
)

// Options are what every driver takes. The zero value is a durable store of an unnamed worker.
type Options struct {
	// Sync is how durable a committed unit is: "batch" (also ""): it survives a loss of power; "off": it survives
	// a crash of the program, not one of the machine.
	Sync string
	// MustExist refuses a store that is not there yet, for those who only read.
	MustExist bool
	// Worker is the name of this worker, for telling temporary files apart; "" means "worker".
	Worker string
}

// supported is what an error lists.
const supported = "file:DIR, file:///DIR or a path"

// Open opens the store that rawURL names: "file:DIR", "file:///DIR" or a bare path.
func Open(ctx context.Context, rawURL string, o Options) (store.Store, error) {
	dir, err := folder(rawURL)
	if err != nil {
		return nil, err
	}
	if o.MustExist {
		if _, err := os.Stat(dir); err != nil {
			return nil, fmt.Errorf("open store %q: there is no such folder: name the store that the workers were given: %w", rawURL, err)
		}
	}
	s, err := filestore.Open(ctx, dir, filestore.Options{Sync: o.Sync, Worker: o.Worker})
	if err != nil {
		return nil, err // not the nil *Store, which would make a non-nil interface
	}
	return s, nil
}

// folder returns the folder that a file URL or a bare path means.
func folder(raw string) (string, error) {
	if raw == "" {
		return "", fmt.Errorf("open store: no store given; supported: %s", supported)
	}
	scheme, rest, found := strings.Cut(raw, ":")
	if !found || !isScheme(scheme) {
		return raw, nil
	}
	if !strings.EqualFold(scheme, "file") {
		return "", fmt.Errorf("open store %q: unknown kind of store %q; supported: %s", redact(raw), scheme, supported)
	}
	if !strings.HasPrefix(rest, "//") {
		return nonEmpty(raw, rest)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("open store %q: not a URL; supported: %s", raw, supported)
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", fmt.Errorf("open store %q: %q stands where a host would; write file:///%s%s for an absolute path "+
			"or file:%s%s for a relative one", raw, u.Host, u.Host, u.Path, u.Host, u.Path)
	}
	return nonEmpty(raw, fromURLPath(u.Path))
}

// isScheme tells a URL's scheme (RFC 3986, section 3.1) from a path with a colon in it; one letter is a Windows drive.
func isScheme(s string) bool {
	if len(s) < 2 {
		return false
	}
	for i, c := range s {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
		if !letter && (i == 0 || !strings.ContainsRune("0123456789+-.", c)) {
			return false
		}
	}
	return true
}

// fromURLPath drops the slash before a Windows drive: "/C:/data" means "C:/data".
func fromURLPath(p string) string {
	if runtime.GOOS == "windows" && len(p) > 2 && p[0] == '/' && p[2] == ':' {
		p = p[1:]
	}
	return filepath.FromSlash(p)
}

func nonEmpty(raw, dir string) (string, error) {
	if dir == "" {
		return "", fmt.Errorf("open store %q: no folder given; supported: %s", raw, supported)
	}
	return dir, nil
}

// redact hides a password, since an error of ours may be logged.
func redact(raw string) string {
	if u, err := url.Parse(raw); err == nil {
		return u.Redacted()
	}
	return "(not a URL)"
}
