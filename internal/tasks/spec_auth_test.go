package tasks

import (
	"strings"
	"testing"
)

// authChanges changes each field of AuthSpec that Difference compares.
var authChanges = map[string]func(*Spec){
	"--bearer": func(s *Spec) { s.Bearer = "x" }, "--basic": func(s *Spec) { s.Basic = "x" }, "--digest": func(s *Spec) { s.Digest = "x" },
	"--oauth": func(s *Spec) { s.OAuth = &OAuth{TokenURL: "x"} }, "--client-id": func(s *Spec) { s.OAuth = &OAuth{ClientID: "x"} },
	"--client-secret": func(s *Spec) { s.OAuth = &OAuth{ClientSecret: "x"} }, "--scope": func(s *Spec) { s.OAuth = &OAuth{Scope: "x"} },
	"--audience": func(s *Spec) { s.OAuth = &OAuth{Audience: "x"} }, "--client-cert": func(s *Spec) { s.ClientCert = "x" },
	"--client-key": func(s *Spec) { s.ClientKey = "x" }, "--auth-host": func(s *Spec) { s.AuthHosts = []string{"x"} },
	"--cookies": func(s *Spec) { s.Cookies = true },
}

const ref = "${env:FLEET_SECRET_X}"

// An older worker would fetch without what was asked for.
func TestAJobThatProvesWhoItIsNeedsANewerWorker(t *testing.T) {
	for claim, a := range map[string]AuthSpec{
		"bearer": {Bearer: ref}, "basic": {Basic: "u:" + ref}, "digest": {Digest: "u:" + ref}, "oauth": {OAuth: &OAuth{}},
		"a certificate": {ClientCert: ref}, "cookies": {Cookies: true}, "references in headers": {Secrets: true},
	} {
		s := DefaultSpec()
		s.AuthSpec = a
		if got := s.Version(); got != 2 {
			t.Errorf("%s: version %d, want 2", claim, got)
		}
	}
}

func TestCredentialsThatCannotBeAreRefusedByFlag(t *testing.T) {
	oauth := func(change func(*OAuth)) AuthSpec {
		o := OAuth{TokenURL: "https://login.example/token", ClientID: "c", ClientSecret: ref}
		change(&o)
		return AuthSpec{OAuth: &o}
	}
	for claim, c := range map[string]struct {
		auth AuthSpec
		says string
	}{
		"a literal token":             {AuthSpec{Bearer: "eyJhb"}, "--bearer: the secret itself would stand in Redis"},
		"a literal password":          {AuthSpec{Basic: "u:pass"}, "--basic: the secret itself"},
		"a literal key":               {AuthSpec{ClientCert: ref, ClientKey: "-----BEGIN"}, "--client-key: the secret itself"},
		"a literal client secret":     {oauth(func(o *OAuth) { o.ClientSecret = "x" }), "--client-secret: the secret itself"},
		"a certificate without a key": {AuthSpec{ClientCert: ref}, "--client-cert, --client-key: give both"},
		"two schemes":                 {AuthSpec{Bearer: ref, Basic: "u:" + ref}, "give one of them"},
		"a token endpoint that is none": {oauth(func(o *OAuth) { o.TokenURL = "login.example" }),
			"--oauth: write the http or https URL"},
		"credentials in its URL": {oauth(func(o *OAuth) { o.TokenURL = "https://u:p@login.example/" }), "--oauth: no credentials"},
		"no client":              {oauth(func(o *OAuth) { o.ClientID = "" }), "--oauth: give --client-id"},
		"a host with a path":     {AuthSpec{AuthHosts: []string{"h/x"}}, `--auth-host "h/x"`},
		"a star within":          {AuthSpec{AuthHosts: []string{"a.*.b"}}, `--auth-host "a.*.b"`},
		"all hosts":              {AuthSpec{AuthHosts: []string{"*."}}, `--auth-host "*."`},
	} {
		t.Run(claim, func(t *testing.T) {
			s := DefaultSpec()
			s.AuthSpec = c.auth
			err := s.Validate()
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("error %v, want %q", err, c.says)
			}
			for _, secret := range []string{"eyJhb", "pass", "BEGIN"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("it tells the secret: %v", err)
				}
			}
		})
	}
}

func TestCredentialsGoToTheHostsNamed(t *testing.T) {
	for _, c := range []struct {
		host     string
		patterns []string
		want     bool
	}{
		{"a.example", nil, true},
		{"a.example", []string{"a.example"}, true},
		{"a.example:8080", []string{"a.example"}, true},
		{"a.example:8080", []string{"A.example:8080"}, true},
		{"a.example:8081", []string{"a.example:8080"}, false},
		{"b.a.example", []string{"a.example"}, false},
		{"b.a.example", []string{"*.a.example"}, true},
		{"b.a.example:8080", []string{"*.a.example"}, true},
		{"a.example", []string{"*.a.example"}, false},
		{"xa.example", []string{"*.a.example", "b.example"}, false},
		{"[::1]:8080", []string{"[::1]"}, true},
	} {
		a := AuthSpec{AuthHosts: c.patterns}
		if got := a.AuthGoesTo(c.host); got != c.want {
			t.Errorf("%s of %v: %t", c.host, c.patterns, got)
		}
	}
}
