package worker

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/canon"
	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/secrets"
)

// Credentials are put on an exchange as it is sent, and only then: what travels through Redis, follows redirects and
// stands in records has references in their place. They go to the origin that the list names, and to no other: once a
// redirect has left it nothing brings them back.

// worn is what the exchange under way was dressed with.
type worn struct {
	secret []string // fields whose value was made of references
	job    bool     // the job's scheme applies: the request brings no Authorization of its own
	token  string   // bearer token of a token endpoint
	nonce  string   // of the challenge that was answered

	url    string // that of the exchange
	rounds int    // how often it was sent again for that URL after a 401
}

// credentials are what a worker has learnt while it proved who it is.
type credentials struct {
	certificates certificates
	challenges   challenges
	tokens       tokens
}

func newCredentials(f *fetch.Fetcher, s *secrets.Source) *credentials {
	return &credentials{tokens: tokens{fetcher: f, secrets: s}}
}

// dress returns the exchange as it is to be sent. The error is a *fetch.Error of class Secret, Auth or Canceled.
func (a *attempt) dress(ctx context.Context, r *fetch.Request) (*fetch.Request, error) {
	if a.worn.url != r.URL {
		a.worn = worn{url: r.URL}
	}
	a.worn.secret, a.worn.job, a.worn.token, a.worn.nonce = nil, false, "", ""
	if !a.spec.Credentials() && a.jar == nil && !refer(r.Header) {
		return r, nil
	}
	out := *r
	if out.Header = maps.Clone(r.Header); out.Header == nil {
		out.Header = http.Header{}
	}
	trusted := a.trusted(r.URL)
	if err := a.fill(out.Header, trusted); err != nil {
		return nil, err
	}
	if trusted {
		if err := a.authorize(ctx, &out); err != nil {
			return nil, err
		}
	}
	a.addCookies(&out)
	return &out, nil
}

// refer reports whether any value may hold a reference.
func refer(h http.Header) bool {
	for _, values := range h {
		for _, v := range values {
			if strings.Contains(v, "${") {
				return true
			}
		}
	}
	return false
}

// trusted reports whether a URL gets credentials: it and every hop that led there have the origin of the request as it
// was enqueued, and the job lets them go to its host.
func (a *attempt) trusted(target string) bool {
	first, err := canon.Parse(a.url)
	if err != nil || !a.spec.AuthGoesTo(first.Host) || !sameOrigin(first, target) {
		return false
	}
	for _, hop := range a.hops {
		if !sameOrigin(first, hop.URL) {
			return false
		}
	}
	return true
}

func sameOrigin(first canon.URL, target string) bool {
	u, err := canon.Parse(target)
	return err == nil && u.Scheme == first.Scheme && u.Host == first.Host
}

// fill resolves the references of header fields. Where they may not go, the fields that have any are left out.
func (a *attempt) fill(h http.Header, trusted bool) error {
	for name, values := range h {
		if !refer(http.Header{name: values}) {
			continue
		}
		filled := make([]string, len(values))
		for i, v := range values {
			secret := secrets.Has(v)
			if secret && !trusted {
				delete(h, name)
				break
			}
			var err error
			if filled[i], err = a.resolve("header "+name, v); err != nil {
				return err
			}
			if secret {
				a.worn.secret = append(a.worn.secret, name)
			}
		}
		if h[name] != nil {
			h[name] = filled
		}
	}
	return nil
}

// resolve is the value of a text with references. where names it in errors.
func (d *delivery) resolve(where, text string) (string, error) {
	value, err := d.secrets.Resolve(text)
	if err != nil {
		return "", &fetch.Error{Class: fetch.Secret, Op: where, Err: err}
	}
	return value, nil
}

