// Command fleet runs a whole fleet in one process, and looks after jobs.
package main

import (
	"os"

	"github.com/fetchfleet/fetchfleet/internal/cli"
)

func main() { os.Exit(cli.Fleet(cli.OS())) }
