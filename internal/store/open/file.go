package open

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"strings"
)

// exists refuses a folder that is not there where it must be.
func exists(raw, dir string, o Options) error {
	if !o.MustExist {
		return nil
	}
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("open store %q: there is no such folder: name the store that the workers were given: %w", raw, err)
	}
	return nil
}

// folder returns the folder that a URL of the form SCHEME:DIR or SCHEME:///DIR, or a bare path, means.
func folder(raw string) (string, error) {
	scheme, rest, found := strings.Cut(raw, ":")
	if !found || !isScheme(scheme) {
		return raw, nil
	}
	if !strings.HasPrefix(rest, "//") {
		return nonEmpty(raw, rest)
	}
	u, err := url.Parse(raw)
	if err != nil {
		return "", fmt.Errorf("open store %q: not a URL; %s", raw, supported())
	}
	if u.Host != "" && u.Host != "localhost" {
		return "", fmt.Errorf("open store %q: %q stands where a host would; write %s:///%s%s for an absolute path "+
			"or %s:%s%s for a relative one", raw, u.Host, scheme, u.Host, u.Path, scheme, u.Host, u.Path)
	}
	return nonEmpty(raw, fromURLPath(u.Path))
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
		return "", fmt.Errorf("open store %q: no folder given; %s", raw, supported())
	}
	return dir, nil
}
