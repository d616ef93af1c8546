package cli

import "github.com/fetchfleet/fetchfleet/internal/tasks"

// ProtocolFlags say how a job's servers are spoken to.
type ProtocolFlags struct {
	HTTP     *string `group:"Policy" name:"http" env:"FLEET_HTTP" placeholder:"VERSION" help:"Version of HTTP: 1.1, 2 (without TLS with prior knowledge), 3 (QUIC), or auto: what the server prefers, and 3 once it names it by Alt-Svc (default: auto). A server that does not speak it ends the request in class protocol."`
	Insecure bool    `group:"Policy" env:"FLEET_INSECURE" help:"Take any certificate of a server's: whoever is on the way can read and change everything. Every record says insecure."`
}

func (p *ProtocolFlags) apply(spec *tasks.Spec, given *[]string) error {
	set(&spec.HTTP, p.HTTP, "--http", given)
	if spec.HTTP == "auto" {
		spec.HTTP = ""
	}
	if p.Insecure {
		spec.Insecure = true
		*given = append(*given, "--insecure")
	}
	return nil
}

// insecureWarning is what is said when a job takes any certificate, "" when it does not.
func insecureWarning(spec *tasks.Spec) string {
	if !spec.Insecure {
		return ""
	}
	return "--insecure: no server's certificate is verified; whoever is on the way can read and change every answer, and each record says so"
}
