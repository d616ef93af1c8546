package fetchtest

import (
	"fmt"
	"net/http"
	"strings"
	"time"
)

// firstVersion is when versioned pages were made; each change is an hour later.
var firstVersion = time.Date(2026, 11, 20, 9, 30, 12, 0, time.UTC)

// versioned answers with validators, and 304 to whom they come back (RFC 9110, section 13.2.2). As many servers do, its
// 304 leaves out what is optional there: all but the ETag.
func versioned(o *Origin, w http.ResponseWriter, r *http.Request) {
	version := o.tried("/change/" + segment(r, 1))
	etag, modified := fmt.Sprintf(`"v%d"`, version), firstVersion.Add(time.Duration(version)*time.Hour).Format(http.TimeFormat)
	switch r.URL.Query().Get("by") {
	case "weak":
		etag = "W/" + etag
	case "modified":
		etag = ""
	case "etag":
		modified = ""
	case "none":
		etag, modified = "", ""
	}
	if etag != "" {
		w.Header().Set("ETag", etag)
	}
	if unchanged(r.Header, etag, modified) {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	if modified != "" {
		w.Header().Set("Last-Modified", modified)
	}
	o.try("/bodies")
	writePage(w, Page(fmt.Sprintf("%s, version %d", r.URL.Path, version), 0))
}

// unchanged compares the validators that came back with those of now: the ETags weakly, and the time only without them.
func unchanged(h http.Header, etag, modified string) bool {
	if match := h.Get("If-None-Match"); match != "" {
		return etag != "" && strings.TrimPrefix(match, "W/") == strings.TrimPrefix(etag, "W/")
	}
	return modified != "" && h.Get("If-Modified-Since") == modified
}

// change makes the next version of a page.
func change(o *Origin, w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "version %d\n", o.try(r.URL.Path)+1)
}

// bodies tells how many bodies of versioned pages were sent.
func bodies(o *Origin, w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "%d bodies\n", o.tried("/bodies"))
}
