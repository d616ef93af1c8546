package tasks

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// AuthSpec is how the requests of a job prove who sends them. Secrets stand in it as references, ${env:NAME} or
// ${file:PATH}, which the worker resolves.
type AuthSpec struct {
	Bearer     string   `json:"auth_bearer,omitempty"` // reference
	Basic      string   `json:"auth_basic,omitempty"`  // USER:REFERENCE
	Digest     string   `json:"auth_digest,omitempty"` // USER:REFERENCE
	OAuth      *OAuth   `json:"auth_oauth,omitempty"`
	ClientCert string   `json:"auth_client_cert,omitempty"` // reference to PEM
	ClientKey  string   `json:"auth_client_key,omitempty"`  // reference to PEM
	AuthHosts  []string `json:"auth_hosts,omitempty"`       // HOST[:PORT] or *.SUFFIX; empty = all hosts of the list
	Cookies    bool     `json:"cookies,omitempty"`          // a jar for each domain
	// Secrets says that header values hold references, of the job's or of single requests.
	Secrets bool `json:"secrets,omitempty"`
}

// OAuth is a token endpoint that gives out bearer tokens for client credentials (RFC 6749, section 4.4).
type OAuth struct {
	TokenURL     string `json:"token_url"`
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`      // reference
	Scope        string `json:"scope,omitempty"`    // scopes with spaces between
	Audience     string `json:"audience,omitempty"` // asked for by some servers
}

// String names everything but the secret, which is a reference anyway.
func (o *OAuth) String() string {
	if o == nil {
		return "none"
	}
	return fmt.Sprintf("%s client %s %s scope %q audience %q", o.TokenURL, o.ClientID, o.ClientSecret, o.Scope, o.Audience)
}

// refers reports whether a text has a reference in it. What one looks like exactly is the affair of package secrets.
func refers(s string) bool { return strings.Contains(s, "${env:") || strings.Contains(s, "${file:") }

// errLiteral is for secrets that would stand in Redis.
var errLiteral = errors.New("the secret itself would stand in Redis: write a reference to it, ${env:FLEET_SECRET_…} or ${file:/run/secrets/…}, which the worker resolves")

func (a *AuthSpec) validate() error {
	schemes := 0
	for _, set := range []bool{a.Bearer != "", a.Basic != "", a.Digest != "", a.OAuth != nil} {
		if set {
			schemes++
		}
	}
	if schemes > 1 {
		return errors.New("--bearer, --basic, --digest and --oauth: give one of them")
	}
	_, basic, _ := strings.Cut(a.Basic, ":")
	_, digest, _ := strings.Cut(a.Digest, ":")
	for _, f := range []struct{ flag, value, secret string }{
		{"--bearer", a.Bearer, a.Bearer}, {"--basic", a.Basic, basic}, {"--digest", a.Digest, digest},
		{"--client-cert", a.ClientCert, a.ClientCert}, {"--client-key", a.ClientKey, a.ClientKey},
	} {
		if f.value != "" && !refers(f.secret) {
			return fmt.Errorf("%s: %w", f.flag, errLiteral)
		}
	}
	if (a.ClientCert == "") != (a.ClientKey == "") {
		return errors.New("--client-cert, --client-key: give both, or neither")
	}
	for _, pattern := range a.AuthHosts {
		if strings.Contains(strings.TrimPrefix(pattern, "*."), "*") || strings.ContainsAny(pattern, "/@ ") || strings.Trim(pattern, "*.") == "" {
			return fmt.Errorf("--auth-host %q: write a host, HOST:PORT, or *.SUFFIX for all below it", pattern)
		}
	}
	return a.OAuth.validate()
}

func (o *OAuth) validate() error {
	if o == nil {
		return nil
	}
	u, err := url.Parse(o.TokenURL)
	switch {
	case err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http":
		return errors.New("--oauth: write the http or https URL of a token endpoint")
	case u.User != nil:
		return errors.New("--oauth: no credentials in its URL: use --client-id and --client-secret")
	case refers(o.TokenURL):
		return errors.New("--oauth: no references in its URL: whoever reads the job sees where tokens come from")
	case o.ClientID == "" || o.ClientSecret == "":
		return errors.New("--oauth: give --client-id and --client-secret, too")
	case !refers(o.ClientSecret):
		return fmt.Errorf("--client-secret: %w", errLiteral)
	}
	return nil
}

func (a *AuthSpec) used() bool {
	return a.Credentials() || a.Cookies || a.Secrets || len(a.AuthHosts) > 0
}

// Credentials reports whether the job has any of its own.
func (a *AuthSpec) Credentials() bool {
	return a.Bearer != "" || a.Basic != "" || a.Digest != "" || a.OAuth != nil || a.ClientCert+a.ClientKey != ""
}

func (a *AuthSpec) fields() map[string]string {
	oauth := a.OAuth
	if oauth == nil {
		oauth = &OAuth{}
	}
	return map[string]string{
		"--bearer": orNone(a.Bearer), "--basic": orNone(a.Basic), "--digest": orNone(a.Digest),
		"--oauth": orNone(oauth.TokenURL), "--client-id": orNone(oauth.ClientID), "--client-secret": orNone(oauth.ClientSecret),
		"--scope": orNone(oauth.Scope), "--audience": orNone(oauth.Audience),
		"--client-cert": orNone(a.ClientCert), "--client-key": orNone(a.ClientKey),
		"--auth-host": orNone(strings.Join(a.AuthHosts, ",")), "--cookies": fmt.Sprint(a.Cookies),
	}
}

// AuthGoesTo reports whether a host, as a batch names it, gets the job's credentials.
func (a *AuthSpec) AuthGoesTo(host string) bool {
	if len(a.AuthHosts) == 0 {
		return true
	}
	name := host
	if i := strings.LastIndexByte(host, ':'); i > strings.LastIndexByte(host, ']') {
		name = host[:i]
	}
	for _, pattern := range a.AuthHosts {
		pattern = strings.ToLower(pattern)
		if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
			if strings.HasSuffix(name, suffix) || strings.HasSuffix(host, suffix) {
				return true
			}
			continue
		}
		if pattern == host || pattern == name {
			return true
		}
	}
	return false
}

// AuthFlag names the flag of the scheme in use, for messages.
func (a *AuthSpec) AuthFlag() string {
	switch {
	case a.Bearer != "":
		return "--bearer"
	case a.Basic != "":
		return "--basic"
	case a.Digest != "":
		return "--digest"
	case a.OAuth != nil:
		return "--client-secret"
	}
	return "--header"
}
