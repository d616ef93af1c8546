package tasks

import (
	"fmt"
	"slices"
)

// ProtocolSpec is the part of a spec that says how servers are spoken to.
type ProtocolSpec struct {
	// HTTP is the version of HTTP, one of HTTPVersions; "" = auto.
	HTTP string `json:"http,omitempty"`
	// Insecure takes any certificate of a server's. Every record of such a job says so.
	Insecure bool `json:"insecure,omitempty"`
}

// HTTPVersions are the values of ProtocolSpec.HTTP besides auto.
var HTTPVersions = []string{"1.1", "2", "3"}

func (p *ProtocolSpec) validate() error {
	if p.HTTP != "" && !slices.Contains(HTTPVersions, p.HTTP) {
		return fmt.Errorf("--http %q: auto, 1.1, 2 or 3", p.HTTP)
	}
	return nil
}

func (p *ProtocolSpec) used() bool { return *p != ProtocolSpec{} }

func (p *ProtocolSpec) fields() map[string]string {
	version := p.HTTP
	if version == "" {
		version = "auto"
	}
	return map[string]string{"--http": version, "--insecure": fmt.Sprint(p.Insecure)}
}