// authorize adds what the job's scheme asks for, unless the request brings an Authorization of its own.
func (a *attempt) authorize(ctx context.Context, r *fetch.Request) (err error) {
	if r.Certificate, err = a.certificate(); err != nil {
		return err
	}
	for name := range r.Header {
		if http.CanonicalHeaderKey(name) == "Authorization" {
			return nil
		}
	}
	var field string
	switch {
	case a.spec.Bearer != "":
		field, err = a.bearer(a.spec.Bearer)
	case a.spec.Basic != "":
		field, err = a.basic(a.spec.Basic)
	case a.spec.Digest != "":
		a.worn.job = true
		field, err = a.digest(r)
	case a.spec.OAuth != nil:
		a.worn.job = true
		field, err = a.bearerToken(ctx)
	}
	if field != "" {
		r.Header["Authorization"] = []string{field}
	}
	return err
}

// bearer is the field of RFC 6750, section 2.1.
func (a *attempt) bearer(text string) (string, error) {
	token, err := a.resolve("--bearer", text)
	if err != nil {
		return "", err
	}
	return "Bearer " + token, nil
}

// basic is the field of RFC 7617, section 2.
func (a *attempt) basic(text string) (string, error) {
	user, password, err := a.login("--basic", text)
	if err != nil {
		return "", err
	}
	pair := base64.StdEncoding.EncodeToString([]byte(user + ":" + password))
	a.secrets.Remember(pair)
	return "Basic " + pair, nil
}

// login resolves USER:REFERENCE.
func (d *delivery) login(flag, text string) (user, password string, err error) {
	user, password, ok := secrets.CutUser(text)
	if !ok {
		return "", "", &fetch.Error{Class: fetch.Secret, Op: flag, Err: errors.New("it names no user")}
	}
	if user, err = d.resolve(flag, user); err != nil {
		return "", "", err
	}
	password, err = d.resolve(flag, password)
	return user, password, err
}

// certificate is the client's for mutual TLS, nil where the job has none.
func (d *delivery) certificate() (*tls.Certificate, error) {
	if d.spec.ClientCert == "" {
		return nil, nil
	}
	cert, err := d.resolve("--client-cert", d.spec.ClientCert)
	if err != nil {
		return nil, err
	}
	key, err := d.resolve("--client-key", d.spec.ClientKey)
	if err != nil {
		return nil, err
	}
	pair, err := d.credentials.certificates.get(cert, key)
	if err != nil {
		return nil, &fetch.Error{Class: fetch.Secret, Op: "--client-cert, --client-key",
			Err: fmt.Errorf("%s and %s: %w", d.spec.ClientCert, d.spec.ClientKey, err)}
	}
	return pair, nil
}

// hostCertificate is the certificate that the batch's host gets, robots.txt included: a host that wants one wants it for
// that, too. The other schemes are for the pages of a job, and robots.txt is fetched once for all jobs.
func (d *delivery) hostCertificate() (*tls.Certificate, error) {
	if d.spec.ClientCert == "" || !d.spec.AuthGoesTo(d.batch.Host) {
		return nil, nil
	}
	for i := range d.batch.Requests {
		if d.batch.Requests[i].Origin != "" { // it came here by a redirect
			return nil, nil
		}
	}
	return d.certificate()
}

// challenged deals with a 401 to an exchange that the job's scheme applied to. It reports whether the exchange is to be
// made again, with what was learnt from the answer. A 401 to an answer that was fresh is final.
func (a *attempt) challenged(ctx context.Context, r *fetch.Request, resp *fetch.Response) bool {
	if resp.Status != http.StatusUnauthorized || !a.worn.job {
		return false
	}
	again := false
	switch {
	case a.spec.Digest != "":
		again = a.learnChallenge(r.URL, resp.Header)
	case a.spec.OAuth != nil:
		again = a.worn.rounds == 0 && a.anotherToken(ctx)
	}
	if again {
		a.worn.rounds++
	}
	return again
}

// lasting reports whether an error would come again if what failed were tried again.
func lasting(err error) bool {
	refused, ok := errors.AsType[*tokenError](err)
	return ok && refused.lasting
}
