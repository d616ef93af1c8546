package cli

import (
	"cmp"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"
)

// probeRows are the lines of the table, one column for each version.
var probeRows = []struct {
	name string
	cell func(*probeState) string
}{
	{"answer", (*probeState).answer},
	{"spoken", func(s *probeState) string { return s.Protocol }},
	{"address", func(s *probeState) string { return s.Address }},
	{"ALPN", func(s *probeState) string { return s.ALPN }},
	{"TLS", func(s *probeState) string { return s.TLS }},
	{"cipher", func(s *probeState) string { return s.Cipher }},
	{"lookup", phaseCell(func(t *probeTimings) float64 { return t.DNS })},
	{"connect", phaseCell(func(t *probeTimings) float64 { return t.Connect })},
	{"handshake", phaseCell(func(t *probeTimings) float64 { return t.TLS })},
	{"first byte", phaseCell(func(t *probeTimings) float64 { return t.TTFB })},
	{"total", phaseCell(func(t *probeTimings) float64 { return t.Total })},
	{"Alt-Svc", func(s *probeState) string { return s.AltSvc }},
}

// write prints the report for people. What servers say may hold anything: it is shown without control characters.
func (r *probeReport) write(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, shown(r.URL))
	for i := range r.Versions {
		fmt.Fprintf(t, "\tHTTP/%s", r.Versions[i].Version)
	}
	fmt.Fprintln(t)
	for _, row := range probeRows {
		line := row.name
		for i := range r.Versions {
			line += "\t" + cmp.Or(shown(row.cell(&r.Versions[i])), "-")
		}
		fmt.Fprintln(t, line)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	r.writeCertificates(w)
	for i := range r.Versions {
		if e := r.Versions[i].Error; e != nil {
			fmt.Fprintf(w, "HTTP/%s: %s: %s\n", r.Versions[i].Version, e.Class, shown(e.Message))
		}
	}
	return nil
}

// writeCertificates prints each certificate once; mostly all versions have the same.
func (r *probeReport) writeCertificates(w io.Writer) {
	printed := map[string]bool{}
	for i := range r.Versions {
		c := r.Versions[i].Certificate
		if c == nil {
			continue
		}
		text := c.text()
		if !printed[text] {
			printed[text] = true
			fmt.Fprint(w, text)
		}
	}
}

func (c *probeCertificate) text() string {
	verified := "verified"
	if !c.Verified {
		verified = "NOT VALID: " + c.Why
	}
	return fmt.Sprintf("certificate  %s\n  names      %s\n  issuer     %s\n  valid      %s to %s\n  %s\n", shown(c.Subject),
		shown(strings.Join(c.Names, ", ")), shown(c.Issuer), c.NotBefore.UTC().Format(time.DateOnly),
		c.NotAfter.UTC().Format(time.DateOnly), shown(verified))
}

func (s *probeState) answer() string {
	if s.Error != nil {
		return s.Error.Class
	}
	return strings.TrimSpace(fmt.Sprint(s.Status, " ", http.StatusText(s.Status)))
}

func phaseCell(of func(*probeTimings) float64) func(*probeState) string {
	return func(s *probeState) string {
		if s.Timings == nil {
			return ""
		}
		return fmt.Sprintf("%.1f ms", of(s.Timings))
	}
}

// shown is s as a terminal may have it: one line, nothing that would move its cursor.
func shown(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
}
