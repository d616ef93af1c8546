// Package admin is what a running process shows over HTTP: whether it lives and is ready, its metrics, and asynq's
// monitor.
//
// It promises that nothing can be changed through it unless that was asked for, that a page of another site in an
// operator's browser cannot use it on a loopback address, and that health and metrics do not wait for a Redis that is
// away. It has no users and no passwords: who reaches the port sees everything, request payloads included. The
// monitor's own pages are not served on Windows, where asynqmon does not find them.
package admin

import (
	"fmt"
	"html/template"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/redis/go-redis/v9"
	"github.com/rs/zerolog"
)

// Options say what to show. The zero value shows /livez and an index.
type Options struct {
	// Registry is shown at /metrics; the queues' depths are registered with it when there is a Redis. nil = no /metrics.
	Registry *prometheus.Registry
	// Redis is where asynq's queues are. It stays the caller's to close, after Handler.Close. nil = no /monitor.
	Redis redis.UniversalClient
	// Ready says whether work is being taken, and otherwise why not, in words for an operator. It is asked at every
	// /readyz and must answer at once. nil = always ready.
	Ready func() (ok bool, reason string)
	// MonitorWrite lets the monitor change queues and tasks.
	MonitorWrite bool
	// Title is what the index calls this process. Empty = "fetchfleet".
	Title string
	// Logger takes the few lines that this package logs. The zero value logs nothing.
	Logger zerolog.Logger
}

// Handler serves the pages. Make it with New.
type Handler struct {
	opts   Options
	routes http.Handler
	queues *queueCollector // nil without registry or Redis
}

// New makes the handler. It panics when its metrics are in the registry already, which is a mistake in the program.
func New(o Options) *Handler {
	if o.Title == "" {
		o.Title = "fetchfleet"
	}
	h := &Handler{opts: o}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", h.livez)
	mux.HandleFunc("GET /readyz", h.readyz)
	mux.Handle("GET /{$}", sameSite(http.HandlerFunc(h.index)))
	if o.Registry != nil {
		mux.Handle("GET /metrics", promhttp.HandlerFor(o.Registry, promhttp.HandlerOpts{
			ErrorHandling: promhttp.ContinueOnError, // what can be told is told when Redis is away
		}))
	}
	if o.Redis != nil {
		monitor := sameSite(newMonitor(o.Redis, o.MonitorWrite))
		mux.Handle(monitorPath, http.RedirectHandler(monitorPath+"/", http.StatusFound))
		mux.Handle(monitorPath+"/", monitor)
	}
	if o.Redis != nil && o.Registry != nil {
		h.queues = newQueueCollector(o.Redis)
		o.Registry.MustRegister(h.queues)
	}
	h.routes = mux
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.routes.ServeHTTP(w, r) }

// Close waits for a look at the queues that is under way. Call it after the listener is closed and before the Redis
// client is. The handler must not be used afterwards.
func (h *Handler) Close() {
	if h.queues != nil {
		h.queues.close()
	}
}

// listening is called once the address is known.
func (h *Handler) listening(addr net.Addr) {
	h.opts.Logger.Info().Stringer("addr", addr).Msg("admin listening")
	if h.opts.MonitorWrite && h.opts.Redis != nil && !isLoopback(addr) {
		h.opts.Logger.Warn().Stringer("addr", addr).
			Msg("whoever reaches this address can change queues: --monitor-write is set and there is no password")
	}
}

// livez answers as long as the process can answer at all: Redis and store do not matter here, a restart would not
// bring them back.
func (h *Handler) livez(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") }

func (h *Handler) readyz(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Cache-Control", "no-store")
	if h.opts.Ready != nil {
		if ok, reason := h.opts.Ready(); !ok {
			w.WriteHeader(http.StatusServiceUnavailable)
			fmt.Fprintln(w, "not ready: "+reason)
			return
		}
	}
	fmt.Fprintln(w, "ok")
}

var indexPage = template.Must(template.New("index").Parse(`<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{{.Title}}</title>
<h1>{{.Title}}</h1>
<p>{{if .Ready}}Ready.{{else}}Not ready: {{.Reason}}.{{end}}</p>
<ul>
{{if .Monitor}}<li><a href="/monitor/">/monitor</a>: queues and tasks{{if not .Write}}, read-only{{end}}</li>
{{end}}{{if .Metrics}}<li><a href="/metrics">/metrics</a>: figures for Prometheus</li>
{{end}}<li><a href="/readyz">/readyz</a>, <a href="/livez">/livez</a>: health</li>
</ul>
</html>
`))

func (h *Handler) index(w http.ResponseWriter, _ *http.Request) {
	page := struct {
		Title, Reason                  string
		Ready, Monitor, Write, Metrics bool
	}{
		Title: h.opts.Title, Ready: true, Write: h.opts.MonitorWrite,
		Monitor: h.opts.Redis != nil, Metrics: h.opts.Registry != nil,
	}
	if h.opts.Ready != nil {
		page.Ready, page.Reason = h.opts.Ready()
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if err := indexPage.Execute(w, page); err != nil {
		h.opts.Logger.Debug().Err(err).Msg("index not sent")
	}
}
