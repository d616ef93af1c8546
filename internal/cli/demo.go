package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/fetchfleet/fetchfleet/internal/admin"
	"github.com/fetchfleet/fetchfleet/internal/demosite"
)

type demoCommand struct {
	LocalFlags
}

// Help says what the flags do not.
func (*demoCommand) Help() string {
	return "Some of its pages are slow, flaky, redirecting, large or missing. Exit code 0 means that each ended as it should."
}

// Run fetches the demo's own site.
func (c *demoCommand) Run(ctx context.Context, w IO) error {
	if c.Out != defaultOut && recorded(c.Out) {
		return usage("--out %s has a job already: the demo's site is another each time, give it a new folder", c.Out)
	}
	site, err := demosite.Start(context.WithoutCancel(ctx))
	if err != nil {
		return err
	}
	defer site.Close()
	if c.Redis == os.Getenv("FLEET_REDIS") { // meant for a fleet, whose work is not the demo's to take
		c.Redis = ""
	}
	if strings.Join(c.Store, ",") == os.Getenv("FLEET_STORE") { // so is a fleet's store
		c.Store = nil
	}
	c.AllowPrivate = nil
	for _, p := range site.Prefixes() { // its own addresses and no others
		c.AllowPrivate = append(c.AllowPrivate, p.String())
	}
	if c.HostRate == nil {
		rate := 20.0
		c.HostRate = &rate
	}
	if c.Out == defaultOut { // a demo leaves nothing behind where one works
		if c.Out, err = os.MkdirTemp("", "fetchfleet-demo-"); err != nil {
			return err
		}
	}
	list := strings.NewReader(strings.Join(site.URLs(), "\n"))
	if !c.Quiet {
		fmt.Fprintf(w.Stderr, "serving %d pages on %d hosts of this machine, and fetching them\n", len(site.URLs()), demosite.Hosts)
	}
	w.Stdin = list
	run := &local{LocalFlags: c.LocalFlags, files: []string{"-"}, w: w, once: true}
	return demoVerdict(run.run(ctx), run.last.Outcomes, site.Expect())
}

// demoVerdict turns the end of the run into the demo's: its missing pages are meant to be missing.
func demoVerdict(err error, got map[string]int64, want map[string]int) error {
	var exit *exitError
	incomplete := errors.As(err, &exit) && exit.code == ExitIncomplete
	if err != nil && !incomplete {
		return err
	}
	for outcome, n := range want {
		if got[outcome] != int64(n) {
			return fmt.Errorf("the demo's site was not fetched as it should be: %d requests ended %s, want %d", got[outcome], outcome, n)
		}
	}
	return nil
}

// originCommand serves the demo's site to others: the compose file's demo has it as a service.
type originCommand struct {
	Listen string   `env:"FLEET_LISTEN" default:"127.0.0.1:8000" placeholder:"ADDR" help:"Address to serve at (default: ${default})."`
	Hosts  []string `required:"" help:"Host names under which it is reached, separated by commas."`
	List   string   `placeholder:"FILE" help:"Write the list of its URLs there."`
}

// Run serves until the context ends.
func (c *originCommand) Run(ctx context.Context, w IO) error {
	listener, err := admin.Listen(c.Listen)
	if err != nil {
		return err
	}
	site, err := demosite.StartNamed(context.WithoutCancel(ctx), listener, c.Hosts)
	if err != nil {
		return err
	}
	defer site.Close()
	if c.List != "" {
		list := func(out io.Writer) error {
			_, err := fmt.Fprintln(out, strings.Join(site.URLs(), "\n"))
			return err
		}
		if err := writeAtomically(c.List, list); err != nil {
			return err
		}
	}
	fmt.Fprintf(w.Stderr, "serving %d pages at %s\n", len(site.URLs()), listener.Addr())
	<-ctx.Done()
	return nil
}
