package worker

import (
	"context"

	"github.com/fetchfleet/fetchfleet/internal/hosts"
)

// Gate lets visits in. internal/hosts has it.
type Gate interface {
	// Site is what the limits of a host are kept for: itself, or the address that it has in common with others.
	Site(ctx context.Context, host string) (string, error)
	// Enter begins a visit, or returns a *hosts.BusyError when the batch should not wait in its slot, or a
	// *hosts.UnavailableError when the host is given up.
	Enter(ctx context.Context, a hosts.Ask) (hosts.Visit, error)
	// RobotsText is what was kept of the host's robots.txt, "" when nothing was.
	RobotsText(ctx context.Context, host string) (string, error)
	// Vacate frees what batches of dead workers held.
	Vacate(ctx context.Context, batches []string) error
	// Refused notes that n requests of a job were not sent because robots.txt does not allow them.
	Refused(job, host string, n int)
	// Visiting reports whether this worker visits the host now.
	Visiting(host string) bool
	// Run looks after the lines until ctx ends.
	Run(ctx context.Context)
}
