package demosite

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// How many pages of a kind each host has, and the outcomes they have in Expect.
const (
	plainPages = 36
	slowPages  = 3
	flakyPages = 3

	ok        = "ok"
	httpError = "http_error"
)

// page is one page to fetch.
type page struct {
	path    string
	outcome string
	serve   http.HandlerFunc
}

// pagesOf makes the pages of one host: mostly plain ones, with the others spread between them so that a run shows
// all kinds from its start.
func (s *Site) pagesOf(host int, large *largeBody) []page {
	special := s.specialPages(host, large)
	pages := []page{{"/", ok, serveIndex(host)}}
	every := max(plainPages/len(special), 1)
	for n := 1; n <= plainPages; n++ {
		pages = append(pages, page{pagePath(n), ok, serveText(host, n)})
		if n%every == 0 && len(special) > 0 {
			pages = append(pages, special[0])
			special = special[1:]
		}
	}
	return append(pages, special...)
}

func (s *Site) specialPages(host int, large *largeBody) []page {
	next := (host + 1) % len(s.hosts)
	pages := []page{
		{"/moved/1", ok, redirect(pagePath(1), http.StatusMovedPermanently)},
		{"/missing/1", httpError, http.NotFound},
		{"/away/1", ok, redirect(s.url(next, pagePath(2)), http.StatusFound)},
		{"/large/readings.csv", ok, large.servePlain},
		{"/moved/2", ok, redirect("/moved/1", http.StatusTemporaryRedirect)},
		{"/large/readings.csv.gzip", ok, large.serveGzip},
		{"/away/2", ok, redirect(s.url(next, "/moved/1"), http.StatusSeeOther)},
		{"/missing/2", httpError, serveGone},
	}
	if host == 0 {
		pages = append(pages, page{"/busy", ok, failFirst(http.StatusTooManyRequests, "1", serveText(host, 40))})
	}
	for n := 1; n <= flakyPages; n++ {
		pages = append(pages, page{fmt.Sprintf("/flaky/%d", n), ok, failFirst(http.StatusServiceUnavailable, "", serveText(host, 40+n))})
	}
	for n := 1; n <= slowPages; n++ {
		wait := time.Duration(200+100*((host+2*n)%7)) * time.Millisecond // 200 to 800 ms
		pages = append(pages, page{fmt.Sprintf("/slow/%d", n), ok, delay(wait, serveText(host, 50+n))})
	}
	return pages
}

func pagePath(n int) string { return fmt.Sprintf("/page/%d", n) }

// handler serves pages by their exact path, to GET and HEAD, and a robots.txt that allows all.
func handler(pages []page) http.Handler {
	mux := http.NewServeMux()
	for _, p := range pages {
		pattern := "GET " + p.path
		if p.path == "/" {
			pattern = "GET /{$}"
		}
		mux.Handle(pattern, p.serve)
	}
	mux.HandleFunc("GET /robots.txt", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("User-agent: *\nAllow: /\n"))
	})
	return mux
}

func serveIndex(host int) http.HandlerFunc {
	body := []byte(indexHTML(host))
	return func(w http.ResponseWriter, _ *http.Request) { writeHTML(w, body) }
}

func serveText(host, n int) http.HandlerFunc {
	body := []byte(pageHTML(host, n))
	return func(w http.ResponseWriter, _ *http.Request) { writeHTML(w, body) }
}

func writeHTML(w http.ResponseWriter, body []byte) {
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	_, _ = w.Write(body) // the reader may be gone, which is its own affair
}

func serveGone(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "This page was taken down.", http.StatusGone)
}

func redirect(to string, status int) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to, status) }
}

// failFirst answers the first request with an error and all others with next.
func failFirst(status int, retryAfter string, next http.HandlerFunc) http.HandlerFunc {
	var asked atomic.Bool
	return func(w http.ResponseWriter, r *http.Request) {
		if asked.Swap(true) {
			next(w, r)
			return
		}
		if retryAfter != "" {
			w.Header().Set("Retry-After", retryAfter)
		}
		http.Error(w, "Not just now: "+strings.ToLower(http.StatusText(status))+".", status)
	}
}

// delay answers after a while, unless the client leaves first.
func delay(wait time.Duration, next http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
			next(w, r)
		case <-r.Context().Done():
		}
	}
}
