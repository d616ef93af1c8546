// Command worker is one member of the fleet.
package main

import (
	"os"

	"github.com/fetchfleet/fetchfleet/internal/cli"
)

func main() { os.Exit(cli.Worker(cli.OS())) }
