package cli

import (
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/secrets"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

// AuthFlags are how a job's requests prove who sends them.
type AuthFlags struct {
	Bearer       *string  `group:"Authentication" env:"FLEET_BEARER" placeholder:"REF" help:"Bearer token, as a reference that workers resolve: $${env:FLEET_SECRET_NAME} or $${file:/run/secrets/NAME}."`
	Basic        *string  `group:"Authentication" env:"FLEET_BASIC" placeholder:"USER:REF" help:"Basic authentication; the password is a reference."`
	Digest       *string  `group:"Authentication" env:"FLEET_DIGEST" placeholder:"USER:REF" help:"Digest authentication; the password is a reference."`
	OAuth        *string  `group:"Authentication" name:"oauth" env:"FLEET_OAUTH" placeholder:"URL" help:"Token endpoint that gives bearer tokens for client credentials; each worker renews its own."`
	ClientID     *string  `group:"Authentication" name:"client-id" env:"FLEET_CLIENT_ID" help:"With --oauth: the client."`
	ClientSecret *string  `group:"Authentication" env:"FLEET_CLIENT_SECRET" placeholder:"REF" help:"With --oauth: its secret, as a reference."`
	Scope        *string  `group:"Authentication" env:"FLEET_SCOPE" help:"With --oauth: scopes, with spaces between."`
	Audience     *string  `group:"Authentication" env:"FLEET_AUDIENCE" help:"With --oauth: the audience, where the endpoint wants one."`
	ClientCert   *string  `group:"Authentication" env:"FLEET_CLIENT_CERT" placeholder:"REF" help:"Client certificate for mutual TLS: a reference to PEM, the chain after it."`
	ClientKey    *string  `group:"Authentication" env:"FLEET_CLIENT_KEY" placeholder:"REF" help:"Its key: a reference to PEM."`
	AuthHost     []string `group:"Authentication" env:"FLEET_AUTH_HOST" placeholder:"HOST" help:"Host of the list that gets the credentials, or *.SUFFIX; may be repeated (default: all hosts of the list, and never one that a redirect leads to)."`
	Cookies      *bool    `group:"Authentication" env:"FLEET_COOKIES" help:"Keep the cookies that hosts set, for the job's later requests to them."`
}

// apply puts the flags into a spec.
func (f *AuthFlags) apply(spec *tasks.Spec, given *[]string) error {
	set(&spec.Bearer, f.Bearer, "--bearer", given)
	set(&spec.Basic, f.Basic, "--basic", given)
	set(&spec.Digest, f.Digest, "--digest", given)
	set(&spec.ClientCert, f.ClientCert, "--client-cert", given)
	set(&spec.ClientKey, f.ClientKey, "--client-key", given)
	set(&spec.Cookies, f.Cookies, "--cookies", given)
	if len(f.AuthHost) > 0 {
		*given = append(*given, "--auth-host")
		for _, host := range f.AuthHost {
			spec.AuthHosts = append(spec.AuthHosts, strings.ToLower(strings.TrimSpace(host)))
		}
	}
	f.applyOAuth(spec, given)
	if err := f.checkReferences(spec); err != nil {
		return err
	}
	if len(f.AuthHost) > 0 && !spec.Credentials() && !spec.Secrets {
		return usage("--auth-host: the job has no credentials: give --bearer or another scheme, or a --header with a reference")
	}
	return nil
}

func (f *AuthFlags) applyOAuth(spec *tasks.Spec, given *[]string) {
	var o tasks.OAuth
	before := len(*given)
	set(&o.TokenURL, f.OAuth, "--oauth", given)
	set(&o.ClientID, f.ClientID, "--client-id", given)
	set(&o.ClientSecret, f.ClientSecret, "--client-secret", given)
	set(&o.Scope, f.Scope, "--scope", given)
	set(&o.Audience, f.Audience, "--audience", given)
	if len(*given) > before {
		spec.OAuth = &o
	}
}

// checkReferences refuses what is no reference where one belongs, without showing it.
func (f *AuthFlags) checkReferences(spec *tasks.Spec) error {
	for _, r := range []struct {
		flag, value string
		user        bool
	}{
		{"--bearer", spec.Bearer, false}, {"--basic", spec.Basic, true}, {"--digest", spec.Digest, true},
		{"--client-cert", spec.ClientCert, false}, {"--client-key", spec.ClientKey, false},
	} {
		secret := r.value
		if r.user && r.value != "" {
			_, password, ok := secrets.CutUser(r.value)
			if !ok {
				return usage("%s: write USER:REFERENCE, like ada:${env:FLEET_SECRET_PASSWORD}", r.flag)
			}
			secret = password
		}
		if err := checkReference(r.flag, secret); err != nil {
			return err
		}
	}
	if spec.OAuth != nil {
		if err := checkReference("--client-secret", spec.OAuth.ClientSecret); err != nil {
			return err
		}
	}
	return checkHeaderReferences(spec)
}

func checkReference(flag, text string) error {
	refs, err := secrets.Find(text)
	if err != nil {
		return usage("%s: %w", flag, err)
	}
	if text != "" && len(refs) == 0 {
		return usage("%s: the secret itself would stand in Redis: write a reference to it, ${env:FLEET_SECRET_…} or ${file:/run/secrets/…}, which the worker resolves", flag)
	}
	return nil
}

func checkHeaderReferences(spec *tasks.Spec) error {
	for name, values := range spec.Header {
		for _, v := range values {
			refs, err := secrets.Find(v)
			if err != nil {
				return usage("--header %s: %w", name, err)
			}
			spec.Secrets = spec.Secrets || len(refs) > 0
		}
	}
	return nil
}

// secretFields are those that carry credentials, so that a literal value in one is worth a word.
var secretFields = []string{"Authorization", "Cookie", "Proxy-Authorization"}

// warnings say what is allowed and not wise.
func (p *PolicyFlags) warnings(spec *tasks.Spec) []string {
	var all []string
	for _, name := range secretFields {
		values := spec.Header[http.CanonicalHeaderKey(name)]
		if slices.ContainsFunc(values, func(v string) bool { return !secrets.Has(v) }) {
			all = append(all, fmt.Sprintf("--header %s: its value will stand in Redis; a reference would not, such as ${env:FLEET_SECRET_NAME}", name))
		}
	}
	if spec.OAuth != nil && strings.HasPrefix(spec.OAuth.TokenURL, "http:") {
		all = append(all, "--oauth: the client's secret goes to an http URL, which others on the way can read")
	}
	return all
}

// SecretFlags are what a worker may resolve.
type SecretFlags struct {
	SecretEnv []string `group:"Worker" env:"FLEET_SECRET_ENV" placeholder:"NAME" help:"Environment variables that jobs may refer to with $${env:NAME}: names, or patterns with * (default: FLEET_SECRET_*). What is not named here no job can read."`
	SecretDir []string `group:"Worker" env:"FLEET_SECRET_DIR" placeholder:"DIR" help:"Folders whose files jobs may refer to with $${file:PATH} (default: /run/secrets)."`
}

// secretSource makes the source of secrets that the flags describe; own are references that need no permission.
func (f *SecretFlags) secretSource(own []secrets.Ref) (*secrets.Source, error) {
	o := secrets.Options{Own: own, Env: nonEmpty(f.SecretEnv), Dirs: nonEmpty(f.SecretDir)}
	s, err := secrets.New(o)
	if err != nil {
		return nil, usage("--secret-env, --secret-dir: %w", err)
	}
	return s, nil
}

// nonEmpty are the entries that are not empty; nil when the flag was not given at all. An empty environment variable allows
// nothing.
func nonEmpty(entries []string) []string {
	if entries == nil {
		return nil
	}
	out := []string{}
	for _, e := range entries {
		if e = strings.TrimSpace(e); e != "" {
			out = append(out, e)
		}
	}
	return out
}

// ownReferences are those of a job's flags. In fleet run it is the caller who wrote them, and whose environment it is; what
// a list refers to is another's to write, and needs the permission of --secret-env and --secret-dir.
func ownReferences(spec *tasks.Spec) []secrets.Ref {
	texts := []string{spec.Bearer, spec.Basic, spec.Digest, spec.ClientCert, spec.ClientKey}
	if spec.OAuth != nil {
		texts = append(texts, spec.OAuth.ClientSecret)
	}
	for _, values := range spec.Header {
		texts = append(texts, values...)
	}
	var own []secrets.Ref
	for _, t := range texts {
		refs, _ := secrets.Find(t)
		own = append(own, refs...)
	}
	return own
}
