package cli

import (
	"github.com/fetchfleet/fetchfleet/internal/fetch"
)

// GuardFlags are what a worker's operator lets no job go beyond.
type GuardFlags struct {
	Ports      []string `group:"Worker" env:"FLEET_PORTS" placeholder:"PORT" help:"Ports that may be asked: 80, 8000-8999, or all (default: all but those of other protocols, as in browsers). Others end as address_refused."`
	MaxHeaders ByteSize `group:"Worker" env:"FLEET_MAX_HEADERS" default:"1MiB" placeholder:"SIZE" help:"Largest header of an answer, in all; class header_too_large (default: ${default})."`
}

// apply puts the flags into the options of a fetcher.
func (f *GuardFlags) apply(o *fetch.Options) (err error) {
	if f.MaxHeaders != 0 && f.MaxHeaders < 1<<10 { // 0 where no flags were parsed
		return usage("--max-headers %d: at least 1KiB", f.MaxHeaders)
	}
	o.MaxHeaderBytes = int64(f.MaxHeaders)
	if o.Ports, err = fetch.ParsePorts(f.Ports); err != nil {
		return usage("--ports %w", err)
	}
	return nil
}
