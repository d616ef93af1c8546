package filestore

import (
	"net/url"
	"path"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/store"
)

// extensions maps media types to the extension of their files. Types that say nothing (application/octet-stream,
// binary/octet-stream, text/plain served for anything) are absent or left to the URL.
var extensions = map[string]string{
	"text/html": "html", "application/xhtml+xml": "xhtml", "text/css": "css", "text/csv": "csv",
	"text/markdown": "md", "text/calendar": "ics", "text/vcard": "vcf", "text/xml": "xml", "text/javascript": "js",
	"text/tab-separated-values": "tsv", "text/vtt": "vtt",
	"application/xml": "xml", "application/json": "json", "application/ld+json": "jsonld", "application/javascript": "js",
	"application/x-javascript": "js", "application/ecmascript": "js", "application/x-ndjson": "ndjson",
	"application/rss+xml": "rss", "application/atom+xml": "atom", "application/geo+json": "geojson",
	"application/manifest+json": "webmanifest", "application/wasm": "wasm", "application/yaml": "yaml",
	"application/pdf": "pdf", "application/rtf": "rtf", "application/postscript": "ps", "application/epub+zip": "epub",
	"application/zip": "zip", "application/x-zip-compressed": "zip", "application/gzip": "gz", "application/x-gzip": "gz",
	"application/zstd": "zst", "application/x-bzip2": "bz2", "application/x-xz": "xz", "application/x-tar": "tar",
	"application/x-7z-compressed": "7z", "application/vnd.rar": "rar", "application/java-archive": "jar",
	"application/msword": "doc", "application/vnd.ms-excel": "xls", "application/vnd.ms-powerpoint": "ppt",
	"application/vnd.openxmlformats-officedocument.wordprocessingml.document":   "docx",
	"application/vnd.openxmlformats-officedocument.spreadsheetml.sheet":         "xlsx",
	"application/vnd.openxmlformats-officedocument.presentationml.presentation": "pptx",
	"application/vnd.oasis.opendocument.text":                                   "odt",
	"application/vnd.oasis.opendocument.spreadsheet":                            "ods",
	"application/vnd.apple.mpegurl":                                             "m3u8",
	"application/dash+xml":                                                      "mpd",

	"image/jpeg": "jpg", "image/png": "png", "image/gif": "gif", "image/webp": "webp", "image/avif": "avif",
	"image/svg+xml": "svg", "image/x-icon": "ico", "image/vnd.microsoft.icon": "ico", "image/bmp": "bmp",
	"image/tiff": "tiff", "image/heic": "heic", "image/jxl": "jxl",
	"audio/mpeg": "mp3", "audio/ogg": "ogg", "audio/wav": "wav", "audio/flac": "flac", "audio/aac": "aac",
	"audio/mp4": "m4a", "video/mp4": "mp4", "video/webm": "webm", "video/ogg": "ogv", "video/quicktime": "mov",
	"video/mp2t": "ts", "video/x-msvideo": "avi",
	"font/woff": "woff", "font/woff2": "woff2", "font/ttf": "ttf", "font/otf": "otf",
}

// maxExtension is the most letters of an extension that is taken from a URL.
const maxExtension = 8

// extension returns the extension of a body's file, without dot: by its content type, else by the path of its URL,
// else "txt" for plain text and "bin" for the rest. It holds lower-case letters and digits only.
func extension(meta store.BodyMeta) string {
	kind := mediaType(meta.ContentType)
	if ext, ok := extensions[kind]; ok {
		return ext
	}
	if ext := urlExtension(meta.URL); ext != "" {
		return ext
	}
	switch {
	case strings.HasSuffix(kind, "+json"):
		return "json"
	case strings.HasSuffix(kind, "+xml"):
		return "xml"
	case kind == "text/plain":
		return "txt"
	}
	return "bin"
}

// mediaType returns the media type of a Content-Type field (RFC 9110, section 8.3) in lower case; parameters that do
// not parse are ignored.
func mediaType(field string) string {
	kind, _, _ := strings.Cut(field, ";")
	return strings.ToLower(strings.TrimSpace(kind))
}

// urlExtension returns the extension of a URL's path, "" if there is none that could be a file's.
func urlExtension(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return ""
	}
	ext := strings.ToLower(strings.TrimPrefix(path.Ext(u.Path), "."))
	if len(ext) == 0 || len(ext) > maxExtension {
		return ""
	}
	for i := range len(ext) {
		if c := ext[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') {
			return ""
		}
	}
	return ext
}
