package worker

import (
	"fmt"
	"maps"
	"net/http"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// What a job says of its exchanges: how long each step may take, and which answers it is after.

// limits are those of an exchange for r.
func limits(r *tasks.Request, spec *tasks.Spec) fetch.Limits {
	ratio := spec.Ratio()
	if ratio == 0 {
		ratio = fetch.NoMaxRatio
	}
	return fetch.Limits{
		ConnectTimeout: r.ConnectTime(spec), TLSTimeout: r.TLSTime(spec), IdleTimeout: r.IdleTime(spec),
		MinSpeed: spec.MinSpeed, MinSpeedTime: time.Duration(spec.MinSpeedTime), MaxRatio: ratio,
	}
}

// wanted asks for what the job is after, unless the header of the request does so itself. A range is asked for with GET,
// which alone has them (RFC 9110, section 14.2).
func wanted(out *fetch.Request, w *tasks.Wants) {
	if *w == (tasks.Wants{}) {
		return
	}
	add := map[string]string{}
	if w.Accept != "" {
		add["Accept"] = w.Accept.Field()
	}
	if w.Range != "" && (out.Method == http.MethodGet || out.Method == "") {
		add["Range"] = w.Range.Field()
	}
	given := out.Header
	if out.Header = maps.Clone(given); out.Header == nil { // that of the batch is not ours to change
		out.Header = http.Header{}
	}
	for name, value := range add {
		if given.Get(name) == "" {
			out.Header.Set(name, value)
		}
	}
}

// redirect is fetch.Redirect for a job that follows redirects; for another each answer is the last.
func (a *attempt) redirect(r *fetch.Request, resp *fetch.Response) (*fetch.Request, bool, error) {
	if a.spec.Redirects() == 0 {
		return nil, false, nil
	}
	return fetch.Redirect(r, resp)
}

// unwanted reports whether an answer is of a type that the job is not after. It is asked of good answers only: an error
// page says more by its status than by its type, and a 204 has no type (RFC 9110, section 15.3.5).
func (a *attempt) unwanted(resp *fetch.Response) (happening, bool) {
	h := happening{status: resp.Status}
	if !h.ok() || resp.Status == http.StatusNoContent || a.spec.Accept.Match(resp.ContentType) {
		return h, false
	}
	h.class = string(fetch.ContentType)
	h.message = fmt.Sprintf("%q is not among %s", resp.ContentType, a.spec.Accept)
	if resp.ContentType == "" {
		h.message = "the answer names no Content-Type, and " + string(a.spec.Accept) + " is wanted"
	}
	return h, true
}
