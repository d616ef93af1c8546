package cli

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net/url"
	"sync"
	"time"

	"github.com/fetchfleet/fetchfleet/internal/fetch"
	"github.com/fetchfleet/fetchfleet/internal/tasks"
)

const probeHelp = `Ask one URL over HTTP/1.1, HTTP/2 and HTTP/3, each on a connection of its own, and show what came of it
side by side: status, address, ALPN, TLS, certificate, time of each phase, Alt-Svc.

Redirects are not followed, and no body is read. A certificate that is not valid is shown with the reason.

Exit codes: 0 at least one version was answered; 1 none was; 2 wrong usage; 130 interrupted.
`

type probeCommand struct {
	URL          string         `arg:"" help:"What to ask, http or https."`
	JSON         bool           `name:"json" env:"FLEET_JSON" help:"Print it as JSON."`
	Timeout      tasks.Duration `env:"FLEET_TIMEOUT" default:"10s" help:"Longest time for each version (default: ${default})."`
	AllowPrivate []string       `env:"FLEET_ALLOW_PRIVATE" placeholder:"CIDR" help:"Private addresses that may be asked: CIDR blocks, addresses, or all (default: none)."`
}

// Help is what --help says besides the flags.
func (c *probeCommand) Help() string { return probeHelp }

// Run asks and prints.
func (c *probeCommand) Run(ctx context.Context, w IO) error {
	if c.Timeout <= 0 {
		return usage("--timeout %s: must be above 0", c.Timeout)
	}
	allow, err := (&FetchFlags{AllowPrivate: c.AllowPrivate}).allowed()
	if err != nil {
		return err
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return usage("%q is no http or https URL", c.URL)
	}
	limit := time.Duration(c.Timeout)
	phase := limit * 9 / 10 // so that a phase that hangs is named, not the whole
	p := prober{url: c.URL, limit: limit, options: fetch.Options{AllowPrivate: allow, ConnectTimeout: phase, TLSTimeout: phase}}
	report := probeReport{URL: u.Redacted(), Versions: p.all(ctx)}
	if err := c.print(w, report); err != nil {
		return fmt.Errorf("write the result: %w", err)
	}
	if context.Cause(ctx) != nil {
		return &exitError{code: ExitInterrupted, err: context.Cause(ctx)}
	}
	for _, v := range report.Versions {
		if v.Error == nil {
			return nil
		}
	}
	return &exitError{code: ExitFailed}
}

func (c *probeCommand) print(w IO, r probeReport) error {
	if c.JSON {
		return json.NewEncoder(w.Stdout).Encode(r)
	}
	return r.write(w.Stdout)
}

// probeReport is the result: its JSON is a public contract.
type probeReport struct {
	URL      string       `json:"url"`
	Versions []probeState `json:"versions"` // 1.1, 2 and 3
}

// probeState is what came of one version.
type probeState struct {
	Version     string            `json:"version"`         // that was asked for
	Error       *probeError       `json:"error,omitempty"` // nil: it was answered
	Status      int               `json:"status,omitempty"`
	Protocol    string            `json:"protocol,omitempty"` // as spoken
	Address     string            `json:"address,omitempty"`
	ALPN        string            `json:"alpn,omitempty"`
	TLS         string            `json:"tls,omitempty"` // version
	Cipher      string            `json:"cipher,omitempty"`
	Certificate *probeCertificate `json:"certificate,omitempty"`
	AltSvc      string            `json:"alt_svc,omitempty"`
	Timings     *probeTimings     `json:"timings_ms,omitempty"`
}

type probeError struct {
	Class   string `json:"class"`
	Message string `json:"message"`
}

// probeTimings are in milliseconds; 0 for a phase that did not happen. Over QUIC connecting is part of the handshake.
type probeTimings struct {
	DNS     float64 `json:"dns"`
	Connect float64 `json:"connect"`
	TLS     float64 `json:"tls"`
	TTFB    float64 `json:"ttfb"`
	Total   float64 `json:"total"`
}

// probeCertificate is the server's own certificate.
type probeCertificate struct {
	Subject   string    `json:"subject"`
	Names     []string  `json:"names,omitempty"`
	Issuer    string    `json:"issuer"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Verified  bool      `json:"verified"`
	Why       string    `json:"why,omitempty"` // it is not
}

// prober asks one URL.
type prober struct {
	url     string
	limit   time.Duration
	options fetch.Options
}

var probeVersions = []fetch.Version{fetch.HTTP1, fetch.HTTP2, fetch.HTTP3}

// all asks over every version at once.
func (p prober) all(ctx context.Context) []probeState {
	states := make([]probeState, len(probeVersions))
	var wg sync.WaitGroup
	for i, v := range probeVersions {
		wg.Go(func() { states[i] = p.one(ctx, v) })
	}
	wg.Wait()
	return states
}

// one asks over one version, on a connection of its own. Where the certificate is not valid it asks again without
// looking at it, to show what there is.
func (p prober) one(ctx context.Context, version fetch.Version) probeState {
	f := fetch.New(p.options)
	defer f.Close()
	s := probeState{Version: string(version)}
	r := &fetch.Request{URL: p.url, HTTP: version, Timeout: p.options.ConnectTimeout, MaxTime: p.limit, Header: map[string][]string{"Accept-Encoding": {"identity"}}}
	resp, err := f.Do(ctx, r)
	if err == nil {
		s.answered(resp, nil)
		return s
	}
	s.Error = &probeError{Class: string(fetch.ClassOf(err)), Message: err.Error()}
	if fetch.ClassOf(err) != fetch.TLSCertificate {
		return s
	}
	r.Insecure = true
	if resp, again := f.Do(ctx, r); again == nil {
		s.answered(resp, err)
	}
	return s
}

// answered notes an answer; why is what was wrong with the certificate.
func (s *probeState) answered(resp *fetch.Response, why error) {
	_ = resp.Body.Close()
	t := resp.Timings()
	s.Status, s.Protocol, s.Address, s.AltSvc = resp.Status, resp.Protocol, resp.RemoteAddr, resp.Header.Get("Alt-Svc")
	s.Timings = &probeTimings{DNS: millis(t.DNS), Connect: millis(t.Connect), TLS: millis(t.TLS), TTFB: millis(t.TTFB), Total: millis(t.Total)}
	if state := resp.TLS(); state != nil {
		s.ALPN, s.TLS, s.Cipher = state.NegotiatedProtocol, tls.VersionName(state.Version), tls.CipherSuiteName(state.CipherSuite)
		if len(state.PeerCertificates) > 0 {
			s.Certificate = describeCertificate(state.PeerCertificates[0], why)
		}
	}
}

func describeCertificate(c *x509.Certificate, why error) *probeCertificate {
	out := &probeCertificate{Subject: c.Subject.String(), Names: c.DNSNames, Issuer: c.Issuer.String(),
		NotBefore: c.NotBefore, NotAfter: c.NotAfter, Verified: why == nil}
	for _, ip := range c.IPAddresses {
		out.Names = append(out.Names, ip.String())
	}
	if why != nil {
		out.Why = why.Error()
	}
	return out
}

// millis is a duration in milliseconds, to the microsecond.
func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
