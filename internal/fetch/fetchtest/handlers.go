package fetchtest

import (
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// handler answers one of the built-in paths.
type handler func(o *Origin, w http.ResponseWriter, r *http.Request)

// builtin holds the handlers by the first segment of the path.
var builtin = map[string]handler{
	"page":        page,
	"status":      status,
	"flaky":       flaky,
	"retry-after": retryAfter,
	"always429":   always429,
	"slow":        slow,
	"drip":        drip,
	"hang":        hang,
	"cut":         cut,
	"reset":       reset,
	"malformed":   malformed,
	"redirect":    redirect,
	"loop":        loop,
	"gzip":        encoded,
	"br":          encoded,
	"zstd":        encoded,
	"deflate":     encoded,
	"bomb":        bomb,
	"large":       large,
	"resumable":   resumable,
	"headers":     headers,
	"cookies":     cookies,
	"echo":        echo,
	"versioned":   versioned,
	"change":      change,
	"bodies":      bodies,
}

func firstSegment(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// number returns a query parameter, or what it is without one.
func number(r *http.Request, name string, without int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil {
		return without
	}
	return n
}

// segment returns the i-th segment of the path, from 0, or "".
func segment(r *http.Request, i int) string {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if i >= len(parts) {
		return ""
	}
	return parts[i]
}

// pause waits, unless the client or the origin goes first.
func (o *Origin) pause(r *http.Request, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-r.Context().Done():
	case <-o.ctx.Done():
	}
	return false
}

func writePage(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}

func page(_ *Origin, w http.ResponseWriter, r *http.Request) {
	size := 0
	if r.URL.RawQuery != "" {
		size = number(r, "size", 0)
	}
	writePage(w, Page(r.URL.Path, size))
}

func status(_ *Origin, w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(segment(r, 1))
	if err != nil || code < 200 || code > 999 {
		code = http.StatusBadRequest
	}
	say(w, code)
}

// say answers with a status and, where one may stand, a line that names it.
func say(w http.ResponseWriter, code int) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(code)
	if code != http.StatusNoContent && code != http.StatusNotModified {
		io.WriteString(w, strconv.Itoa(code)+" "+http.StatusText(code)+"\n")
	}
}

func flaky(o *Origin, w http.ResponseWriter, r *http.Request) {
	failures, _ := strconv.Atoi(segment(r, 1))
	if o.try(r.URL.Path) < failures {
		say(w, http.StatusServiceUnavailable)
		return
	}
	page(o, w, r)
}

func retryAfter(o *Origin, w http.ResponseWriter, r *http.Request) {
	if o.try(r.URL.Path) == 0 {
		w.Header().Set("Retry-After", segment(r, 1))
		say(w, http.StatusTooManyRequests)
		return
	}
	page(o, w, r)
}

func always429(_ *Origin, w http.ResponseWriter, r *http.Request) {
	if after := r.URL.Query().Get("retry-after"); after != "" {
		w.Header().Set("Retry-After", after)
	}
	say(w, http.StatusTooManyRequests)
}

func slow(o *Origin, w http.ResponseWriter, r *http.Request) {
	if o.pause(r, time.Duration(number(r, "ms", 1000))*time.Millisecond) {
		page(o, w, r)
	}
}

func drip(o *Origin, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain")
	count, wait := number(r, "bytes", 10), time.Duration(number(r, "ms", 100))*time.Millisecond
	w.Header().Set("Content-Length", strconv.Itoa(count))
	flush := http.NewResponseController(w)
	flush.Flush() // the headers come at once; only the body is slow
	for range count {
		if !o.pause(r, wait) {
			return
		}
		io.WriteString(w, ".")
		flush.Flush()
	}
}

func hang(o *Origin, _ http.ResponseWriter, r *http.Request) {
	select {
	case <-r.Context().Done():
	case <-o.ctx.Done():
	}
	panic(http.ErrAbortHandler) // never an answer
}

func redirect(_ *Origin, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Location", r.URL.Query().Get("to"))
	w.WriteHeader(number(r, "code", http.StatusFound))
}

func loop(_ *Origin, w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Location", "/loop")
	w.WriteHeader(http.StatusFound)
}

func headers(_ *Origin, w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(r.Header)
}

// Echo is what /echo answers with, as JSON.
type Echo struct {
	Method string      `json:"method"`
	Host   string      `json:"host"`
	URI    string      `json:"uri"` // as sent
	Header http.Header `json:"headers"`
	Body   string      `json:"body"` // at most 1 MiB of it
}

func echo(_ *Origin, w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if err != nil {
		return // the client is gone
	}
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(Echo{r.Method, r.Host, r.RequestURI, r.Header, string(body)})
}
