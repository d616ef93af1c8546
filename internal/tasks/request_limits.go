package tasks

import "time"

// RequestLimits are what one request says of its own time; 0 leaves it to the job. A worker that is older than these
// fields takes the job's.
type RequestLimits struct {
	MaxTime        Duration `json:"max_time,omitempty"`
	ConnectTimeout Duration `json:"connect_timeout,omitempty"`
	TLSTimeout     Duration `json:"tls_timeout,omitempty"`
	IdleTimeout    Duration `json:"idle_timeout,omitempty"`
}

// WholeTime returns how long the request may take, body included.
func (r *Request) WholeTime(spec *Spec) time.Duration { return either(r.MaxTime, spec.MaxTime) }

// ConnectTime returns how long looking up and connecting may take, 0 = as usual; so do the others for their steps.
func (r *Request) ConnectTime(spec *Spec) time.Duration {
	return either(r.ConnectTimeout, spec.ConnectTimeout)
}

// TLSTime is that of the handshake.
func (r *Request) TLSTime(spec *Spec) time.Duration { return either(r.TLSTimeout, spec.TLSTimeout) }

// IdleTime is that of a pause within the body.
func (r *Request) IdleTime(spec *Spec) time.Duration { return either(r.IdleTimeout, spec.IdleTimeout) }

func either(own, jobs Duration) time.Duration {
	if own > 0 {
		return time.Duration(own)
	}
	return time.Duration(jobs)
}
