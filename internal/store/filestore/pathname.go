package filestore

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/url"
	"path"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// Bounds of a path name. A segment leaves room for the two short digests that may be put into it, within the 255 bytes
// that file systems allow; the whole stays within what every system opens and every object store takes as a key.
const (
	maxSegment  = 200 // bytes
	maxQuery    = 80  // bytes of a query that are kept readable
	maxPath     = 800 // bytes, bodies/ and host included
	maxSegments = maxDepth - 4
)

// pathName returns the Body field that a person would expect for a URL, or "" where it names no host:
//
//	http://example.com/                  bodies/example.com/index.html
//	http://example.com:8080/a/b.png      bodies/example.com+8080/a/b.png
//	http://example.com/list?q=1&p=2      bodies/example.com/list@q=1&p=2~1a2b3c4d.html
//
// What is not safe in a name on Linux, macOS and Windows stays or becomes percent-encoded; a name without extension
// gets that of its content type. Different URLs may have one name, and a name may need a folder where a file is: placePath
// sees to both. A tree that holds names which differ by case alone cannot be copied to a system where they do not.
func pathName(meta store.BodyMeta) string {
	u, err := url.Parse(meta.URL)
	if err != nil || u.Hostname() == "" {
		return ""
	}
	segments := []string{hostSegment(u)}
	rest := strings.Split(u.EscapedPath(), "/")
	for _, s := range rest[:len(rest)-1] {
		if s != "" {
			segments = append(segments, segment(unescape(s)))
		}
	}
	segments = bounded(append(segments, lastSegment(rest[len(rest)-1], u, meta)))
	return bodiesFolder + "/" + strings.Join(segments, "/")
}

// hostSegment is the host in lower case, with "+PORT" where the URL has one. An IPv6 address has '-' for ':'.
func hostSegment(u *url.URL) string {
	host := strings.ReplaceAll(strings.ToLower(u.Hostname()), ":", "-")
	if port := u.Port(); port != "" {
		host += "+" + port
	}
	return segment(host)
}

// lastSegment is the name of the file: stem, query, extension.
func lastSegment(escaped string, u *url.URL, meta store.BodyMeta) string {
	name := unescape(escaped)
	stem, ext := cutExtension(name)
	if ext == "" {
		ext = extension(store.BodyMeta{ContentType: meta.ContentType})
		switch {
		case ext != "bin":
		case name == "":
			ext = "html"
		default:
			ext = ""
		}
	}
	if stem == "" {
		stem = "index"
	}
	stem = safe(stem)
	if u.RawQuery != "" {
		stem += "@" + truncated(safe(unescape(u.RawQuery)), maxQuery) + shortDigest(u.RawQuery)
	}
	if ext != "" {
		stem = shortened(stem, maxSegment-len(ext)-1) + "." + ext
	}
	return portable(stem)
}

// cutExtension parts a file name at an extension that looks like one: up to eight letters and digits, not digits alone.
func cutExtension(name string) (stem, ext string) {
	stem, ext = strings.TrimSuffix(name, path.Ext(name)), strings.TrimPrefix(path.Ext(name), ".")
	if stem == "" || ext == "" || len(ext) > maxExtension {
		return name, ""
	}
	digits := true
	for i := range len(ext) {
		c := ext[i] | 0x20
		letter := 'a' <= c && c <= 'z'
		if !letter && (c < '0' || c > '9') {
			return name, ""
		}
		digits = digits && !letter
	}
	if digits {
		return name, ""
	}
	return stem, ext
}

// unescape undoes percent-encoding as far as it is one.
func unescape(s string) string {
	if plain, err := url.PathUnescape(s); err == nil {
		return plain
	}
	return s
}

// reserved are the bytes that Windows does not take in names, and '%', which stands for itself so that it can stand for
// them.
const reserved = `<>:"/\|?*%`

// safe percent-encodes what cannot be in a file name everywhere, or cannot be seen there: control and format
// characters, and bytes that are no UTF-8.
func safe(s string) string {
	var out strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == utf8.RuneError && n == 1 || !unicode.IsPrint(r) || strings.ContainsRune(reserved, r) {
			for i := range n {
				fmt.Fprintf(&out, "%%%02X", s[i])
			}
		} else {
			out.WriteString(s[:n])
		}
		s = s[n:]
	}
	return out.String()
}

// segment makes one name of a path that every system takes.
func segment(s string) string { return portable(safe(s)) }

