package worker

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/fetchfleet/fetchfleet/internal/cookies"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// openJar reads the cookies that earlier visits of the job left for this host; nil where the job keeps none.
func (d *delivery) openJar(ctx context.Context) (*cookies.Jar, error) {
	if !d.spec.Cookies {
		return nil, nil
	}
	kept, err := d.ledger.Jars(ctx, d.batch.Job, cookies.Domains(&url.URL{Host: d.batch.Host}))
	if err != nil {
		return nil, err
	}
	var all []cookies.Cookie
	for _, text := range kept {
		var c cookies.Cookie
		if json.Unmarshal([]byte(text), &c) == nil { // else it is of a version to come
			all = append(all, c)
		}
	}
	return cookies.NewJar(all), nil
}

// keepJar brings what the visit was told to keep into the jars of the job. What is lost when that fails is asked for anew.
func (v *visitRun) keepJar(ctx context.Context) {
	if v.jar == nil {
		return
	}
	var changed []ledger.JarCookie
	for _, c := range v.jar.Changed() {
		text, err := json.Marshal(c)
		if err != nil {
			continue
		}
		changed = append(changed, ledger.JarCookie{Domain: c.Domain, Field: c.Key(), JSON: text})
	}
	ctx, cancel := v.keep(ctx)
	defer cancel()
	if err := v.ledger.MergeJars(ctx, v.batch.Job, cookies.MaxCookies, changed); err != nil {
		v.log.Warn().Str("job", string(v.batch.Job)).Err(err).Msg("cookies not kept")
	}
}

// forgetJars drops the cookies of a job that has ended: its sessions are over.
func (d *delivery) forgetJars(ctx context.Context) {
	if !d.spec.Cookies {
		return
	}
	if err := d.ledger.ForgetJars(ctx, d.batch.Job); err != nil {
		d.log.Debug().Err(err).Msg("cookies left in Redis")
	}
}

// addCookies puts the jar's cookies on an exchange, beside those that the request brings.
func (a *attempt) addCookies(r *fetch.Request) {
	if a.jar == nil {
		return
	}
	u, err := url.Parse(r.URL)
	if err != nil {
		return
	}
	var own []string
	for name, values := range r.Header {
		if http.CanonicalHeaderKey(name) == "Cookie" {
			own = append(own, values...)
			delete(r.Header, name)
		}
	}
	if field := a.jar.Field(u, own, a.now()); field != "" {
		r.Header["Cookie"] = []string{field}
	}
}

// learnCookies takes the cookies that an answer sets.
func (a *attempt) learnCookies(r *fetch.Request, resp *fetch.Response) {
	if a.jar == nil || len(resp.Header["Set-Cookie"]) == 0 {
		return
	}
	if u, err := url.Parse(r.URL); err == nil {
		a.jar.Learn(u, resp.Header, a.now())
	}
}
