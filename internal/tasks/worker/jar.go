package worker

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/cookies"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/tasks/ledger"
)

// jar is what a visit knows of the cookies of its job that its host may get. They rest in Redis: they are read as the visit
// makes its first request, and merged as each request that changed any ends, before its permit goes to another visit.
type jar struct {
	*cookies.Jar
	reading sync.Mutex
	read    time.Time
}

// jarFresh is for how long cookies are not read again: other visits to the host may go on beside this one. Where one
// request is made at a time each finds what the one before it was given.
const jarFresh = 100 * time.Millisecond

func (d *delivery) newJar() *jar {
	if !d.spec.Cookies {
		return nil
	}
	return &jar{Jar: cookies.NewJar(nil)}
}

// readJar brings the visit's cookies up to date.
func (v *visitRun) readJar(ctx context.Context) error {
	if v.jar == nil {
		return nil
	}
	v.jar.reading.Lock()
	defer v.jar.reading.Unlock()
	if time.Since(v.jar.read) < jarFresh && v.spec.HostConns != 1 {
		return nil
	}
	kept, err := v.ledger.Jars(ctx, v.batch.Job, cookies.Domains(&url.URL{Host: v.batch.Host}))
	if err != nil {
		return err
	}
	var all []cookies.Cookie
	for _, text := range kept {
		var c cookies.Cookie
		if json.Unmarshal([]byte(text), &c) == nil { // else it is of a version to come
			all = append(all, c)
		}
	}
	v.jar.Take(all)
	v.jar.read = time.Now()
	return nil
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