// portable makes a safe name one that every system takes as it is: no "..", nothing at its ends that Windows drops, not
// the name of a device, and not too long.
func portable(s string) string {
	if strings.Trim(s, ".") == "" {
		s = strings.ReplaceAll(s, ".", "%2E")
	}
	s = shortened(s, maxSegment)
	if strings.HasPrefix(s, " ") {
		s = "%20" + s[1:]
	}
	if strings.HasSuffix(s, " ") || strings.HasSuffix(s, ".") {
		s = fmt.Sprintf("%s%%%02X", s[:len(s)-1], s[len(s)-1])
	}
	if stem, _, _ := strings.Cut(s, "."); isDevice(stem) {
		s = stem + "_" + s[len(stem):]
	}
	return s
}

// isDevice reports whether Windows takes a name for a device, whatever extension follows.
func isDevice(stem string) bool {
	stem = strings.ToUpper(strings.TrimRight(stem, " "))
	switch stem {
	case "CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$":
		return true
	}
	for _, port := range []string{"COM", "LPT"} {
		if n, ok := strings.CutPrefix(stem, port); ok && utf8.RuneCountInString(n) == 1 && strings.Contains("0123456789¹²³", n) {
			return true
		}
	}
	return false
}

// shortened keeps the beginning of what is too long, with a digest of the whole.
func shortened(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return truncated(s, most-shortDigestLen) + shortDigest(s)
}

// truncated cuts between characters, and not within an encoded one.
func truncated(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	if i := strings.LastIndexByte(s[:most], '%'); i >= 0 && i > most-3 {
		most = i
	}
	return s[:most]
}

// shortDigestLen is the length of what shortDigest returns.
const shortDigestLen = 9

// shortDigest tells apart what would otherwise have one name.
func shortDigest(s string) string {
	sum := sha256.Sum256([]byte(s))
	return "~" + hex.EncodeToString(sum[:4])
}

// bounded replaces the middle of a path that is too long or too deep by its digest.
func bounded(segments []string) []string {
	whole := strings.Join(segments, "/")
	if len(segments) <= maxSegments && len(bodiesFolder)+1+len(whole) <= maxPath {
		return segments
	}
	last := segments[len(segments)-1]
	kept := []string{segments[0]}
	for left := maxPath - 2*maxSegment - 64; len(kept) < maxSegments/2 && len(kept) < len(segments)-1; {
		next := segments[len(kept)]
		if left -= len(next) + 1; left < 0 {
			break
		}
		kept = append(kept, next)
	}
	return append(kept, shortDigest(whole)[1:], last)
}

// variant puts a mark into a name, before its extension: "a.html" becomes "aMARK.html".
func variant(body, mark string) string {
	stem, ext := cutExtension(body[strings.LastIndexByte(body, '/')+1:])
	stem = body[:strings.LastIndexByte(body, '/')+1] + stem + mark
	if ext == "" {
		return stem
	}
	return stem + "." + ext
}

// flat is the name of a body that needs a folder where there is a file: below its host, with '_' for the slashes.
func flat(body, mark string) string {
	parts := strings.SplitN(body, "/", 3)
	name := strings.ReplaceAll(parts[2], "/", "_")
	stem, ext := cutExtension(name)
	if ext != "" {
		ext = "." + ext
	}
	return parts[0] + "/" + parts[1] + "/" + portable(shortened(stem, maxSegment-len(mark)-len(ext))+mark+ext)
}

// checkPath refuses a path that names something else than a file below the bodies of a job, on any system.
func checkPath(body string) bool {
	rest, ok := strings.CutPrefix(body, bodiesFolder+"/")
	if !ok || len(body) > 1024 || strings.Count(rest, "/") == 0 || strings.Count(rest, "/") > maxDepth {
		return false
	}
	for s := range strings.SplitSeq(rest, "/") {
		if len(s) > 255 || !isPortable(s) {
			return false
		}
	}
	return true
}

// isPortable reports whether a name means the same file on every system.
func isPortable(s string) bool {
	if s == "" || !utf8.ValidString(s) || strings.HasSuffix(s, ".") || strings.HasSuffix(s, " ") || strings.HasPrefix(s, " ") {
		return false
	}
	for _, r := range s {
		if !unicode.IsPrint(r) || r != '%' && strings.ContainsRune(reserved, r) {
			return false
		}
	}
	stem, _, _ := strings.Cut(s, ".")
	return !isDevice(stem)
}
